package bios.persistence.blob;

import bios.protocol.checkpoint.BlobRef;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;

/// What all blob stores do in the same way.
final class Blobs {
    private Blobs() {}

    /// All bytes of a checked stream, which is closed.
    static byte[] read(BlobRef ref, InputStream checked) {
        try (checked) {
            if (ref.bytes() > Integer.MAX_VALUE - 16)
                throw new IllegalArgumentException("blob " + ref.id() + " is too large for one array");
            byte[] bytes = checked.readNBytes((int) ref.bytes());
            if (checked.read() >= 0)
                throw new BlobDamaged(ref.id(), "it has more than " + ref.bytes() + " bytes");
            return bytes;
        } catch (IOException failed) {
            throw new UncheckedIOException("blob " + ref.id() + " cannot be read: " + failed, failed);
        }
    }
}
