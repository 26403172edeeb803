package bios.worker.device.cpu;

import java.lang.foreign.MemorySegment;

/// Prefetches the pages of mapped files, each once: matrices are loaded in the order of their files, so the
/// bytes after one are likely to be read next. The system calls take time themselves, the more the less of a
/// file is in memory, so they run on a thread of their own.
final class ReadAhead {
    /// Most and fewest bytes prefetched beyond the current matrix.
    private static final long FAR = 256L << 20, NEAR = 128L << 20;
    /// Bytes of one system call.
    private static final long PIECE = 8L << 20;

    private long from;
    private long end;

    /// Prefetches a matrix that is about to be read, and the bytes after it.
    synchronized void prefetchAfter(MemorySegment mapped) {
        long first = mapped.address() / Linux.PAGE * Linux.PAGE;
        long last = mapped.address() + mapped.byteSize();
        boolean follows = from <= first && first <= end;
        if (follows && last + NEAR <= end) return;
        long begin = follows ? end : first;
        from = first;
        end = last + FAR;
        Thread.ofPlatform().daemon().name("read-ahead").start(() -> prefetch(begin, last + FAR));
    }

    /// Addresses beyond a file's end are ignored by the system.
    private static void prefetch(long begin, long end) {
        for (long at = begin; at < end; at += PIECE) Linux.prefetch(at, Math.min(PIECE, end - at));
    }
}
