package bios.worker.train;

import bios.worker.adapter.Factors;
import bios.worker.device.Readback;
import bios.worker.model.TrainingPass;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// The next micro-batches of several evaluations, laid out on the host for one pass over the frozen weights.
public final class PreparedPass {
    private final List<Evaluation> evaluations;
    private final TrainingPass pass;

    PreparedPass(List<Evaluation> evaluations, TrainingPass pass) {
        this.evaluations = List.copyOf(evaluations);
        this.pass = pass;
    }

    /// Tokens of all micro-batches.
    public int tokens() {
        return pass.rows();
    }

    /// Starts the pass and does not wait. Only the thread that calls the device's verbs calls it. If it
    /// throws, the runs are as they were before their operations; the caller closes the evaluations.
    public LaunchedPass launch() {
        List<Optional<Factors>> gradients = new ArrayList<>();
        for (Evaluation evaluation : evaluations) gradients.add(evaluation.gradient());
        Readback results = pass.launch(gradients);
        return new LaunchedPass(evaluations, pass, results);
    }
}
