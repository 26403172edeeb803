package bios.coordinator.run;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.run.RunEvent.*;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.run.OperationKind;
import bios.protocol.run.DeathReport;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.HistoryEntry.Kind;
import bios.protocol.run.StoredOperation;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;

class RunHistoryTest {
    private static final Fault BAD = Fault.server("engine_failed", "it broke");

    private static Optional<Stamp> at(long millis) {
        return Optional.of(new Stamp(millis, "node-1"));
    }

    private static TrainingRun of(int kept, RunEvent... events) {
        TrainingRun run = TrainingRun.NONE.apply(new RunCreated(RunHarness.config(true), at(1)), kept);
        for (RunEvent event : events) run = run.apply(event, kept);
        return run;
    }

    private static OperationAccepted accepted(long position, OperationKind kind) {
        return new OperationAccepted(position, 10 + position,
                new StoredOperation.Inline(kind, new byte[] {1}), "d" + position, 5);
    }

    private static RecoveryPointReached point(long position) {
        return new RecoveryPointReached(position, new BlobRef(new BlobId("x", "0".repeat(64)), 10), position,
                RunHarness.LORA, Optional.empty(), List.of(), at(100 + position));
    }

    private static HistoryRecorded noted(Kind kind) {
        return new HistoryRecorded(new HistoryEntry(9, Optional.of("node-1"), kind, Optional.empty(),
                Optional.empty(),
                Map.of()));
    }

    private static List<Kind> kinds(TrainingRun run) {
        return run.history().stream().map(HistoryEntry::kind).toList();
    }

    @Test void eventsGiveEntriesWithSubjectTimeAndNode() {
        TrainingRun run = of(256, accepted(1, OperationKind.FORWARD_BACKWARD), noted(Kind.OPENED),
                new OperationFailed(1, BAD, at(20)), point(1),
                new CheckpointDeleted(CheckpointKind.SAMPLER, new CheckpointName("a"), at(30), List.of()),
                new RunClosed(40, at(40)));
        assertEquals(List.of(Kind.CREATED, Kind.OPENED, Kind.OPERATION_FAILED, Kind.RECOVERY_POINT,
                Kind.CHECKPOINT_DELETED, Kind.UNLOADED), kinds(run));
        HistoryEntry failed = run.history().get(2);
        assertEquals(20, failed.timeMillis());
        assertEquals(Optional.of("node-1"), failed.node());
        assertEquals(Optional.of(1L), failed.position());
        assertEquals(Optional.of(11L), failed.seq());
        assertEquals(Map.of("code", "engine_failed", "message", "it broke"), failed.detail());
        assertEquals(Map.of("step", "1", "bytes", "10"), run.history().get(3).detail());
        assertEquals("sampler_weights/a", run.history().get(4).detail().get("checkpoint"));
    }

    /// From a save that found its state not finite until a checkpoint is saved or loaded.
    @Test void aRunWhoseStateWasNotFiniteIsCorruptedUntilACheckpointIsSavedOrLoaded() {
        Fault found = Fault.user(Fault.STATE_NOT_FINITE, "tensor 'a' has NaN at [0, 1]");
        TrainingRun run = of(256, accepted(1, OperationKind.SAVE_STATE), new OperationFailed(1, BAD, at(20)));
        assertEquals(Optional.empty(), RunHistory.corrupted(run.history()));
        run = run.apply(new ErrorSeen(1), 256).apply(accepted(2, OperationKind.SAVE_STATE), 256)
                .apply(new OperationFailed(2, found, at(21)), 256).apply(point(2), 256);
        assertEquals(Optional.of("tensor 'a' has NaN at [0, 1]"), RunHistory.corrupted(run.history()));
        for (Kind mends : List.of(Kind.LOADED, Kind.CHECKPOINT_SAVED))
            assertEquals(Optional.empty(), RunHistory.corrupted(run.apply(noted(mends), 256).history()));
    }

    @Test void aRunWhoseRecoveryPointWasNotFiniteIsCorruptedUnlessACheckpointBehindItWasLoaded() {
        var found = new HistoryRecorded(new HistoryEntry(9, Optional.of("node-1"), Kind.STATE_NOT_FINITE,
                Optional.of(2L), Optional.empty(), Map.of("code", Fault.STATE_NOT_FINITE, "message", "NaN")));
        TrainingRun run = of(256, point(0), found);
        assertEquals(Optional.of("NaN"), RunHistory.corrupted(run.history()));
        for (long position : List.of(1L, 3L)) {
            var loaded = new HistoryRecorded(new HistoryEntry(9, Optional.of("node-1"), Kind.LOADED,
                    Optional.of(position), Optional.empty(), Map.of()));
            assertEquals(Optional.empty(), RunHistory.corrupted(run.apply(loaded, 256).history()));
            assertEquals(position == 3 ? Optional.empty() : Optional.of("NaN"),
                    RunHistory.corrupted(of(256, loaded, found).history()), "the point was reported late");
        }
    }

    @Test void successfulOperationsGiveNoEntry() {
        assertEquals(List.of(Kind.CREATED), kinds(of(256, accepted(1, OperationKind.OPTIM_STEP),
                accepted(2, OperationKind.OPTIM_STEP), new ErrorSeen(1), new ReplayFinished(2))));
    }

    @Test void failuresThatAnotherCausedAreCountedWithIt() {
        TrainingRun run = of(256, accepted(1, OperationKind.FORWARD_BACKWARD),
                accepted(2, OperationKind.OPTIM_STEP), accepted(3, OperationKind.OPTIM_STEP),
                new OperationFailed(1, BAD, at(20)), new OperationFailed(2, BAD, at(21)),
                new OperationFailed(3, BAD, at(22)));
        assertEquals(List.of(Kind.CREATED, Kind.OPERATION_FAILED), kinds(run));
        assertEquals("2", run.history().getLast().detail().get("struck"));
    }

    @Test void anOperationThatEndedItsWorkerIsPoisonedInTheHistory() {
        TrainingRun run = of(256, accepted(1, OperationKind.FORWARD_BACKWARD),
                new OperationFailed(1, Fault.server(ReplayPolicy.WORKER_LOST, "died"), at(20)));
        assertEquals(Kind.POISONED_OPERATION, run.history().getLast().kind());
    }

    @Test void theEndsOfWorkersAndWhatWasSetAsideAreEntries() {
        var report = new DeathReport(RunHarness.RUN, "worker-1", 1, 0, 1, 1, "it died");
        TrainingRun run = of(256, accepted(1, OperationKind.FORWARD_BACKWARD),
                new WorkerDied(report, at(7)), new OperationSetAside(1, Fault.server("worker_lost", "died"),
                        at(8)), new OperationRetried(1, at(9)));
        assertEquals(List.of(Kind.CREATED, Kind.WORKER_DIED, Kind.SET_ASIDE, Kind.RETRIED), kinds(run));
        assertEquals(Map.of("cause", "it died", "alone", "1"), run.history().get(1).detail());
    }

    @Test void theOldestIsEvictedWhenThereAreTooMany() {
        TrainingRun run = of(3, noted(Kind.OPENED), noted(Kind.MOVED), noted(Kind.PASSIVATED));
        assertEquals(List.of(Kind.OPENED, Kind.MOVED, Kind.PASSIVATED), kinds(run));
    }

    @Test void recoveryPointsDoNotDisplaceRareEntries() {
        TrainingRun run = of(8);
        for (long at = 1; at <= 50; at++)
            run = run.apply(accepted(at, OperationKind.OPTIM_STEP), 8).apply(point(at), 8);
        assertEquals(List.of(Kind.CREATED, Kind.RECOVERY_POINT, Kind.RECOVERY_POINT), kinds(run));
        assertEquals(Optional.of(50L), run.history().getLast().position());
    }

    @Test void numbersRiseWhateverIsEvictedAndTellWhatIsNewer() {
        TrainingRun run = of(3, noted(Kind.OPENED), noted(Kind.MOVED), noted(Kind.PASSIVATED));
        assertEquals(List.of(2L, 3L, 4L), numbers(RunHistory.newerThan(run.history(), 0)));
        assertEquals(List.of(4L), numbers(RunHistory.newerThan(run.history(), 3)));
        assertEquals(List.of(), RunHistory.newerThan(run.history(), 4));
        assertEquals(run, RunStored.TYPES.read("run/1", RunStored.TYPES.write(run)));
    }

    @Test void entriesOfBuildsWithoutNumbersAreNumberedByTheirPlaces() {
        var old = new HistoryEntry(1, Optional.empty(), Kind.OPENED, Optional.empty(), Optional.empty(),
                Map.of());
        assertEquals(List.of(2L), numbers(RunHistory.newerThan(List.of(old, old), 1)));
        assertEquals(List.of(2L, 3L), numbers(RunHistory.newerThan(List.of(old, old, old.numbered(3)), 1)));
    }

    private static List<Long> numbers(List<HistoryEntry> entries) {
        return entries.stream().map(entry -> entry.number().orElseThrow()).toList();
    }

    @Test void eventsOfBuildsWithoutHistoriesShowOnlyWhatTheyKnow() {
        TrainingRun run = TrainingRun.NONE.apply(new RunCreated(RunHarness.config(true)), 256)
                .apply(accepted(1, OperationKind.FORWARD_BACKWARD), 256)
                .apply(new OperationFailed(1, BAD), 256);
        assertEquals(List.of(Kind.CREATED), kinds(run));
        assertEquals(Optional.empty(), run.history().getFirst().node());
        assertEquals(RunHarness.config(true).createdAtMillis(), run.history().getFirst().timeMillis());
    }

    @Test void aStoredRunKeepsItsHistoryAndOneWithoutIsRead() {
        TrainingRun run = of(256, noted(Kind.OPENED));
        assertEquals(run, RunStored.TYPES.read("run/1", RunStored.TYPES.write(run)));
        TrainingRun old = TrainingRun.NONE.apply(new RunCreated(RunHarness.config(true)));
        String bytes = new String(RunStored.TYPES.write(old), StandardCharsets.ISO_8859_1);
        assertTrue(!bytes.contains("history") && !bytes.contains("stamp"));
        assertEquals(List.of(), ((TrainingRun) RunStored.TYPES.read("run/1",
                RunStored.TYPES.write(old))).history());
    }

    @Test void aLongDetailIsCut() {
        var note = new HistoryEntry(1, Optional.empty(), Kind.WAITING, Optional.empty(), Optional.empty(),
                Map.of("message", "x".repeat(10_000)));
        assertEquals(503, note.detail().get("message").length());
    }
}
