package bios.worker.train;

import bios.worker.device.Readback;
import bios.worker.model.TrainingPass;
import java.util.ArrayList;
import java.util.List;

/// A pass that the device works on.
public final class LaunchedPass {
    private final List<Evaluation> evaluations;
    private final TrainingPass pass;
    private final Readback results;

    LaunchedPass(List<Evaluation> evaluations, TrainingPass pass, Readback results) {
        this.evaluations = evaluations;
        this.pass = pass;
        this.results = results;
    }

    /// Waits for the results and takes none. Any thread.
    public void await() {
        results.floats(0);
    }

    /// Waits for the results and hands them to the evaluations. One thread at a time, and passes of one
    /// evaluation in the order in which they were prepared. When it throws, the runs are as they were before
    /// their operations: close the evaluations.
    public void complete() {
        List<float[]> logprobs = new ArrayList<>();
        List<Boolean> finite = new ArrayList<>();
        for (int i = 0; i < evaluations.size(); i++) {
            logprobs.add(pass.logprobs(results, i));
            finite.add(pass.gradientFinite(results, i));
        }
        for (int i = 0; i < evaluations.size(); i++)
            evaluations.get(i).complete(logprobs.get(i), finite.get(i));
    }
}
