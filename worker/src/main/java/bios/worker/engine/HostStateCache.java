package bios.worker.engine;

import bios.protocol.checkpoint.BlobRef;
import bios.protocol.run.RunId;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;

/// A cache of recovery points in the host's memory, off the Java heap, the newest of each run, written and
/// read as streams: a run that has left a device with memory of its own is opened again without the blob
/// store. The least recently used ones that nobody reads are evicted first. Safe for any thread.
final class HostStateCache {
    private final long limit;
    private final Map<RunId, Stored> points = new LinkedHashMap<>();   // least recently used first
    private long bytes;

    /// A recovery point, or room for one that is being written.
    private static final class Stored {
        final Arena arena = Arena.ofShared();
        final MemorySegment memory;
        Optional<BlobRef> ref = Optional.empty();
        int readers;
        boolean evicted;

        Stored(long bytes) {
            this.memory = arena.allocate(Math.max(1, bytes)).asSlice(0, bytes);
        }
    }

    /// @param limit most bytes; 0 stores nothing
    HostStateCache(long limit) {
        this.limit = limit;
    }

    /// Bytes of native memory in use.
    synchronized long bytes() {
        return bytes;
    }

    /// Begins to store a run's newest recovery point.
    ///
    /// @param size its exact number of bytes
    /// @return empty: there is no room
    synchronized Optional<Writer> store(RunId run, long size) {
        if (size > limit) return Optional.empty();
        for (Iterator<RunId> each = points.keySet().iterator(); bytes + size > limit && each.hasNext(); ) {
            Stored next = points.get(each.next());
            if (next.readers > 0) continue;
            each.remove();
            evict(next);
        }
        if (bytes + size > limit) return Optional.empty();
        try {
            var stored = new Stored(size);
            bytes += size;
            return Optional.of(new Writer(run, stored));
        } catch (OutOfMemoryError _) {
            return Optional.empty();
        }
    }

    /// The content of `ref`, if it is stored; counts as used. The caller closes the stream.
    synchronized Optional<InputStream> open(RunId run, BlobRef ref) {
        Stored stored = points.get(run);
        if (stored == null || !stored.ref.equals(Optional.of(ref))) return Optional.empty();
        points.remove(run);
        points.put(run, stored);
        stored.readers++;
        return Optional.of(new Reader(stored));
    }

    private void evict(Stored stored) {
        stored.evicted = true;
        if (stored.readers == 0) free(stored);
    }

    private void free(Stored stored) {
        bytes -= stored.memory.byteSize();
        stored.arena.close();
    }

    private synchronized void commit(RunId run, Stored stored, BlobRef ref) {
        stored.ref = Optional.of(ref);
        Stored before = points.remove(run);
        if (before != null) evict(before);
        points.put(run, stored);
    }

    private synchronized void abandon(Stored stored) {
        free(stored);
    }

    private synchronized void release(Stored stored) {
        stored.readers--;
        if (stored.evicted && stored.readers == 0) free(stored);
    }

    /// A recovery point on its way into the cache. Closed without [#commit] it leaves nothing.
    final class Writer implements AutoCloseable {
        private final RunId run;
        private final Stored stored;
        private long at;
        private boolean ended;

        private Writer(RunId run, Stored stored) {
            this.run = run;
            this.stored = stored;
        }

        /// Appends bytes; what is beyond the announced size is dropped, and the point is then not stored.
        void write(byte[] from, int offset, int count) {
            long room = stored.memory.byteSize() - at;
            if (count <= room)
                MemorySegment.copy(from, offset, stored.memory, ValueLayout.JAVA_BYTE, at, count);
            at += count;
        }

        /// Stores the point as the content of `ref`, if all of it was written.
        void commit(BlobRef ref) {
            if (ended || at != stored.memory.byteSize()) return;
            ended = true;
            HostStateCache.this.commit(run, stored, ref);
        }

        /// A stream that writes to `out` and here.
        OutputStream copying(OutputStream out) {
            return new OutputStream() {
                @Override public void write(int value) throws IOException {
                    write(new byte[] {(byte) value}, 0, 1);
                }

                @Override public void write(byte[] from, int offset, int count) throws IOException {
                    out.write(from, offset, count);
                    Writer.this.write(from, offset, count);
                }
            };
        }

        /// A stream that reads from `in` and writes here what it reads; at the end of the content it commits
        /// the point as `ref`.
        InputStream copying(InputStream in, BlobRef ref) {
            return new InputStream() {
                @Override public int read() throws IOException {
                    byte[] one = new byte[1];
                    return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
                }

                @Override public int read(byte[] to, int offset, int count) throws IOException {
                    int read = in.read(to, offset, count);
                    if (read > 0) Writer.this.write(to, offset, read);
                    // The end of the stream says that the store has verified all of it.
                    if (read < 0) commit(ref);
                    return read;
                }

                @Override public void close() throws IOException {
                    try (in) {
                        Writer.this.close();
                    }
                }
            };
        }

        @Override public void close() {
            if (ended) return;
            ended = true;
            abandon(stored);
        }
    }

    private final class Reader extends InputStream {
        private final Stored stored;
        private long at;
        private boolean closed;

        Reader(Stored stored) {
            this.stored = stored;
        }

        @Override public int read() {
            byte[] one = new byte[1];
            return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
        }

        @Override public int read(byte[] to, int offset, int count) {
            int read = (int) Math.min(count, stored.memory.byteSize() - at);
            if (count > 0 && read == 0) return -1;
            MemorySegment.copy(stored.memory, ValueLayout.JAVA_BYTE, at, to, offset, read);
            at += read;
            return read;
        }

        @Override public long skip(long count) {
            long skipped = Math.clamp(count, 0, stored.memory.byteSize() - at);
            at += skipped;
            return skipped;
        }

        @Override public void close() {
            if (closed) return;
            closed = true;
            release(stored);
        }
    }
}
