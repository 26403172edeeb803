package bios.worker.engine;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunConfig;
import bios.protocol.sampling.SampleTask;
import bios.worker.adapter.Adapter;
import bios.worker.adapter.StateSnapshot;
import bios.worker.adapter.StateSource;
import bios.worker.adapter.TrainingState;
import bios.worker.load.ModelRefused;
import bios.worker.load.NotFinite;
import bios.worker.load.TensorStream;
import bios.worker.train.Refused;
import java.util.concurrent.Callable;
import java.util.function.Consumer;

/// Moves states and adapters between the blob store and the device, block by block, while the device works
/// for others. The device's thread only allocates and replaces states. A failure leaves the state before it,
/// and frees what was allocated. Every method blocks: call it from a virtual thread.
record StateStreams(RunBlobs blobs, StagingBuffers buffers, DeviceThread device, DeviceExecutor executor) {
    /// Makes the first state of a run.
    TaskOutcome open(RunConfig config, ResidentRun run, DeviceTask.Open open) throws Exception {
        try (StateSource source = blobs.source(config.run(), open)) {
            verified(source::verify, () -> replace(run, source));
            return new TaskOutcome.Opened();
        }
    }

    /// Replaces the state of a run by a checkpoint, or by an adapter that was uploaded: what an engine has
    /// written fits, or the store is at fault, but an upload may be anything.
    TaskOutcome load(ResidentRun run, DeviceTask.Load load) throws Exception {
        try {
            return loaded(run, load);
        } catch (ModelRefused refused) {
            boolean uploaded = BlobScope.isInput(load.manifest().adapter().id());
            if (!uploaded || refused instanceof NotFinite) throw refused;
            throw new Refused(Fault.user("lora_mismatch", refused.getMessage()));
        }
    }

    private TaskOutcome loaded(ResidentRun run, DeviceTask.Load load) throws Exception {
        var settings = device.await(() -> executor.optimizerSettings(run));
        try (StateSource source = blobs.source(load, settings)) {
            verified(source::verify, () -> replace(run, source));
            return new TaskOutcome.Completed(new OperationResult.Loaded(load.operation().path().biosUri(),
                    source.header().steps()));
        }
    }

    /// Reads content. Where it is refused, the rest is read as well: a damaged blob is reported as damaged,
    /// whatever its content looks like.
    private static <T> T verified(Runnable verify, Callable<T> read) throws Exception {
        try {
            return read.call();
        } catch (ModelRefused refused) {
            verify.run();
            throw refused;
        }
    }

    private TrainingState replace(ResidentRun run, StateSource source) throws Exception {
        source.check(run.model.model().spec());
        TrainingState state = device.await(() -> executor.allocate(run, source));
        try {
            buffers.stream(buffer -> {
                source.fill(state, buffer);
                return state;
            });
        } catch (Throwable failed) {
            state.close();
            throw failed;
        }
        return device.await(() -> {
            executor.attach(run, state);
            return state;
        });
    }

    /// Loads an adapter for sampling.
    Adapter adapter(SampleTask task) throws Exception {
        SampleTask.Adapter wanted = task.adapter().orElseThrow();
        try (TensorStream file = blobs.tensors("adapter", wanted.blob())) {
            return verified(file::verify, () -> adapter(task.baseModel(), wanted.lora(), file));
        }
    }

    private Adapter adapter(ModelName model, LoraSpec lora, TensorStream file) throws Exception {
        Adapter.checkFile(file, lora, executor.models().get(model).model().spec());
        Adapter adapter = device.await(() -> executor.allocate(model, lora));
        try {
            return buffers.stream(buffer -> {
                adapter.readFrom(file, buffer);
                return adapter;
            });
        } catch (Throwable failed) {
            adapter.close();
            throw failed;
        }
    }

    /// Writes a copy of a run's state and frees the copy; the event says that it is durable.
    ///
    /// @param reports receives [EngineEvent.StateNotFinite]
    EngineEvent write(RunConfig config, long incarnation, long position, DeviceTask.Purpose purpose,
            StateSnapshot copy, Consumer<EngineEvent> reports)
            throws Exception {
        try {
            return buffers.stream(
                    buffer -> blobs.write(config, incarnation, position, purpose, copy, buffer, reports));
        } finally {
            executor.free(copy);
        }
    }
}
