package bios.protocol.checkpoint;

/// The content of a checkpoint, and its segment in a path.
public enum CheckpointKind {
    /// Weights, optimizer moments, step and settings: training resumes from it exactly.
    TRAINING("weights"),
    /// Weights only, to sample from.
    SAMPLER("sampler_weights");

    private final String segment;

    CheckpointKind(String segment) {
        this.segment = segment;
    }

    /// The middle part of a three-part path.
    public String segment() {
        return segment;
    }
}
