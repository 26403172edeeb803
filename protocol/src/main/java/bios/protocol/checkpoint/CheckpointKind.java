package bios.protocol.checkpoint;

import java.util.Arrays;
import java.util.Optional;

/// The content of a checkpoint, and its segment in a path.
public enum CheckpointKind {
    /// Weights, optimizer moments, step and settings: training resumes from it exactly.
    TRAINING("weights"),
    /// Weights only, to sample from.
    SAMPLER("sampler_weights");

    /// What Tinker's clients call sampler weights that were saved for use elsewhere: the same files.
    public static final String EXTERNAL = "external_weights";
    private final String segment;

    CheckpointKind(String segment) {
        this.segment = segment;
    }

    /// The kind that a segment of a path names.
    public static Optional<CheckpointKind> of(String segment) {
        return Arrays.stream(values()).filter(kind -> kind.segment.equals(segment)).findFirst()
                .or(() -> Optional.of(SAMPLER).filter(_ -> segment.equals(EXTERNAL)));
    }

    /// The middle part of a three-part path.
    public String segment() {
        return segment;
    }
}
