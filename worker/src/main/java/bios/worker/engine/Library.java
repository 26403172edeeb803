package bios.worker.engine;

import bios.persistence.blob.BlobStore;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.engine.EngineCommand.Execute;
import bios.protocol.engine.EngineCommand.OpenRun;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunConfig;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;
import bios.worker.adapter.StateSnapshot;
import bios.worker.train.Refused;
import java.util.Optional;

/// What an engine reads from and writes to the blob store. Every method blocks: call it from a virtual thread.
///
/// @param blobs where everything lies
record Library(BlobStore blobs) {
    private static final String OPTIMIZER = "adamw";

    /// Reads a run's recovery point, if it has one.
    Deed open(OpenRun command) {
        return new Deed.Open(command.lora(), command.recoveryPoint().map(blobs::read));
    }

    /// Decodes an operation and reads what it loads; [Refused] when it cannot be done at all.
    Deed operation(Execute command) {
        StoredOperation stored = command.operation();
        byte[] encoded = switch (stored) {
            case StoredOperation.Inline(_, var bytes) -> bytes;
            case StoredOperation.InBlob(_, var blob) -> blobs.read(blob);
        };
        return switch (StoredOperations.decode(stored.kind(), encoded)) {
            case Operation.ForwardBackward evaluate -> new Deed.Evaluate(evaluate);
            case Operation.OptimStep step -> new Deed.Optimize(step);
            case Operation.SaveState save -> new Deed.Copy(new Deed.Purpose.State(save, command.acceptedAtMillis()));
            case Operation.SaveSamplerWeights save -> new Deed.Copy(new Deed.Purpose.Sampler(save, command.acceptedAtMillis()));
            case Operation.LoadState load -> load(load, command.loaded());
        };
    }

    private Deed load(Operation.LoadState load, Optional<CheckpointManifest> loaded) {
        CheckpointManifest manifest = loaded.orElseThrow(() -> new IllegalStateException("load_state came without its checkpoint"));
        Optional<byte[]> optimizer = Optional.empty();
        if (load.optimizer()) {
            BlobRef moments = manifest.optimizer().orElseThrow(() -> new Refused(Fault.user("weights_only", load.path()
                    + " holds weights only; load it without the optimizer, or load a training state")));
            if (!manifest.optimizerType().equals(OPTIMIZER)) throw new Refused(Fault.user("optimizer_mismatch", load.path()
                    + " was saved with the optimizer '" + manifest.optimizerType() + "', this run's is " + OPTIMIZER + "; load it without the optimizer"));
            optimizer = Optional.of(blobs.read(moments));
        }
        return new Deed.Load(load, manifest, blobs.read(manifest.adapter()), optimizer);
    }

    /// Writes a copy for what it was made; the event says that it is durable.
    EngineEvent keep(RunConfig run, long position, Deed.Purpose purpose, StateSnapshot snapshot) {
        return switch (purpose) {
            case Deed.Purpose.State(var save, var at) -> new EngineEvent.Executed(run.run(), position, new OperationResult.Saved(manifest(run,
                    CheckpointKind.TRAINING, Optional.of(save.name()), snapshot, save.userMetadata(), at, save.ttlSeconds())));
            case Deed.Purpose.Sampler(var save, var at) -> new EngineEvent.Executed(run.run(), position, new OperationResult.Saved(manifest(run,
                    CheckpointKind.SAMPLER, save.name(), snapshot, "{}", at, save.ttlSeconds())));
            case Deed.Purpose.Recovery() -> new EngineEvent.RecoveryPointWritten(run.run(), position,
                    blobs.put(BlobScope.recovery(run.run()), snapshot::writeTo), snapshot.header().steps(), snapshot.header().lora());
        };
    }

    private CheckpointManifest manifest(RunConfig run, CheckpointKind kind, Optional<CheckpointName> name, StateSnapshot snapshot,
            String userMetadata, long at, Optional<Long> ttlSeconds) {
        String scope = BlobScope.checkpoints(run.run());
        BlobRef adapter = blobs.put(scope, snapshot.adapter());
        Optional<BlobRef> optimizer = kind == CheckpointKind.TRAINING ? Optional.of(blobs.put(scope, snapshot.optimizer())) : Optional.empty();
        var header = snapshot.header();
        return new CheckpointManifest(run.run(), kind, name, run.baseModel(), header.lora(), adapter.id().sha256(), adapter, optimizer,
                header.steps(), header.settings(), OPTIMIZER, userMetadata, run.parent(), at, ttlSeconds.map(s -> at + 1000 * s));
    }
}
