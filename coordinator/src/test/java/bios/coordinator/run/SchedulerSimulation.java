package bios.coordinator.run;

import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;

/// A history of one or two runs of a node that calls [RunScheduler#step] directly, without actors: one seed,
/// one thread, a model engine whose "weights" are a hash of all executed operations, and an oracle
/// ([SimulatedRun]) that checks every effect and every event.
final class SchedulerSimulation {
    /// The behavior of an operation when it is executed.
    enum Nature {
        GOOD,
        /// The operation fails because of a user error.
        BAD,
        /// The operation needs more memory than the device has.
        TOO_LARGE,
        /// The operation ends the process that executes it.
        DEADLY
    }

    /// A violation that the oracle has found.
    static final class Violation extends RuntimeException {
        private static final long serialVersionUID = 1;

        Violation(String what) {
            super(what);
        }
    }

    private static final int FAULTS_END = 2_500;
    private static final int LONGEST = 40_000;
    private static final Config DEFAULTS = ConfigFactory.defaultReference();

    final SplittableRandom random;
    final RunSettings settings;
    final boolean deadly;
    final int opensWithoutMemory;
    /// Whether owners give up what waits for a store.
    final boolean impatient;
    /// Whether operations that were executed before may fail with user faults in a replay.
    final boolean strict;
    private final List<SimulatedRun> runs = new ArrayList<>();
    /// The rate of each kind of fault: once in this many occasions; 0: never.
    private final int[] faults = new int[16];
    final SimulatedRegister register = new SimulatedRegister("worker-1");
    int steps;
    int randomDeaths;
    private final List<String> trace = new ArrayList<>();
    private final boolean traced;

    private SchedulerSimulation(long seed, boolean traced) {
        this.traced = traced;
        random = new SplittableRandom(seed);
        impatient = seed % 4 == 3;
        strict = seed % 5 == 2;
        for (int i = 0; i < faults.length; i++) faults[i] = oneIn(2) ? 0 : between(6, 40);
        settings = RunSettings.from(ConfigFactory.parseString("""
                bios.run { window = %d, window-bytes = %d, attempts = %d
                  recovery-point { steps = %d, operations = %d, bytes = %d, max-operations = %d
                    max-bytes = %d } }
                """.formatted(between(1, 5), between(40, 300), between(2, 3), between(1, 6), between(3, 9),
                between(200, 900), between(9, 14), between(300, 800))).withFallback(DEFAULTS));
        deadly = oneIn(3);
        opensWithoutMemory = oneIn(4) ? between(1, 6) : 0;
        int count = oneIn(2) ? 1 : 2;
        for (int i = 0; i < count; i++) runs.add(new SimulatedRun(this, i, between(4, 30)));
    }

    /// Plays one history.
    ///
    /// @return the violation, if there is one
    static Optional<String> play(long seed) {
        return play(seed, false);
    }

    static Optional<String> play(long seed, boolean traced) {
        var simulation = new SchedulerSimulation(seed, traced);
        try {
            simulation.play();
            return Optional.empty();
        } catch (Violation broken) {
            return Optional.of(broken.getMessage() + String.join("\n", simulation.trace));
        } catch (RuntimeException thrown) {
            return Optional.of("throws " + thrown + " at " + thrown.getStackTrace()[0]
                    + String.join("\n", simulation.trace));
        }
    }

    private void play() {
        runs.forEach(SimulatedRun::start);
        while (runs.stream().anyMatch(run -> !run.over())) {
            if (++steps > LONGEST) throw new Violation("does not come to an end: "
                    + runs.stream().map(SimulatedRun::waits).toList());
            nodeFaults();
            any(runs).act();
        }
        runs.forEach(SimulatedRun::judgeEnd);
    }

    private void nodeFaults() {
        if (!fault(0) || !oneIn(20)) return;
        randomDeaths++;
        var marks = new ArrayList<SimulatedRegister.Mark>();
        if (oneIn(2)) runs.forEach(run -> run.working().ifPresent(marks::add));
        // A random end does not meet the same operation alone so often in a row.
        boolean again = marks.size() == 1 && register.alone(marks.getFirst().run(),
                marks.getFirst().position()) >= settings.attempts() - 1;
        if (again) marks.clear();
        die(marks);
    }

    /// An operation ends the process.
    void killedBy(SimulatedRegister.Mark operation, boolean alone) {
        var marks = new ArrayList<>(List.of(operation));
        if (!alone && oneIn(2)) runs.forEach(run -> run.working()
                .filter(other -> !other.run().equals(operation.run())).ifPresent(marks::add));
        die(marks);
    }

    /// Ends the process with its entities and its engine.
    private void die(List<SimulatedRegister.Mark> marks) {
        trace("the node dies while it executes " + marks);
        register.died(marks);
        runs.forEach(SimulatedRun::start);
    }

    // Random choices

    boolean calm() {
        return steps > FAULTS_END;
    }

    /// Whether a fault of this kind occurs now.
    boolean fault(int kind) {
        return !calm() && faults[kind] > 0 && random.nextInt(faults[kind]) == 0;
    }

    boolean oneIn(int times) {
        return random.nextInt(times) == 0;
    }

    int between(int low, int high) {
        return random.nextInt(low, high + 1);
    }

    <T> T any(List<T> of) {
        return of.get(random.nextInt(of.size()));
    }

    void trace(Object what) {
        if (traced) trace.add("\n" + steps + " " + what);
    }
}
