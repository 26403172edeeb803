package bios.persistence.blob;

import bios.protocol.checkpoint.BlobId;

/// A blob is not in the store.
public final class BlobMissing extends RuntimeException {
    private static final long serialVersionUID = 1;
    private final transient BlobId id;

    /// @param id the blob
    public BlobMissing(BlobId id) {
        super("blob " + id
                + " is not in the store; it was deleted, or the store is not the one it was written to");
        this.id = id;
    }

    /// The missing blob.
    public BlobId id() {
        return id;
    }
}
