package bios.worker.adapter;

import bios.protocol.model.LoraSpec;
import bios.protocol.run.AdamParams;
import bios.worker.device.Device;
import bios.worker.device.Tensor;
import bios.worker.device.TestDevices;
import bios.worker.load.ModelSpec;
import bios.worker.load.StagingBuffer;
import bios.worker.load.TensorStream;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Files of small states as bytes in memory, for tests.
public final class StateFiles {
    private StateFiles() {}

    private interface Writing {
        void write(StateSnapshot snapshot, OutputStream out, StagingBuffer staging) throws IOException;
    }

    /// A recovery point of the state.
    public static byte[] point(TrainingState state) {
        return bytes(state, StateSnapshot.Content.RECOVERY_POINT, StateSnapshot::writeRecoveryPoint);
    }

    /// The `adapter` blob of the state.
    public static byte[] adapter(TrainingState state) {
        return bytes(state, StateSnapshot.Content.WEIGHTS, StateSnapshot::writeAdapter);
    }

    /// The `optimizer` blob of the state.
    public static byte[] optimizer(TrainingState state) {
        return bytes(state, StateSnapshot.Content.CHECKPOINT, StateSnapshot::writeOptimizer);
    }

    /// Both blobs of a checkpoint of the state.
    public static byte[] checkpoint(TrainingState state) {
        var all = new ByteArrayOutputStream();
        all.writeBytes(adapter(state));
        all.writeBytes(optimizer(state));
        return all.toByteArray();
    }

    /// Weights and moments.
    public static List<float[]> values(TrainingState state, Device on) {
        var all = new ArrayList<float[]>();
        for (Factors factors : List.of(state.adapter().weights(), state.firstMoment(), state.secondMoment()))
            for (Tensor slab : factors.slabs()) all.add(TestDevices.read(on, slab));
        return all;
    }

    private static byte[] bytes(TrainingState state, StateSnapshot.Content content, Writing writing) {
        var out = new ByteArrayOutputStream();
        try (StateSnapshot snapshot = state.snapshot(content)) {
            writing.write(snapshot, out, new StagingBuffer());
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
        return out.toByteArray();
    }

    /// The file as a stream of tensors.
    public static TensorStream stream(byte[] file) {
        return TensorStream.open("file", new ByteArrayInputStream(file), file.length);
    }

    /// The state of a recovery point.
    public static TrainingState restore(byte[] point, ModelSpec model, Device on) {
        try (var source = new StateSource.RecoveryPoint(stream(point))) {
            return source.make(model, on);
        }
    }

    /// The state of a checkpoint.
    public static TrainingState load(byte[] adapter, Optional<byte[]> optimizer, long steps,
            AdamParams settings, LoraSpec lora, ModelSpec model, Device on) {
        try (var source = new StateSource.Checkpoint(stream(adapter), optimizer.map(StateFiles::stream), lora,
                steps, settings)) {
            return source.make(model, on);
        }
    }

    /// The state of an adapter whose stream ends after `bytes` bytes, although its size is that of the file.
    static TrainingState loadCut(byte[] adapter, int bytes, LoraSpec lora, ModelSpec model, Device on) {
        var cut = TensorStream.open("file", new ByteArrayInputStream(adapter, 0, bytes), adapter.length);
        try (var source = new StateSource.Checkpoint(cut, Optional.empty(), lora, 0, AdamParams.DEFAULT)) {
            return source.make(model, on);
        }
    }

    /// The adapter of a file.
    public static Adapter readAdapter(byte[] file, LoraSpec lora, ModelSpec model, Device on) {
        try (TensorStream stream = stream(file)) {
            Adapter.checkFile(stream, lora, model);
            Adapter adapter = Adapter.allocate(lora, model, on);
            adapter.readFrom(stream, new StagingBuffer());
            return adapter;
        }
    }
}
