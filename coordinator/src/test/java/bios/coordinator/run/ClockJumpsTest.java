package bios.coordinator.run;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;

import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Runs under a wall clock that jumps back and forth by hours and days while entities are killed: results are
/// those of a steady clock, and only expiry depends on the clock.
class ClockJumpsTest {
    private static final String SMALL =
            "bios.run { recovery-point.steps = 3, window = 4, retry-after = 50 ms }\n"
            + "pekko.loglevel = WARNING";
    private static final long DAY_MILLIS = Duration.ofDays(1).toMillis();
    private static final int OPERATIONS = 60;
    @TempDir Path folder;

    private RunHarness harness(String name) throws Exception {
        var harness = new RunHarness(Files.createDirectories(folder.resolve(name)), SMALL,
                Duration.ofMillis(1));
        assertInstanceOf(RunReply.Described.class, harness.create());
        return harness;
    }

    private static Operation operation(Random random, int number) {
        return switch (number == 0 ? 0 : random.nextInt(8)) {
            case 0, 1, 2 -> new Operation.ForwardBackward(List.of(new Datum(new int[] {number}, Map.of())),
                    LossFunction.CROSS_ENTROPY, Map.of(), false);
            case 3, 4, 5 -> new Operation.OptimStep(Optional.empty());
            case 6 -> save(random.nextBoolean() ? "a" : "b", Optional.empty());
            default -> new Operation.LoadState(path(random.nextBoolean() ? "a" : "b"), true);
        };
    }

    private static Operation save(String name, Optional<Long> livesSeconds) {
        return new Operation.SaveState(new CheckpointName(name), "{}", livesSeconds);
    }

    private static CheckpointPath path(String name) {
        return CheckpointPath.parse("bios://" + RunHarness.RUN + "/" + name);
    }

    private static List<String> play(RunHarness harness, long seed, Runnable disturbance) {
        var random = new Random(seed);
        var outcomes = new ArrayList<String>();
        for (int seq = 0; seq < OPERATIONS; seq++) {
            harness.submitUntilAccepted(seq, operation(random, seq));
            disturbance.run();
            if (random.nextInt(4) == 0 || seq == OPERATIONS - 1)
                while (outcomes.size() <= seq) outcomes.add(harness.outcome(outcomes.size()).toString());
        }
        var end = (RunReply.Described) harness.ask(r -> new RunCommand.Describe(RunHarness.OWNER, r));
        outcomes.add(end.checkpoints().toString());
        return outcomes;
    }

    @Test void aClockThatJumpsChangesNoResultOfARun() throws Exception {
        for (long seed = 1; seed <= 2; seed++) {
            List<String> still;
            try (var harness = harness("still" + seed)) {
                still = play(harness, seed, () -> {});
            }
            var random = new Random(-seed);
            try (var harness = harness("jumps" + seed)) {
                List<String> jumped = play(harness, seed, () -> {
                    harness.clock.addAndGet(random.nextLong(-30 * DAY_MILLIS, 30 * DAY_MILLIS));
                    if (random.nextInt(15) == 0) harness.kill();
                });
                assertEquals(String.join("\n", still), String.join("\n", jumped), "seed " + seed);
            }
        }
    }

    @Test void anExpiredCheckpointIsFoundAgainWhenTheClockIsSetBack() throws Exception {
        try (var harness = harness("lives")) {
            long now = harness.clock.get();
            harness.submit(0, save("kept", Optional.empty()));
            // The checkpoint expires one day after `now`, counted from its acceptance at epoch millisecond
            // 1001.
            harness.submit(1, save("short", Optional.of((now + DAY_MILLIS) / 1000)));
            harness.outcome(0);
            harness.outcome(1);
            for (long jump : new long[] {0, -400, -30, 0, 400}) {
                harness.clock.set(now + jump * DAY_MILLIS);
                harness.kill();
                for (String name : List.of("kept", "short")) {
                    RunReply found = harness.ask(r -> new RunCommand.Resolve(RunHarness.OWNER, path(name),
                            r));
                    boolean over = name.equals("short") && jump > 0;
                    Class<?> wanted = over ? RunReply.Refused.class : RunReply.Resolved.class;
                    assertEquals(wanted, found.getClass(), name + " at " + jump + " days");
                }
            }
        }
    }
}
