package bios.persistence.blob;

import bios.protocol.checkpoint.BlobRef;

/// A blob is larger than the caller of [BlobStore#readSmall] allows.
public final class BlobTooLarge extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param ref the blob with its size
    /// @param maxBytes the largest size that the caller allows
    public BlobTooLarge(BlobRef ref, int maxBytes) {
        super("blob " + ref.id() + " has " + ref.bytes() + " bytes; at most " + maxBytes
                + " bytes are read into memory at once here");
    }
}
