package bios.worker.train;

import bios.protocol.run.OperationResult.Stepped;
import bios.worker.adapter.TrainingState;
import bios.worker.train.NonFinite.Part;
import java.util.Map;
import java.util.TreeMap;

/// An optimizer step that the device works on.
public final class LaunchedStep {
    private final TrainingState state;
    private final TrainingState.Step step;
    private final NonFinite policy;

    LaunchedStep(TrainingState state, TrainingState.Step step, NonFinite policy) {
        this.state = state;
        this.step = step;
        this.policy = policy;
    }

    /// Waits for the results. Any thread.
    public void await() {
        step.notFinite();
    }

    /// Ends the step. Called by the thread that calls the device's verbs, after [#await]. A step that is not
    /// finite has changed no weight: it is skipped, or refused with the code `non_finite`, and then the
    /// gradient sum stays.
    public Stepped complete() {
        int bits = step.notFinite();
        if (bits != 0 && policy == NonFinite.FAIL)
            throw NonFinite.refused("optim_step: " + Part.of(bits).why()
                    + ". Nothing was changed and the gradient sum is kept: call optim_step with other"
                    + " settings, or load a state");
        state.finish(step);
        Map<String, Double> metrics = new TreeMap<>(Map.of("grad_norm", NonFinite.reported(step.norm()),
                "learning_rate", step.params().learningRate(), "skipped_steps:sum", bits == 0 ? 0.0 : 1.0));
        if (bits != 0) metrics.put(Part.of(bits).metric(), 1.0);
        return new Stepped(state.steps(), metrics);
    }
}
