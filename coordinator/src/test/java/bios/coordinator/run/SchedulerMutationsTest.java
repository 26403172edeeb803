package bios.coordinator.run;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import java.io.IOException;
import java.io.StringWriter;
import java.io.UncheckedIOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;
import javax.tools.JavaCompiler;
import javax.tools.StandardJavaFileManager;
import javax.tools.ToolProvider;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.io.TempDir;

/// Shows that the simulation of the scheduler finds errors: a mutation replaces one line of the scheduler's
/// source, the mutant is compiled and loaded beside the original, and the seed of the mutation must find a
/// violation. docs/guide/simulation.md lists the mutations; `-Dbios.scheduler.find=true` searches for seeds.
class SchedulerMutationsTest {
    /// @param name what the mutant does wrong
    /// @param file the type whose source has the line
    /// @param line text that occurs in exactly one line
    /// @param seed the history that finds it
    private record Mutation(String name, String file, String line, String mutated, long seed) {}

    private static final Path SOURCES = Path.of("src/main/java/bios/coordinator/run");
    private static final String PACKAGE = "bios.coordinator.run.";
    private static final String S = "RunScheduler";
    private static final String R = "ReplayPolicy";
    private static final String P = "Pipeline";
    private static final String Q = "RecoveryPointPlan";
    private static final long MOST_SEEDS = 3_000;

    private static final List<Mutation> MUTATIONS = List.of(
            new Mutation("judges events of a stale session", S, "if (at == epoch) fromEngine(event);",
                    "fromEngine(event);", 4),
            new Mutation("stores what an old session decided", S, "if (at == epoch) persist(events);",
                    "persist(events);", 12),
            new Mutation("takes a load of an old session", S,
                    "if (at != epoch || pipeline.resolving() != position) return;",
                    "if (pipeline.resolving() != position && at == epoch) return;", 14),
            new Mutation("keeps a point of an old session", S, "if (written.epoch() != epoch) return;",
                    "if (written.epoch() < 0) return;", 15),
            new Mutation("goes on past a failure", S,
                    "if (persistDue || TrainingRun.blocksLater(operation, why) && pipeline.holdsAfter",
                    "if (persistDue || pipeline.load() < 0 && pipeline.holdsAfter", 70),
            new Mutation("loses what must be replayed", S,
                    "pipeline = Pipeline.at(run.recovery().position());",
                    "pipeline = Pipeline.at(run.accepted());", 1),
            new Mutation("gives sessions the same epoch", S, "            epoch++;",
                    "            epoch |= 1;", 4),
            new Mutation("leaves the old session open", S,
                    "if (engine == Engine.OPENING || engine == Engine.OPEN) effects.add(new RunEffect.Close",
                    "if (engine == Engine.OPENING) effects.add(new RunEffect.Close", 1),
            new Mutation("keeps a point before all is finished", S,
                    "if (!finished.containsAll(run.recovery().position() + 1, written.position())) return;",
                    "if (finished.none()) return;", 2),
            new Mutation("deletes blobs while some are written", S,
                    "if (deletion != Deletion.IDLE || writing || run.garbage().isEmpty()) return;",
                    "if (deletion != Deletion.IDLE || run.garbage().isEmpty()) return;", 2),
            new Mutation("deletes blobs during a save", S,
                    "boolean writing = points.underWay() || points.inWork() || pipeline.saving();",
                    "boolean writing = points.underWay() || points.inWork();", 2),
            new Mutation("deletes again at once", S, "if (deletion != Deletion.IDLE || writing",
                    "if (deletion == Deletion.RUNNING || writing", 2),
            new Mutation("takes a point while blobs are deleted", S,
                    "if (pointDue() && !deleting) return takePoint();",
                    "if (pointDue()) return takePoint();", 2),
            new Mutation("saves while blobs are deleted", S,
                    "|| deleting && operation.saves()) return false;",
                    ") return false;", 2),
            new Mutation("goes past a load in work", S, "if (pipeline.load() != 0) return false;",
                    "if (pipeline.load() < 0) return false;", 33),
            new Mutation("loads beside others", S, "if (load && !pipeline.idle()) return false;",
                    "if (load && persistDue) return false;", 24),
            new Mutation("executes what a failure blocks", S,
                    "Optional<Fault> blocked = load ? Optional.empty()",
                    "Optional<Fault> blocked = !persistDue ? Optional.empty()", 3),
            new Mutation("has no window", S, "if (pipeline.full(operation, settings) || deleting",
                    "if (deleting", 2),
            new Mutation("goes on while results are too many", S,
                    "if (resultsOverLimit && pipeline.sent() > run.recovery().position()) return false;",
                    "if (resultsOverLimit && persistDue) return false;", 4),
            new Mutation("goes one too far past the point", S,
                    "return ahead >= settings.pointMaxOperations()",
                    "return ahead > settings.pointMaxOperations()", 18),
            new Mutation("goes too many bytes past the point", S,
                    "|| ahead > 0 && bytes > settings.pointMaxBytes();", ";", 61),
            new Mutation("takes a requested point for a durable one", S,
                    "pipeline.sentBytes() - points.durableBytes()",
                    "pipeline.sentBytes() - points.takenBytes()", 61),
            new Mutation("gives operations before the run is open", S,
                    "if (engine != Engine.OPEN) return open();",
                    "if (engine == Engine.CLOSED) return open();", 1),
            new Mutation("opens again at once", S, "if (engine != Engine.CLOSED) return false;",
                    "if (engine == Engine.OPENING) return false;", 4),
            new Mutation("works on while it leaves", S,
                    "if (leaving) return quiet() && !departed() && !deleting && takePoint();",
                    "if (leaving && pipeline.idle() && !departed() && quiet()) return takePoint();", 5),
            new Mutation("leaves before its work is durable", S,
                    "if (leaving && departed() && !points.underWay() && unindexed.none()) stop();",
                    "if (leaving && quiet()) stop();", 54),
            new Mutation("is evicted before its work is durable", S,
                    "if (!pipeline.idle() || points.inWork() || unsaved()) return false;",
                    "if (!pipeline.idle() || points.inWork()) return false;", 2),
            new Mutation("forgets that an operation is finished", S,
                    "finished = finished.with(outcome.position());", "finished = finished.with(0);", 1),
            new Mutation("goes on before the event is stored", S, "if (!active || persisting) return;",
                    "if (!active) return;", 5),
            new Mutation("closes with work unfinished", S,
                    "return unfinished() == 0 && !points.writingResults() && !persistDue;",
                    "return !points.writingResults() && !persistDue;", 1),
            new Mutation("is passivated with work to replay", S,
                    "boolean dirty = dirty() || !departed();",
                    "boolean dirty = false;", 14),
            new Mutation("executes a durable save again", S,
                    ".filter(PendingOperation::settled).isPresent())",
                    ".filter(o -> o.outcome() instanceof Outcome.Failed).isPresent())", 2),
            new Mutation("loads nothing", S, "effects.add(new RunEffect.Execute(operation, loaded, alone));",
                    "effects.add(new RunEffect.Execute(operation, Optional.empty(), alone));", 5),
            new Mutation("takes a point of what was not executed", S,
                    "effects.add(new RunEffect.TakeRecoveryPoint(pipeline.sent()));",
                    "effects.add(new RunEffect.TakeRecoveryPoint(run.accepted()));", 1),
            new Mutation("takes a point behind a load in work", S,
                    "&& pipeline.load() == 0 && pipeline.sent() > run.recovery().position();",
                    "&& pipeline.sent() > run.recovery().position();", 24),
            new Mutation("forgets stored failures", S,
                    "case Outcome.Failed(var why) -> finish(FinishedOperation.failure(operation, why));",
                    "case Outcome.Failed _ -> {}", 4),
            new Mutation("tells a save before the index shows it", S,
                    "unindexed = unindexed.without(position);", "unindexed = IntervalSet.EMPTY;", 74),
            new Mutation("stores a loaded state's event once more", S,
                    "if (blocked || !(operation.outcome() instanceof Outcome.Applied))",
                    "if (!persistDue)", 54),
            new Mutation("stores a fault of the moment as an outcome", S,
                    "if (why.kind() == Fault.Kind.SERVER) {",
                    "if (why.kind() == Fault.Kind.SERVER && !run.at(position).orElseThrow().saves()) {", 10),
            new Mutation("stores another outcome of a replay", S,
                    "if (position <= executedUpTo() || finished.contains(position)) {",
                    "if (persistDue) {", 12),
            new Mutation("sets aside what waits for a store", R,
                    "return why.code().equals(EngineCommand.STORE_FAILED) || why.code().equals(UNAVAILABLE);",
                    "return why.code().isEmpty();", 4),
            new Mutation("tries what was set aside", S,
                    "if (run.setAside().filter(s -> s.holds(operation.position())).isPresent())",
                    "if (persistDue)", 12),
            new Mutation("gives up twice", S,
                    "if (persistDue || TrainingRun.blocksLater(operation, why) &&",
                    "if (TrainingRun.blocksLater(operation, why) &&", 12),
            new Mutation("gives up what was executed", S,
                    "return run.pending().stream().filter(o -> o.position() > executed && o.needsInput()",
                    "return run.pending().stream().filter(o -> o.position() > 0 * executed && o.needsInput()",
                    95),
            new Mutation("never sets aside what meets no memory", S,
                    "if (aside.isPresent()) {", "if (aside.isPresent() && persistDue) {", 10),
            new Mutation("goes on past what was set aside", S,
                    "case OperationSetAside _ -> restart(\"operation_set_aside\");",
                    "case OperationSetAside _ -> {}", 55),
            new Mutation("keeps the rest of a batch", "TrainingRun", "Optional.of(drops).filter(yes -> yes)",
                    "Optional.of(drops).filter(yes -> !yes)", 3),
            new Mutation("forgets in a replay that a sum was dropped", "PendingOperation",
                    "return outcome instanceof Outcome.Failed || outcome",
                    "return outcome instanceof Outcome.Dropped || outcome instanceof Outcome.Failed"
                            + " || outcome", 8),
            new Mutation("tells a dropped sum as a step", S,
                    "if (operation.outcome() instanceof Outcome.Dropped) return;",
                    "if (persistDue) return;", 8),
            new Mutation("forgets the failures of dropped sums", S,
                    "case Outcome.Dropped(var why) -> finish(FinishedOperation.failure(operation, why));",
                    "case Outcome.Dropped _ -> {}", 58),
            new Mutation("fails the loads that nobody answers", S,
                    "stalled = Optional.of(load.why());",
                    "persist(new OperationFailed(load.position(), load.why()));", 4),
            new Mutation("tries a deadly operation for ever", R,
                    "if (deaths >= attempts && position > executed)",
                    "if (deaths >= 90 * attempts && position > executed)", 17),
            new Mutation("blames too early", R, "if (deaths >= attempts && position > executed)",
                    "if (deaths >= attempts - 1 && position > executed)", 54),
            new Mutation("blames what was executed", R, "if (deaths >= attempts && position > executed)",
                    "if (deaths >= attempts - 1)", 54),
            new Mutation("replays alone beside others", R,
                    "if (!engineIdle) return new Verdict.WaitForEarlier();",
                    "if (!engineIdle && attempts < 0) return new Verdict.WaitForEarlier();", 54),
            new Mutation("never replays alone", R,
                    "if (deaths == 0 || waited == position) return new Verdict.Execute(true);",
                    "if (deaths == 0 || waited == position) return new Verdict.Execute(false);", 17),
            new Mutation("tries again at once", R,
                    "if (deaths == 0 || waited == position) return new Verdict.Execute(true);",
                    "if (deaths >= 0 || waited == position) return new Verdict.Execute(true);", 17),
            new Mutation("waits for the delay for ever", R,
                    "return new ReplayPolicy(attempts, retryAfter, position, false, trouble, opening);",
                    "return new ReplayPolicy(attempts, retryAfter, 0, false, trouble, opening);", 17),
            new Mutation("counts openings against an operation", R,
                    "return new ReplayPolicy(attempts, retryAfter, waited, waiting, trouble,\n",
                    "return new ReplayPolicy(attempts, retryAfter, waited, waiting, Trouble.again(trouble,"
                            + " run.recovery().position() + 1, why),\n", 525),
            new Mutation("resolves a load that was given up", S,
                    "|| pipeline.holds(position) || pipeline.resolving() == position",
                    "|| pipeline.holds(position)", 11),
            new Mutation("waits for a load for ever", P, "load == position ? 0 : load, resolving",
                    "load, resolving", 5),
            new Mutation("takes two points at once", Q,
                    "return new RecoveryPointPlan(false, true, paused, 0, 0, 0, sentBytes,",
                    "return new RecoveryPointPlan(false, false, paused, 0, 0, 0, sentBytes,", 1),
            new Mutation("takes a point again at once", Q,
                    "return new RecoveryPointPlan(true, false, true, steps,",
                    "return new RecoveryPointPlan(true, false, false, steps,", 5));

    /// Loads the classes of the scheduler's package, main and test, again; a class of the mutant replaces the
    /// original.
    private static final class Mutants extends ClassLoader {
        private final Path mutant;

        Mutants(Path mutant) {
            super(SchedulerMutationsTest.class.getClassLoader());
            this.mutant = mutant;
        }

        @Override protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
            if (!name.startsWith(PACKAGE)) return super.loadClass(name, resolve);
            synchronized (getClassLoadingLock(name)) {
                Class<?> loaded = findLoadedClass(name);
                return loaded != null ? loaded : define(name);
            }
        }

        private Class<?> define(String name) throws ClassNotFoundException {
            String file = name.replace('.', '/') + ".class";
            try (var original = getParent().getResourceAsStream(file)) {
                Path changed = mutant.resolve(file);
                if (original == null && !Files.exists(changed)) throw new ClassNotFoundException(name);
                byte[] bytes = Files.exists(changed) ? Files.readAllBytes(changed) : original.readAllBytes();
                return defineClass(name, bytes, 0, bytes.length);
            } catch (IOException failed) {
                throw new UncheckedIOException(failed);
            }
        }
    }

    @TempDir static Path folder;

    @TestFactory Stream<DynamicTest> everyMutationOfTheSchedulerIsCaught() {
        return MUTATIONS.stream().map(m -> DynamicTest.dynamicTest(m.name(), () -> caught(m)));
    }

    private static void caught(Mutation mutation) throws Exception {
        Method play = mutant(mutation);
        if (!Boolean.getBoolean("bios.scheduler.find")) {
            assertTrue(violation(play, mutation.seed()).isPresent(), "seed " + mutation.seed()
                    + " finds nothing; -Dbios.scheduler.find=true searches for another");
            return;
        }
        for (long seed = 1; seed <= MOST_SEEDS; seed++) {
            Optional<?> found = violation(play, seed);
            if (found.isPresent()) {
                System.out.println("MUTATION " + mutation.name() + " | " + seed + " | " + found.get());
                return;
            }
        }
        fail("MUTATION " + mutation.name() + " | none");
    }

    private static Optional<?> violation(Method play, long seed) throws ReflectiveOperationException {
        try {
            return (Optional<?>) play.invoke(null, seed);
        } catch (InvocationTargetException thrown) {
            return Optional.of("throws " + thrown.getCause());
        }
    }

    /// The method [SchedulerSimulation#play] that uses the mutant.
    private static Method mutant(Mutation mutation) throws Exception {
        Path out = Files.createTempDirectory(folder, "mutant");
        Path source = Files.createDirectories(out.resolve("source")).resolve(mutation.file() + ".java");
        String text = Files.readString(SOURCES.resolve(mutation.file() + ".java"));
        assertEquals(1, text.split(java.util.regex.Pattern.quote(mutation.line()), -1).length - 1,
                "lines with " + mutation.line());
        Files.writeString(source, text.replace(mutation.line(), mutation.mutated()));
        JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
        var messages = new StringWriter();
        try (StandardJavaFileManager files = compiler.getStandardFileManager(null, null,
                StandardCharsets.UTF_8)) {
            boolean compiled = compiler.getTask(messages, files, null, List.of("-proc:none", "-d",
                    out.toString(), "-classpath", System.getProperty("surefire.test.class.path",
                            System.getProperty("java.class.path"))), null,
                    files.getJavaFileObjects(source)).call();
            assertTrue(compiled, messages::toString);
        }
        Method play = new Mutants(out).loadClass(PACKAGE + "SchedulerSimulation")
                .getDeclaredMethod("play", long.class);
        play.setAccessible(true);
        return play;
    }

    @Test void theOriginalPassesTheNamedHistories() {
        for (Mutation mutation : MUTATIONS)
            assertEquals(Optional.empty(), SchedulerSimulation.play(mutation.seed()), mutation.name());
    }
}
