package bios.coordinator.run;

import static org.junit.jupiter.api.Assertions.fail;

import org.junit.jupiter.api.Test;

/// Plays thousands of histories of [SchedulerSimulation]. `-Dbios.scheduler.seeds=N` plays N histories,
/// `-Dbios.scheduler.seed=S` one, with its trace.
class RunSchedulerSimulationTest {
    private static final long SEEDS = Long.getLong("bios.scheduler.seeds", 5_000);

    @Test void noHistoryHasAViolation() {
        Long only = Long.getLong("bios.scheduler.seed");
        if (only != null) {
            SchedulerSimulation.play(only, true).ifPresent(what -> fail("seed " + only + ": " + what));
            return;
        }
        for (long seed = 1; seed <= SEEDS; seed++) {
            long played = seed;
            SchedulerSimulation.play(seed, false).ifPresent(what -> fail("seed " + played + ": " + what));
        }
    }
}
