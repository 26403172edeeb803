package bios.worker.sample;

import bios.worker.device.Readback;
import java.util.List;
import java.util.Optional;

/// A decode pass that the device works on; [Sampler#complete] takes its results.
public final class LaunchedDecode {
    private final SchedulerStep step;
    private final List<ScheduledTokens> scheduled;
    private final Optional<OutputPlan> plan;
    private final Optional<Readback> results;

    LaunchedDecode(SchedulerStep step, List<ScheduledTokens> scheduled, Optional<OutputPlan> plan,
            Optional<Readback> results) {
        this.step = step;
        this.scheduled = scheduled;
        this.plan = plan;
        this.results = results;
    }

    /// There was nothing to do.
    static LaunchedDecode nothing(SchedulerStep step) {
        return new LaunchedDecode(step, List.of(), Optional.empty(), Optional.empty());
    }

    /// Tokens of the pass.
    public int tokens() {
        return scheduled.stream().mapToInt(ScheduledTokens::count).sum();
    }

    /// Waits for the results without applying them. Any thread.
    public void await() {
        plan.ifPresent(p -> p.read(results.orElseThrow()));
    }

    SchedulerStep step() {
        return step;
    }

    List<ScheduledTokens> scheduled() {
        return scheduled;
    }

    Optional<OutputPlan> plan() {
        return plan;
    }

    Optional<Readback> results() {
        return results;
    }
}
