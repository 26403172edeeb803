package bios.worker.engine;

import bios.persistence.blob.BlobStore;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.engine.EngineCommand.Execute;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;
import bios.worker.adapter.StateSnapshot;
import bios.worker.adapter.StateSource;
import bios.worker.load.NotFinite;
import bios.worker.load.StagingBuffer;
import bios.worker.load.TensorStream;
import bios.worker.train.Refused;
import java.io.InputStream;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;

/// Reads and writes of an engine in the blob store: operations, states and adapters. States and
/// adapters are streams of any size. Every method blocks: call it from a virtual thread.
///
/// @param blobs the store
/// @param host recovery points in the host's memory
record RunBlobs(BlobStore blobs, HostStateCache host) {
    private static final String OPTIMIZER = "adamw";
    /// Some 50 µs of decoding, about what another thread takes to wake.
    private static final int SMALL_BYTES = 16 << 10;

    // ---- reading ----

    /// Whether [#operation] reads nothing and decodes so little that the engine may call it itself.
    boolean decodesAtOnce(Execute command) {
        return command.operation() instanceof StoredOperation.Refused
                || command.operation() instanceof StoredOperation.Inline(var kind, var bytes)
                && bytes.length <= SMALL_BYTES && kind != OperationKind.LOAD_STATE;
    }

    /// Reads and decodes an operation; [Refused] when it can never be executed.
    DeviceTask operation(Execute command) {
        StoredOperation stored = command.operation();
        if (stored instanceof StoredOperation.Refused(var kind, _) && kind == OperationKind.OPTIM_STEP)
            return new DeviceTask.DropGradient();
        byte[] encoded = switch (stored) {
            case StoredOperation.Inline(_, var bytes) -> bytes;
            case StoredOperation.InBlob(_, var blob) -> blobs.readSmall(blob, BlobStore.MAX_ARRAY_BYTES);
            case StoredOperation.Refused(_, var why) -> throw new Refused(why);
        };
        return switch (StoredOperations.decode(stored.kind(), encoded)) {
            case Operation.ForwardBackward evaluate -> new DeviceTask.Evaluate(evaluate);
            case Operation.OptimStep step -> new DeviceTask.Optimize(step);
            case Operation.SaveState save ->
                    new DeviceTask.Copy(new DeviceTask.Purpose.State(save, command.acceptedAtMillis()));
            case Operation.SaveSamplerWeights save ->
                    new DeviceTask.Copy(new DeviceTask.Purpose.Sampler(save, command.acceptedAtMillis()));
            case Operation.LoadState load -> load(load, command.loaded());
            case Operation.LoadUpload(var name, _, _) -> load(new Operation.LoadState(new CheckpointPath(
                    command.run(), Optional.of(CheckpointKind.SAMPLER), name), false), command.loaded());
        };
    }

    private static DeviceTask load(Operation.LoadState load, Optional<CheckpointManifest> loaded) {
        CheckpointManifest manifest = loaded.orElseThrow(() ->
                new IllegalStateException("a load_state without the manifest of its checkpoint"));
        return new DeviceTask.Load(load, manifest,
                load.optimizer() ? Optional.of(moments(load, manifest)) : Optional.empty());
    }

    private static BlobRef moments(Operation.LoadState load, CheckpointManifest manifest) {
        if (manifest.optimizer().isEmpty())
            throw new Refused(Fault.user("weights_only", load.path()
                    + " holds weights only; load it without the optimizer, or load a training state"));
        if (!manifest.optimizerType().equals(OPTIMIZER))
            throw new Refused(Fault.user("optimizer_mismatch",
                    load.path() + " was saved with the optimizer '" + manifest.optimizerType()
                    + "', this run's is " + OPTIMIZER + "; load it without the optimizer"));
        return manifest.optimizer().get();
    }

    /// Opens the content of a run's first state.
    StateSource source(RunId run, DeviceTask.Open open) {
        if (open.recoveryPoint().isEmpty()) return new StateSource.NewState(open.lora());
        BlobRef point = open.recoveryPoint().get();
        TensorStream file = TensorStream.open("recovery point", point(run, point), point.bytes());
        try {
            return new StateSource.RecoveryPoint(file);
        } catch (RuntimeException refused) {
            try (file) {
                file.verify();
            }
            throw refused;
        }
    }

    private InputStream point(RunId run, BlobRef point) {
        return host.open(run, point).orElseGet(() -> {
            InputStream stored = blobs.open(point);
            Optional<HostStateCache.Writer> cached = host.store(run, point.bytes());
            return cached.isPresent() ? cached.get().copying(stored, point) : stored;
        });
    }

    /// Opens a checkpoint.
    ///
    /// @param settings the run's, for a load without the optimizer
    StateSource source(DeviceTask.Load load, AdamParams settings) {
        String path = load.operation().path().biosUri();
        var manifest = load.manifest();
        TensorStream adapter = tensors(path, manifest.adapter());
        try {
            return new StateSource.Checkpoint(adapter, load.optimizer().map(blob -> tensors(path, blob)),
                    manifest.lora(), manifest.step(),
                    load.optimizer().isPresent() ? manifest.settings() : settings);
        } catch (Throwable failed) {
            adapter.close();
            throw failed;
        }
    }

    /// Opens a file of tensors.
    ///
    /// @param where what messages call it
    TensorStream tensors(String where, BlobRef blob) {
        return TensorStream.open(where, blobs.open(blob), blob.bytes());
    }

    // ---- writing ----

    /// Writes a copy for its purpose; the event says that it is durable.
    ///
    /// @param incarnation of the entity for which they are written
    /// @param reports receives [EngineEvent.StateNotFinite]
    EngineEvent write(RunConfig run, long incarnation, long position, DeviceTask.Purpose purpose,
            StateSnapshot copy, StagingBuffer buffer, Consumer<EngineEvent> reports) {
        return switch (purpose) {
            case DeviceTask.Purpose.State(var save, var at) -> {
                var adapter = adapter(run, incarnation, copy, buffer);
                var optimizer = blobs.put(BlobScope.checkpoints(run.run(), incarnation),
                        out -> copy.writeOptimizer(out, buffer));
                yield saved(run, position, new CheckpointManifest(run.run(), CheckpointKind.TRAINING,
                        Optional.of(save.name()), run.baseModel(), copy.header().lora(),
                        adapter.id().sha256(), adapter, Optional.of(optimizer), copy.header().steps(),
                        copy.header().optimizerSettings(), OPTIMIZER, save.userMetadata(), run.parent(), at,
                        expiry(at, save.ttlSeconds()), run.fingerprint()));
            }
            case DeviceTask.Purpose.Sampler(var save, var at) -> {
                var adapter = adapter(run, incarnation, copy, buffer);
                yield saved(run, position, new CheckpointManifest(run.run(), CheckpointKind.SAMPLER,
                        save.name(), run.baseModel(), copy.header().lora(), adapter.id().sha256(), adapter,
                        Optional.empty(), copy.header().steps(), copy.header().optimizerSettings(),
                        OPTIMIZER, "{}",
                        run.parent(), at, expiry(at, save.ttlSeconds()), run.fingerprint()));
            }
            case DeviceTask.Purpose.Recovery() -> {
                var notFinite = new AtomicReference<Optional<NotFinite>>(Optional.empty());
                BlobRef point = point(run.run(), incarnation, copy.recoveryPointBytes(),
                        out -> notFinite.set(copy.writeRecoveryPoint(out, buffer)));
                notFinite.get().ifPresent(found -> reports.accept(new EngineEvent.StateNotFinite(run.run(),
                        position, found.fault("the recovery point behind operation " + position))));
                yield new EngineEvent.RecoveryPointWritten(run.run(), position, point,
                        copy.header().steps(), copy.header().lora());
            }
        };
    }

    private BlobRef point(RunId run, long incarnation, long bytes, BlobStore.Content content) {
        String scope = BlobScope.recovery(run, incarnation);
        Optional<HostStateCache.Writer> cached = host.store(run, bytes);
        if (cached.isEmpty()) return blobs.put(scope, content);
        try (HostStateCache.Writer writer = cached.get()) {
            BlobRef point = blobs.put(scope, out -> content.writeTo(writer.copying(out)));
            writer.commit(point);
            return point;
        }
    }

    private BlobRef adapter(RunConfig run, long incarnation, StateSnapshot copy, StagingBuffer buffer) {
        return blobs.put(BlobScope.checkpoints(run.run(), incarnation),
                out -> copy.writeAdapter(out, buffer));
    }

    private static EngineEvent saved(RunConfig run, long position, CheckpointManifest manifest) {
        return new EngineEvent.Executed(run.run(), position, new OperationResult.Saved(manifest));
    }

    private static Optional<Long> expiry(long atMillis, Optional<Long> ttlSeconds) {
        return ttlSeconds.map(seconds -> Math.addExact(atMillis, Math.multiplyExact(1000L, seconds)));
    }
}
