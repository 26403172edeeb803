package bios.protocol.checkpoint;

/// A stored blob and its size in bytes.
public record BlobRef(BlobId id, long bytes) {}
