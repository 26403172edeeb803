package bios.coordinator.simulation;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/// Simulates real entities with models that crash, drop, delay, repeat and reorder messages, and an oracle
/// that checks every event (docs/guide/simulation.md). `-Dbios.sim.seeds=N` plays N histories from
/// `-Dbios.sim.from=S` on, `-Dbios.sim.seed=S` one, with its trace.
class TrainingRunSimulationTest {
    private static final Simulation SIMULATION = Simulation.open("simulation");
    private static final long SEEDS = Long.getLong("bios.sim.seeds", 2_000);
    private static final long FROM = Long.getLong("bios.sim.from", 1);
    private static final int MUTATED_SEEDS = 300;
    private static final int SHOWN = 400;

    @Test void noHistoryHasAViolation() {
        Long only = Long.getLong("bios.sim.seed");
        if (only != null) {
            var outcome = SIMULATION.play(only, Mutation.NONE, true);
            outcome.trace().forEach(System.out::println);
            outcome.violation().ifPresent(what -> fail("seed " + only + ": " + what));
            return;
        }
        for (long seed = FROM; seed < FROM + SEEDS; seed++)
            if (SIMULATION.play(seed, Mutation.NONE, false).violation().isPresent())
                broken(SIMULATION.play(seed, Mutation.NONE, true));
    }

    private static void broken(Simulation.Outcome outcome) {
        List<String> trace = outcome.trace();
        int from = Math.max(0, trace.size() - SHOWN);
        fail("seed " + outcome.seed() + ": " + outcome.violation().orElse("no violation when played again")
                + "\nagain with -Dbios.sim.seed=" + outcome.seed() + "; the last of " + trace.size()
                + " lines:\n" + String.join("\n", trace.subList(from, trace.size())));
    }

    @Test void theSameSeedGivesTheSameHistory() {
        var first = new ArrayList<List<String>>();
        for (long seed = 1; seed <= 40; seed++) first.add(SIMULATION.play(seed, Mutation.NONE, true).trace());
        for (int seed = 40; seed >= 1; seed--)
            assertEquals(String.join("\n", first.get(seed - 1)),
                    String.join("\n", SIMULATION.play(seed, Mutation.NONE, true).trace()), "seed " + seed);
        assertTrue(first.stream().distinct().count() == 40, "seeds differ");
    }

    /// Every kind of fault and of reply occurs in some history.
    @Test void everyKindOfFaultOccursInSomeHistory() {
        var all = new StringBuilder();
        for (long seed = 1; seed <= 100; seed++)
            SIMULATION.play(seed, Mutation.NONE, true).trace().forEach(line -> all.append(line).append('\n'));
        for (String word : List.of("dies with [entity", "is cut off", "forgets its runs", "is moved",
                "loses its device", "refuses to open", "answers late",
                "out_of_memory",
                "goes to rest", "is killed by operation", " TAKEN", " FAILS", "not kept", "CONFLICT",
                "TOO_MANY", "worker_lost", "no_gradient", "bad_data", "checkpoint_not_found", "point ",
                "resolved ", "CheckpointDeleted", "CheckpointsExpired", "SnapshotsReleased", "RunClosed",
                "delete ", "WorkerDied", "OperationSetAside", "OperationRetried", "Pending"))
            assertTrue(all.indexOf(word) >= 0, "never seen: " + word);
    }

    /// The oracle finds each deliberate error and reports the expected violation.
    @TestFactory Stream<DynamicTest> everyMutationIsCaught() {
        return Arrays.stream(Mutation.values()).filter(m -> m != Mutation.NONE)
                .map(m -> DynamicTest.dynamicTest(m.name(), () -> caught(m)));
    }

    private static void caught(Mutation mutation) {
        var seen = new ArrayList<String>();
        for (long seed = 1; seed <= MUTATED_SEEDS; seed++) {
            var violation = SIMULATION.play(seed, mutation, false).violation();
            if (violation.filter(v -> v.contains(mutation.shows())).isPresent()) return;
            violation.ifPresent(seen::add);
        }
        fail("not caught by '" + mutation.shows() + "'; only " + seen);
    }
}
