package bios.coordinator.run;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.OperationKind;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.junit.jupiter.api.Test;

/// What is read of a run in a journal that no process serves, and what a repair writes there.
class RunInspectionTest {
    private static final RunStored STORED = new RunStored();

    private static BlobRef blob(String scope, String digit) {
        return new BlobRef(new BlobId(scope, digit.repeat(64)), 10);
    }

    private static RunEvent accepted(long position, StoredOperation operation) {
        return new RunEvent.OperationAccepted(position, position, operation, "d" + position, 1);
    }

    private static StoredOperation inline() {
        return new StoredOperation.Inline(OperationKind.OPTIM_STEP, new byte[] {1});
    }

    private static RunInspection after(RunInspection run, RunEvent event) {
        return run.after(STORED.manifest(event), STORED.toBinary(event));
    }

    private static RunInspection created() {
        return after(RunInspection.NONE, new RunEvent.RunCreated(RunHarness.config(true)));
    }

    @Test void aRunNeedsItsRecoveryPointAndWhatTheOperationsAfterItRead() {
        assertFalse(RunInspection.NONE.created());
        BlobRef payload = blob("runs/x/operations", "a");
        BlobRef state = blob("runs/x/recovery", "b");
        RunInspection run = after(created(), accepted(1,
                new StoredOperation.InBlob(OperationKind.FORWARD_BACKWARD, payload)));
        assertEquals(Set.of(payload.id()), run.needed());
        run = after(run, new RunEvent.RecoveryPointReached(1, state, 0, RunHarness.config(true).lora(),
                Optional.empty(), List.of(ResultsPage.unknown(blob("runs/x/results", "c"), 1))));
        assertEquals(Set.of(state.id()), run.needed());
        assertEquals(Set.of(blob("runs/x/results", "c").id()), run.others());
        assertEquals(1, run.accepted());
    }

    @Test void theNamesOfBlobsProveEventsOfTheJournal() {
        RunId run = RunHarness.RUN;
        for (var each : Map.of(BlobScope.checkpoints(run, 7), 7L, BlobScope.recovery(run, 8), 8L,
                BlobScope.results(run, 7, 31), 31L, BlobScope.results(run, 0, 31), 0L,
                BlobScope.recovery(run, 0), 0L, BlobScope.operation(run, 5, 12, "r"), 0L).entrySet())
            assertEquals(each.getValue(), BlobScope.event(blob(each.getKey(), "a").id()), each.getKey());
        assertTrue(created().lacks(3, 2));
        assertFalse(created().lacks(2, 2), "the event is there");
        var stored = RunInspection.dataLost(7, Map.of("by", "restore", "have", "2", "acknowledged", "5"));
        RunInspection after = created().after(stored.manifest(), stored.bytes());
        assertFalse(after.lacks(5, 3), "it was given up");
        assertTrue(after.lacks(6, 3));
    }

    @Test void anEventThatTheRunDoesNotAllowIsRefused() {
        assertThrows(RuntimeException.class, () -> after(created(), accepted(2, inline())));
        assertThrows(RuntimeException.class, () -> created().after("run-operation-accepted/1",
                new byte[] {1, 2, 3}));
    }

    @Test void afterDataWereGivenUpTheNextOperationFailsOnceAndTheHistorySaysWhy() {
        var stored = RunInspection.dataLost(7, Map.of("by", "restore", "have", "12"));
        var event = (RunEvent) STORED.fromBinary(stored.bytes(), stored.manifest());
        TrainingRun run = TrainingRun.NONE.apply(new RunEvent.RunCreated(RunHarness.config(true)))
                .apply(accepted(1, inline())).apply(event, 10);
        assertEquals(HistoryEntry.Kind.DATA_LOST, run.history().getLast().kind());
        assertTrue(run.blockedBy(1).isEmpty(), "what is left is executed");
        run = run.apply(accepted(2, inline()));
        assertEquals("data_lost", run.blockedBy(2).orElseThrow().code());
        run = run.apply(new RunEvent.OperationFailed(2, run.blockedBy(2).orElseThrow()));
        assertTrue(run.wouldBeSeen(2));
        run = run.apply(new RunEvent.ErrorSeen(2)).apply(accepted(3, inline()));
        assertTrue(run.blockedBy(3).isEmpty(), "the client knows");
    }
}
