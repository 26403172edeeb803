package bios.persistence.blob;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.List;

/// Immutable bytes under the SHA-256 of their content. All methods block and are safe to call from many
/// threads: call them from virtual threads, never from an actor. They throw [BlobMissing], [BlobDamaged], or
/// [java.io.UncheckedIOException] when the store itself fails.
public interface BlobStore {
    /// Writes what is to be stored; called once.
    @FunctionalInterface
    interface Content {
        /// Writes all bytes to `out`, which the store closes.
        void writeTo(OutputStream out) throws IOException;
    }

    /// Stores `bytes`; when it returns they are durable.
    default BlobRef put(String scope, byte[] bytes) {
        return put(scope, out -> out.write(bytes));
    }

    /// Stores all that `in` gives.
    default BlobRef put(String scope, InputStream in) {
        return put(scope, in::transferTo);
    }

    /// Stores what `content` writes; when it returns the bytes are durable and visible as a whole, and if it
    /// throws nothing is visible. Storing the same bytes again is harmless and mends a damaged blob.
    BlobRef put(String scope, Content content);

    /// All bytes, checked against the digest.
    byte[] read(BlobRef ref);

    /// The bytes as a stream that throws [BlobDamaged] instead of its end when the digest differs. Close it.
    InputStream open(BlobRef ref);

    /// Whether there is a blob of that name; its bytes are not checked.
    boolean exists(BlobId id);

    /// Deletes a blob; harmless if there is none.
    void delete(BlobId id);

    /// The blobs of `scope` and of the scopes below it, in no order.
    List<Listed> list(String scope);

    /// A blob in a listing.
    ///
    /// @param modifiedMillis when it was last put, epoch milliseconds
    record Listed(BlobRef ref, long modifiedMillis) {}
}
