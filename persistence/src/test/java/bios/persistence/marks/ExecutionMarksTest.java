package bios.persistence.marks;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.persistence.marks.ExecutionMarks.SampleDeaths;
import bios.persistence.process.ProcessEnd;
import bios.protocol.run.DeathReport;
import bios.protocol.run.RunId;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Marks survive the process, and only an end during an operation alone, again and again, counts for it.
class ExecutionMarksTest {
    private static final RunId A = new RunId("usf-finance-9f2c4be01a77");
    private static final RunId B = new RunId("usf-finance-9f2c4be01a78");
    @TempDir Path folder;
    private Path data;
    private int process;

    /// The register that the next process finds when the one before has ended without a shutdown: a copy of
    /// its folder, because a process cannot end here.
    private ExecutionMarks next() throws Exception {
        return next(Optional.empty());
    }

    private ExecutionMarks next(Optional<ProcessEnd> previous) throws Exception {
        Path after = Files.createDirectories(folder.resolve("process-" + process++));
        if (data != null) for (Path file : Files.list(data).toList())
            Files.copy(file, after.resolve(file.getFileName()));
        data = after;
        return ExecutionMarks.open(after, previous);
    }

    private static Optional<DeathReport> report(ExecutionMarks marks, RunId run) {
        return marks.reports().stream().filter(r -> r.run().equals(run)).findFirst();
    }

    @Test void endsDuringAnOperationAloneAreCounted() throws Exception {
        next().begin(Map.of(A, 7L));
        for (int times = 1; times <= 3; times++) {
            ExecutionMarks marks = next();
            DeathReport report = report(marks, A).orElseThrow();
            assertEquals(List.of(7L, (long) times, (long) times),
                    List.of(report.position(), (long) report.alone(), report.death()));
            marks.begin(Map.of(A, 7L));
        }
    }

    @Test void theExitStatusThatASupervisorHandsOverIsToldIfItIsOfTheProcessOfTheRegister() throws Exception {
        long own = ProcessHandle.current().pid();
        next().begin(Map.of(A, 7L));
        ExecutionMarks marks = next(Optional.of(new ProcessEnd(own, 137)));
        DeathReport report = report(marks, A).orElseThrow();
        String cause = report.cause();
        assertTrue(cause.startsWith("it ended without a shutdown, by SIGKILL (137)"), cause);
        assertEquals(1, report.alone(), "it counts as without the status");
        marks.begin(Map.of(A, 7L));
        ExecutionMarks other = next(Optional.of(new ProcessEnd(own + 1, 137)));
        assertEquals("it ended without a shutdown", report(other, A).orElseThrow().cause());
        assertEquals(2, report(other, A).orElseThrow().alone());
    }

    @Test void anEndInOneOfManyWaysIsReadAsItWasWritten() {
        for (int status : new int[] {0, 1, 3, 75, 134, 137, 139, 255}) {
            var end = new ProcessEnd(4711, status);
            assertEquals(Optional.of(end), ProcessEnd.parse(end.toString()));
            assertTrue(end.words().contains("" + status), end.words());
        }
        for (String text : new String[] {"", "137", "x 137", "1 2 3", "99999999999 1"})
            assertEquals(Optional.empty(), ProcessEnd.parse(text), text);
    }

    @Test void anEndOutsideOfTheOperationEndsItsCount() throws Exception {
        next().begin(Map.of(A, 7L));
        next().begin(Map.of(A, 7L));
        ExecutionMarks started = next();
        assertEquals(2, report(started, A).orElseThrow().alone());
        DeathReport over = report(next(), A).orElseThrow();
        assertEquals(List.of(0L, 0), List.of(over.position(), over.alone()), "it ended while it started");
        assertTrue(next().reports().isEmpty());
    }

    @Test void anEndInCompanyCountsForNoneAndIsTold() throws Exception {
        next().begin(Map.of(A, 7L, B, 2L));
        ExecutionMarks marks = next();
        for (RunId run : List.of(A, B)) assertEquals(0, report(marks, run).orElseThrow().alone());
        marks.begin(Map.of(B, 2L));
        ExecutionMarks after = next();
        assertEquals(1, report(after, B).orElseThrow().alone());
        assertEquals(0, report(after, A).orElseThrow().alone());
    }

    /// A device may have two micro-batches of an operation, or operations of a run one behind the other.
    @Test void anOperationWithTwoPassesIsAloneAndTheFirstOfTwoOperationsIsReported() throws Exception {
        ExecutionMarks first = next();
        first.begin(Map.of(A, 7L));
        first.begin(Map.of(A, 7L));
        ExecutionMarks second = next();
        assertEquals(1, report(second, A).orElseThrow().alone());
        second.begin(Map.of(A, 8L));
        second.begin(Map.of(A, 7L));
        ExecutionMarks third = next();
        assertEquals(List.of(7L, 1L), List.of(report(third, A).orElseThrow().position(),
                (long) report(third, A).orElseThrow().alone()));
        third.begin(Map.of(A, 7L));
        third.begin(Map.of(A, 7L, B, 2L));
        assertEquals(1, report(next(), A).orElseThrow().alone(), "B was executed with it");
    }

    @Test void twoOperationsThatEndTheirProcessesInTurnAreBothCounted() throws Exception {
        next();
        for (int times = 0; times < 3; times++) {
            next().begin(Map.of(A, 7L));
            next().begin(Map.of(B, 2L));
        }
        ExecutionMarks marks = next();
        assertEquals(List.of(3, 3), List.of(report(marks, A).orElseThrow().alone(),
                report(marks, B).orElseThrow().alone()));
    }

    @Test void whatHasEndedIsNotMarked() throws Exception {
        ExecutionMarks marks = next();
        ExecutionMarks.Handle handle = marks.begin(Map.of(A, 7L));
        marks.executed(A, 7);
        marks.end(handle);
        ExecutionMarks after = next();
        assertEquals(List.of(new DeathReport(A, report(after, A).orElseThrow().worker(), 1, 7, 0, 0, "")),
                after.reports());
        assertEquals(7, after.report(A).orElseThrow().executed());
        assertEquals(Optional.empty(), after.report(B));
    }

    @Test void whatWasExecutedIsReportedUntilARecoveryPointContainsItOrTheProcessEndsInOrder()
            throws Exception {
        ExecutionMarks marks = next();
        marks.executed(A, 7);
        marks.executed(B, 3);
        marks.contained(A, 6);
        marks.contained(B, 3);
        for (int start = 0; start < 2; start++) {
            ExecutionMarks after = next();
            assertEquals(List.of(A), after.reports().stream().map(DeathReport::run).toList());
            assertEquals(7, report(after, A).orElseThrow().executed());
        }
        ExecutionMarks later = next();
        assertEquals(List.of(), later.reports(), "two starts have told it");
        assertEquals(7, later.report(A).orElseThrow().executed(), "it is known here");
        later.executed(A, 8);
        assertEquals(8, report(next(), A).orElseThrow().executed());
        ExecutionMarks closed = ExecutionMarks.open(folder.resolve("in-order"));
        closed.executed(A, 7);
        closed.stopping();
        closed.close();
        assertEquals(List.of(), ExecutionMarks.open(folder.resolve("in-order")).reports());
    }

    /// An entity that starts again in the same process asks for the report once more.
    @Test void aReportOfTheStartTellsWhatTheProcessHasExecutedSince() throws Exception {
        next().executed(A, 5);
        next().begin(Map.of(B, 2L));
        ExecutionMarks marks = next();
        DeathReport started = marks.report(A).orElseThrow();
        assertEquals(5, started.executed());
        marks.executed(A, 12);
        marks.executed(B, 3);
        assertEquals(started.executedUpTo(12), marks.report(A).orElseThrow());
        assertEquals(List.of(3L, 2L, 1L), List.of(marks.report(B).orElseThrow().executed(),
                marks.report(B).orElseThrow().position(), (long) marks.report(B).orElseThrow().alone()));
        marks.stopping();
        marks.close();
        assertEquals(Optional.of(started), marks.report(A), "a closed register is not read");
    }

    @Test void anOrderlyShutdownCountsForNothingEvenIfItIsKilled() throws Exception {
        ExecutionMarks marks = next();
        marks.begin(Map.of(A, 7L));
        marks.stopping();
        assertTrue(next().reports().isEmpty());
        ExecutionMarks closed = ExecutionMarks.open(folder.resolve("closed"));
        closed.stopping();
        closed.close();
        assertTrue(ExecutionMarks.open(folder.resolve("closed")).reports().isEmpty());
    }

    @Test void aLostDeviceIsAnEndThatIsNamed() throws Exception {
        ExecutionMarks marks = ExecutionMarks.open(folder.resolve("lost"));
        marks.begin(Map.of(A, 7L));
        marks.deviceLost();
        marks.stopping();
        marks.close();
        DeathReport report = report(ExecutionMarks.open(folder.resolve("lost")), A).orElseThrow();
        assertEquals(1, report.alone());
        assertTrue(report.cause().contains("device"), report::cause);
    }

    @Test void processesOfOneFolderHaveRegistersOfTheirOwn() {
        ExecutionMarks first = ExecutionMarks.open(folder.resolve("shared"));
        ExecutionMarks second = ExecutionMarks.open(folder.resolve("shared"));
        first.executed(A, 1);
        assertEquals(Optional.empty(), second.report(A));
    }

    @Test void endsDuringSamplingRequestsAreCountedWithoutAnyReportAboutARun() throws Exception {
        next().beginSamples(List.of("one", "two"));
        ExecutionMarks second = next();
        assertEquals(new SampleDeaths(0, 1), second.sampleDeaths("one"));
        second.begin(Map.of(A, 7L));
        second.beginSamples(List.of("one"));
        ExecutionMarks third = next();
        assertEquals(new SampleDeaths(0, 2), third.sampleDeaths("one"), "an operation was executed too");
        assertEquals(new SampleDeaths(0, 1), third.sampleDeaths("two"));
        assertEquals(List.of(A), third.reports().stream().map(DeathReport::run).toList());
        third.end(third.beginSamples(List.of("two")));
        third.sampled("two");
        third.beginSamples(List.of("one"));
        ExecutionMarks fourth = next();
        assertEquals(new SampleDeaths(1, 3), fourth.sampleDeaths("one"));
        assertEquals(new SampleDeaths(0, 0), fourth.sampleDeaths("two"));
        assertEquals(new SampleDeaths(0, 0), next().sampleDeaths("one"), "it ended outside of the request");
    }

    @Test void manySamplingRequestsLeaveRoomForTheMarkOfAnOperation() throws Exception {
        ExecutionMarks marks = next();
        marks.beginSamples(java.util.stream.IntStream.range(0, 500).mapToObj(i -> "s" + i).toList());
        marks.begin(Map.of(A, 7L));
        assertEquals(7, report(next(), A).orElseThrow().position());
    }

    @Test void manyRunsAreMarkedAndKnown() throws Exception {
        ExecutionMarks marks = next();
        for (int i = 0; i < 1000; i++) marks.executed(new RunId("m-%012x".formatted(i)), i + 1);
        var many = new java.util.HashMap<RunId, Long>();
        for (int i = 0; i < 100; i++) many.put(new RunId("m-%012x".formatted(i)), i + 2L);
        marks.begin(many);
        ExecutionMarks after = next();
        assertEquals(0, after.reports().stream().mapToInt(DeathReport::alone).sum());
        int known = 0;
        for (int i = 0; i < 1000; i++) {
            var report = after.report(new RunId("m-%012x".formatted(i))).filter(r -> r.executed() > 0);
            if (report.isPresent()) known++;
            int expected = i + 1;
            report.ifPresent(r -> assertTrue(r.executed() == expected, () -> r + " of " + expected));
        }
        assertTrue(known > 900, "" + known);
    }
}
