package bios.coordinator.run;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.model.LoraSpec;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunUsage;
import bios.protocol.run.StorageUse;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// The fields of a changed copy of a [TrainingRun]: those of the original until they are assigned.
final class TrainingRunFields {
    Optional<RunConfig> config;
    Optional<LoraSpec> lora;
    long accepted;
    IntervalSet known;
    List<PendingOperation> pending;
    TrainingRun.RecoveryPoint recovery;
    boolean trained;
    Checkpoints checkpoints;
    Optional<TrainingRun.BlockingFailure> blocking;
    Optional<TrainingRun.Suspect> suspect;
    List<BlobId> garbage;
    long lastRequestMillis;
    boolean closed;
    List<HistoryEntry> history;
    Optional<Long> executedUpTo;
    Map<String, TrainingRun.WorkerDeath> deaths;
    Optional<TrainingRun.SetAside> setAside;
    Optional<RunUsage> usage;
    Optional<StorageUse> storage;
    Optional<Long> givenUp;

    TrainingRunFields(TrainingRun original) {
        config = original.config();
        lora = original.lora();
        accepted = original.accepted();
        known = original.known();
        pending = original.pending();
        recovery = original.recovery();
        trained = original.trained();
        checkpoints = original.checkpoints();
        blocking = original.blocking();
        suspect = original.suspect();
        garbage = original.garbage();
        lastRequestMillis = original.lastRequestMillis();
        closed = original.closed();
        history = original.history();
        executedUpTo = original.executedUpTo();
        deaths = original.deaths();
        setAside = original.setAside();
        usage = original.usage();
        storage = original.storage();
        givenUp = original.givenUp();
    }

    /// The copy.
    TrainingRun run() {
        return new TrainingRun(config, lora, accepted, known, pending, recovery, trained, checkpoints,
                blocking, suspect, garbage, lastRequestMillis, closed, history, executedUpTo, deaths,
                setAside, usage, storage, givenUp);
    }
}
