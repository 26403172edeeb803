package bios.persistence.blob;

import bios.protocol.checkpoint.BlobId;

/// The bytes of a blob are not those that were stored.
public final class BlobDamaged extends RuntimeException {
    private static final long serialVersionUID = 1;
    private final transient BlobId id;

    /// @param id the blob
    /// @param problem the difference from the stored digest or length
    public BlobDamaged(BlobId id, String problem) {
        super("blob " + id + " is damaged: " + problem
                + "; restore it from a copy or delete what refers to it");
        this.id = id;
    }

    /// The damaged blob.
    public BlobId id() {
        return id;
    }
}
