package bios.persistence.blob;

import bios.persistence.Metrics;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Counts and times the calls of another blob store ([Metrics]). A damaged or missing blob is logged when it
/// is first read, with its id and the store.
public final class MeteredBlobStore implements BlobStore {
    private static final Logger LOG = LoggerFactory.getLogger(MeteredBlobStore.class);
    private static final double NANOS = 1e9;
    private static final int MAX_REPORTED = 10_000;

    private final BlobStore store;
    private final LongSupplier nanos;
    private final Set<BlobId> reported = ConcurrentHashMap.newKeySet();

    /// Meters `store`; its `toString` names the place of the blobs.
    public MeteredBlobStore(BlobStore store) {
        this(store, System::nanoTime); // edge: measures, decides nothing
    }

    MeteredBlobStore(BlobStore store, LongSupplier nanos) {
        this.store = store;
        this.nanos = nanos;
    }

    @Override public BlobRef put(String scope, Content content) {
        BlobRef written = timed("write", () -> store.put(scope, content));
        Metrics.BLOB_BYTES.labelValues("written").inc(written.bytes());
        return written;
    }

    @Override public InputStream open(BlobRef ref) {
        long began = nanos.getAsLong();
        try {
            return new MeteredInputStream(store.open(ref), began);
        } catch (RuntimeException failed) {
            throw recordFailure("read", failed, began);
        }
    }

    @Override public boolean exists(BlobId id) {
        return timed("exists", () -> store.exists(id));
    }

    @Override public void delete(BlobId id) {
        timed("delete", () -> {
            store.delete(id);
            return id;
        });
    }

    @Override public List<ListedBlob> list(String scope) {
        return timed("list", () -> store.list(scope));
    }

    @Override public String toString() {
        return store.toString();
    }

    private <T> T timed(String operation, Supplier<T> work) {
        long began = nanos.getAsLong();
        try {
            T result = work.get();
            recordSuccess(operation, began);
            return result;
        } catch (RuntimeException failed) {
            throw recordFailure(operation, failed, began);
        }
    }

    private void recordSuccess(String operation, long began) {
        Metrics.BLOB_OPERATIONS.labelValues(operation, "done").inc();
        observe(operation, began);
    }

    private void observe(String operation, long began) {
        Metrics.BLOB_SECONDS.labelValues(operation).observe((nanos.getAsLong() - began) / NANOS);
    }

    private RuntimeException recordFailure(String operation, RuntimeException failed, long began) {
        Metrics.BLOB_OPERATIONS.labelValues(operation, "failed").inc();
        observe(operation, began);
        switch (failed) {
            case BlobDamaged damaged -> {
                Metrics.BLOB_DAMAGED.inc();
                report(damaged.id(), "a blob is damaged", damaged);
            }
            case BlobMissing missing -> {
                Metrics.BLOB_MISSING.inc();
                report(missing.id(), "a blob is missing", missing);
            }
            default -> {}
        }
        return failed;
    }

    /// Logs each blob once: its readers retry.
    private void report(BlobId id, String what, RuntimeException why) {
        if (reported.size() >= MAX_REPORTED || !reported.add(id)) return;
        LOG.atError().addKeyValue("blob", id).addKeyValue("store", store)
                .log("{}: {}", what, why.getMessage());
    }

    /// Reads or skips bytes.
    private interface Reading {
        /// @return how many bytes; negative at the end
        long bytes() throws IOException;
    }

    /// Counts the bytes of a blob that is read.
    private final class MeteredInputStream extends FilterInputStream {
        private final long began;
        private long bytes;
        private boolean ended;

        MeteredInputStream(InputStream in, long began) {
            super(in);
            this.began = began;
        }

        @Override public int read() throws IOException {
            byte[] one = new byte[1];
            return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
        }

        @Override public int read(byte[] into, int offset, int count) throws IOException {
            return (int) counted(() -> in.read(into, offset, count));
        }

        @Override public long skip(long n) throws IOException {
            return counted(() -> in.skip(n));
        }

        private long counted(Reading reading) throws IOException {
            try {
                long n = reading.bytes();
                if (n > 0) bytes += n;
                return n;
            } catch (IOException failed) {
                end(new RuntimeException(failed));
                throw failed;
            } catch (RuntimeException failed) {
                end(failed);
                throw failed;
            }
        }

        @Override public boolean markSupported() {
            return false;
        }

        @Override public void close() throws IOException {
            end(null);
            super.close();
        }

        private void end(RuntimeException failed) {
            if (ended) return;
            ended = true;
            Metrics.BLOB_BYTES.labelValues("read").inc(bytes);
            if (failed == null) recordSuccess("read", began);
            else recordFailure("read", failed, began);
        }
    }
}
