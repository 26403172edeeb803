package bios.coordinator.run;

import bios.protocol.stored.StoredSerializer;
import bios.protocol.stored.StoredType;
import bios.protocol.stored.StoredTypes;
import java.util.List;

/// The stored types of runs: events, snapshot, and the results of a page.
public final class RunStored extends StoredSerializer {
    private static final int IDENTIFIER = 52_101;
    private static final String RESULTS = "run-results";
    static final StoredTypes TYPES = new StoredTypes(List.of(
            StoredType.first("run-created", RunEvent.RunCreated.class),
            StoredType.first("run-operation-accepted", RunEvent.OperationAccepted.class),
            StoredType.first("run-load-resolved", RunEvent.LoadResolved.class),
            StoredType.first("run-load-applied", RunEvent.LoadApplied.class),
            StoredType.first("run-operation-failed", RunEvent.OperationFailed.class),
            StoredType.first("run-error-seen", RunEvent.ErrorSeen.class),
            StoredType.first("run-checkpoint-committed", RunEvent.CheckpointCommitted.class),
            StoredType.first("run-checkpoint-deleted", RunEvent.CheckpointDeleted.class),
            StoredType.first("run-expiry-set", RunEvent.ExpirySet.class),
            StoredType.first("run-publication-set", RunEvent.PublicationSet.class),
            StoredType.first("run-usage-counted", RunEvent.UsageCounted.class),
            StoredType.first("run-project-set", RunEvent.ProjectSet.class),
            StoredType.first("run-checkpoints-expired", RunEvent.CheckpointsExpired.class),
            StoredType.first("run-snapshots-released", RunEvent.SnapshotsReleased.class),
            StoredType.first("run-recovery-point-reached", RunEvent.RecoveryPointReached.class),
            StoredType.first("run-operation-attempted", RunEvent.OperationAttempted.class),
            StoredType.first("run-replay-began", RunEvent.ReplayBegan.class),
            StoredType.first("run-replay-finished", RunEvent.ReplayFinished.class),
            StoredType.first("run-worker-died", RunEvent.WorkerDied.class),
            StoredType.first("run-operation-set-aside", RunEvent.OperationSetAside.class),
            StoredType.first("run-operation-retried", RunEvent.OperationRetried.class),
            StoredType.first("run-blobs-abandoned", RunEvent.BlobsAbandoned.class),
            StoredType.first("run-weights-released", RunEvent.WeightsReleased.class),
            StoredType.first("run-blobs-freed", RunEvent.BlobsFreed.class),
            StoredType.first("run-closed", RunEvent.RunClosed.class),
            StoredType.first("run-entity-began", RunEvent.EntityBegan.class),
            StoredType.first("run-noted", RunEvent.HistoryRecorded.class),
            StoredType.first("run", TrainingRun.class),
            StoredType.first(RESULTS, StoredResults.class)));

    /// Called by Pekko.
    public RunStored() {
        super(IDENTIFIER, TYPES);
    }

    /// The serializer of results in blobs.
    static byte[] encode(StoredResults results) {
        return TYPES.writeNamed(results);
    }

    static StoredResults decode(byte[] bytes) {
        return (StoredResults) TYPES.readNamed(RESULTS, bytes);
    }
}
