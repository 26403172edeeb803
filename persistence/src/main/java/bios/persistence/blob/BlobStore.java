package bios.persistence.blob;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.util.List;

/// Stores immutable contents under their SHA-256. Contents have any size (a `long`); they are written and
/// read as streams, in memory that does not grow with the size. All methods block and are safe to call from
/// many threads: call them from virtual threads, never from an actor. They throw [BlobMissing],
/// [BlobDamaged], or [UncheckedIOException] when the store itself fails.
public interface BlobStore {
    /// The largest array that every Java VM can allocate: the upper limit of [#readSmall].
    int MAX_ARRAY_BYTES = Integer.MAX_VALUE - 16;

    /// Writes a content; called once.
    @FunctionalInterface
    interface Content {
        /// Writes all bytes to `out`, which the store closes.
        void writeTo(OutputStream out) throws IOException;
    }

    /// Stores `bytes`; they are durable when the method returns.
    default BlobRef put(String scope, byte[] bytes) {
        return put(scope, out -> out.write(bytes));
    }

    /// Stores all bytes of `in`.
    default BlobRef put(String scope, InputStream in) {
        return put(scope, in::transferTo);
    }

    /// Stores what `content` writes. When the method returns, the blob is durable and complete; when it
    /// throws, nothing is stored. Storing the same bytes again is idempotent and repairs a damaged blob.
    BlobRef put(String scope, Content content);

    /// Opens a blob of any size for reading; the caller closes the stream. The stream has exactly
    /// `ref.bytes()` bytes. Size and digest are verified before the last byte is returned: a read that would
    /// return it, or the end of the stream, throws [BlobDamaged] when they differ, so that a damaged or
    /// truncated blob is never a short stream, even for a reader that stops after `ref.bytes()` bytes.
    InputStream open(BlobRef ref);

    /// Reads a whole blob that is known to be small.
    ///
    /// @param maxBytes the largest size that the caller expects, at most [#MAX_ARRAY_BYTES]; a larger blob is
    ///         refused with [BlobTooLarge] before anything is read or allocated
    default byte[] readSmall(BlobRef ref, int maxBytes) {
        if (ref.bytes() > Math.min(maxBytes, MAX_ARRAY_BYTES)) throw new BlobTooLarge(ref, maxBytes);
        try (InputStream in = open(ref)) {
            byte[] bytes = new byte[(int) ref.bytes()];
            int read = in.readNBytes(bytes, 0, bytes.length);
            // Reaches the end, where a stream that does not know its size verifies the content.
            if (read < bytes.length || in.read() >= 0)
                throw new BlobDamaged(ref.id(), "it does not have " + ref.bytes() + " bytes");
            return bytes;
        } catch (IOException failed) {
            throw new UncheckedIOException("blob " + ref.id() + " cannot be read: " + failed, failed);
        }
    }

    /// Whether the blob is stored; its content is not verified.
    boolean exists(BlobId id);

    /// Deletes a blob, if it is stored.
    void delete(BlobId id);

    /// The blobs of `scope` and of the scopes below it, in any order.
    List<ListedBlob> list(String scope);

    /// A blob in a listing.
    ///
    /// @param modifiedMillis when it was last stored, epoch milliseconds
    record ListedBlob(BlobRef ref, long modifiedMillis) {}
}
