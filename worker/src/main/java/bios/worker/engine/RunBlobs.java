package bios.worker.engine;

import bios.persistence.blob.BlobStore;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.engine.EngineCommand.Execute;
import bios.protocol.engine.EngineCommand.OpenRun;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;
import bios.worker.adapter.StateSnapshot;
import bios.worker.train.Refused;
import java.util.Optional;

/// What an engine reads from and writes to the blob store. Every method blocks: call
/// it from a virtual thread.
///
/// @param blobs where everything lies
/// @param host recovery points that are at hand
record RunBlobs(BlobStore blobs, HostStateCache host) {
    private static final String OPTIMIZER = "adamw";
    /// Some 50 µs of decoding, about what another thread takes to wake.
    private static final int LITTLE = 16 << 10;

    /// Reads a run's recovery point, if it has one.
    DeviceTask open(OpenRun command) {
        return new DeviceTask.Open(command.lora(),
                command.recoveryPoint().map(point -> recoveryPoint(command.config().run(), point)));
    }

    private byte[] recoveryPoint(RunId run, BlobRef point) {
        return host.find(run, point).orElseGet(() -> {
            byte[] bytes = blobs.readSmall(point, BlobStore.MAX_ARRAY_BYTES);
            host.keep(run, point, bytes);
            return bytes;
        });
    }

    private BlobRef putPoint(RunId run, StateSnapshot copy) {
        if (!host.open()) return blobs.put(BlobScope.recovery(run), copy::writeTo);
        byte[] bytes = copy.toBytes();
        BlobRef point = blobs.put(BlobScope.recovery(run), bytes);
        host.keep(run, point, bytes);
        return point;
    }

    /// Whether [#operation] reads nothing and decodes so little that the actor may do it itself.
    boolean atHand(Execute command) {
        return command.operation() instanceof StoredOperation.Inline(var kind, var bytes)
                && bytes.length <= LITTLE && kind != OperationKind.LOAD_STATE;
    }

    /// Decodes an operation and reads what it loads; [Refused] when it cannot be done at all.
    DeviceTask operation(Execute command) {
        StoredOperation stored = command.operation();
        byte[] encoded = switch (stored) {
            case StoredOperation.Inline(_, var bytes) -> bytes;
            case StoredOperation.InBlob(_, var blob) -> blobs.readSmall(blob, BlobStore.MAX_ARRAY_BYTES);
        };
        return switch (StoredOperations.decode(stored.kind(), encoded)) {
            case Operation.ForwardBackward evaluate -> new DeviceTask.Evaluate(evaluate);
            case Operation.OptimStep step -> new DeviceTask.Optimize(step);
            case Operation.SaveState save ->
                    new DeviceTask.Copy(new DeviceTask.Purpose.State(save, command.acceptedAtMillis()));
            case Operation.SaveSamplerWeights save ->
                    new DeviceTask.Copy(new DeviceTask.Purpose.Sampler(save, command.acceptedAtMillis()));
            case Operation.LoadState load -> load(load, command.loaded());
        };
    }

    private DeviceTask load(Operation.LoadState load, Optional<CheckpointManifest> loaded) {
        CheckpointManifest manifest =
                loaded.orElseThrow(() -> new IllegalStateException("load_state came without its checkpoint"));
        Optional<byte[]> optimizer = load.optimizer()
                ? Optional.of(moments(load, manifest)) : Optional.empty();
        return new DeviceTask.Load(load, manifest,
                blobs.readSmall(manifest.adapter(), BlobStore.MAX_ARRAY_BYTES), optimizer);
    }

    private byte[] moments(Operation.LoadState load, CheckpointManifest manifest) {
        if (manifest.optimizer().isEmpty())
            throw new Refused(Fault.user("weights_only", load.path()
                    + " holds weights only; load it without the optimizer, or load a training state"));
        if (!manifest.optimizerType().equals(OPTIMIZER))
            throw new Refused(Fault.user("optimizer_mismatch",
                    load.path() + " was saved with the optimizer '" + manifest.optimizerType()
                    + "', this run's is " + OPTIMIZER + "; load it without the optimizer"));
        return blobs.readSmall(manifest.optimizer().get(), BlobStore.MAX_ARRAY_BYTES);
    }

    /// Writes a copy for what it was made; the event says that it is durable.
    EngineEvent keep(RunConfig run, long position, DeviceTask.Purpose purpose, StateSnapshot copy) {
        return switch (purpose) {
            case DeviceTask.Purpose.State(var save, var at) -> {
                var adapter = adapter(run, copy);
                var optimizer = blobs.put(BlobScope.checkpoints(run.run()), copy.optimizer());
                yield saved(run, position, new CheckpointManifest(run.run(), CheckpointKind.TRAINING,
                        Optional.of(save.name()), run.baseModel(), copy.header().lora(),
                        adapter.id().sha256(), adapter, Optional.of(optimizer), copy.header().steps(),
                        copy.header().settings(), OPTIMIZER, save.userMetadata(), run.parent(), at,
                        expiry(at, save.ttlSeconds())));
            }
            case DeviceTask.Purpose.Sampler(var save, var at) -> {
                var adapter = adapter(run, copy);
                yield saved(run, position, new CheckpointManifest(run.run(), CheckpointKind.SAMPLER,
                        save.name(), run.baseModel(), copy.header().lora(), adapter.id().sha256(), adapter,
                        Optional.empty(), copy.header().steps(), copy.header().settings(), OPTIMIZER, "{}",
                        run.parent(), at, expiry(at, save.ttlSeconds())));
            }
            case DeviceTask.Purpose.Recovery() -> {
                var state = putPoint(run.run(), copy);
                yield new EngineEvent.RecoveryPointWritten(run.run(), position, state, copy.header().steps(),
                        copy.header().lora());
            }
        };
    }

    private BlobRef adapter(RunConfig run, StateSnapshot copy) {
        return blobs.put(BlobScope.checkpoints(run.run()), copy.adapter());
    }

    private static EngineEvent saved(RunConfig run, long position, CheckpointManifest manifest) {
        return new EngineEvent.Executed(run.run(), position, new OperationResult.Saved(manifest));
    }

    private static Optional<Long> expiry(long atMillis, Optional<Long> ttlSeconds) {
        return ttlSeconds.map(seconds -> Math.addExact(atMillis, Math.multiplyExact(1000L, seconds)));
    }
}
