package bios.protocol.run;

/// The kinds of [Operation], as the journal and the history name them.
public enum OperationKind {
    FORWARD, FORWARD_BACKWARD, OPTIM_STEP, SAVE_STATE, SAVE_SAMPLER_WEIGHTS, LOAD_STATE;

    /// The kind of `operation`.
    public static OperationKind of(Operation operation) {
        return switch (operation) {
            case Operation.ForwardBackward(_, _, _, var forwardOnly) ->
                    forwardOnly ? FORWARD : FORWARD_BACKWARD;
            case Operation.OptimStep _ -> OPTIM_STEP;
            case Operation.SaveState _ -> SAVE_STATE;
            case Operation.SaveSamplerWeights _ -> SAVE_SAMPLER_WEIGHTS;
            case Operation.LoadState _, Operation.LoadUpload _ -> LOAD_STATE;
        };
    }

    /// Whether later operations would train or save wrong weights if an operation of this kind failed
    /// unnoticed.
    public boolean changesState() {
        return this == FORWARD_BACKWARD || this == OPTIM_STEP || this == LOAD_STATE;
    }
}
