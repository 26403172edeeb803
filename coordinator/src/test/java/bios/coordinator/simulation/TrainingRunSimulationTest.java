package bios.coordinator.simulation;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// Real entities among models that crash, drop, delay, repeat and reorder, and an oracle that sees it all
/// (docs/guide/simulation.md). `-Dbios.sim.seeds=N` plays N histories, `-Dbios.sim.seed=S` one with its trace.
class TrainingRunSimulationTest {
    private static final Simulation SIMULATION = Simulation.open("simulation");
    private static final long SEEDS = Long.getLong("bios.sim.seeds", 2_000);
    private static final int SHOWN = 300;

    @Test void nothingThatIsPromisedIsBrokenInAnyHistory() {
        Long only = Long.getLong("bios.sim.seed");
        if (only != null) {
            var outcome = SIMULATION.play(only, Mutation.NONE, true);
            outcome.trace().forEach(System.out::println);
            outcome.violation().ifPresent(what -> fail("seed " + only + ": " + what));
            return;
        }
        long from = Long.getLong("bios.sim.from", 1);
        var broken = new ArrayList<String>();
        long steps = 0;
        for (long seed = from; seed < from + SEEDS; seed++) {
            var outcome = SIMULATION.play(seed, Mutation.NONE, false);
            steps += outcome.steps();
            long own = seed;
            outcome.violation().ifPresent(what -> broken.add("seed " + own + ": " + what));
            if (broken.size() >= Integer.getInteger("bios.sim.stop", 1)) break;
        }
        System.out.println(SEEDS + " histories, " + steps + " events, broken " + broken.size());
        broken.forEach(System.out::println);
        if (!broken.isEmpty()) {
            long seed = Long.parseLong(broken.getFirst().replaceAll("seed (\\d+):.*", "$1"));
            var trace = SIMULATION.play(seed, Mutation.NONE, true).trace();
            fail(broken.getFirst() + "\n" + String.join("\n",
                    trace.subList(Math.max(0, trace.size() - SHOWN), trace.size())));
        }
    }
}
