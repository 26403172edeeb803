package bios.worker.adapter;

import bios.protocol.model.LoraSpec;
import bios.protocol.run.AdamParams;
import bios.worker.device.Device;
import bios.worker.load.ModelSpec;
import bios.worker.load.StagingBuffer;
import bios.worker.load.TensorStream;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;

/// The source of the content of a new [TrainingState]. A state is created in three steps, so that the device
/// never waits for a store: [#check] reads headers only, [#allocate] allocates the memory on the device
/// thread, and [#fill] streams the content from any thread, while no verb uses the state. The caller closes
/// the source, and the state if [#fill] throws.
public sealed interface StateSource extends AutoCloseable {
    /// Shape, counters and settings of the state.
    StateSnapshot.Header header();

    /// Checks that the files contain a state of this shape. Throws [bios.worker.load.ModelRefused] with the
    /// name of the wrong tensor.
    void check(ModelSpec model);

    /// Writes the content into the zeros of [#allocate]; once.
    void fill(TrainingState state, StagingBuffer staging);

    /// Reads the rest of the files, see [TensorStream#verify].
    void verify();

    @Override void close();

    /// Allocates a state of zeros of this shape. If it throws [bios.worker.device.OutOfDeviceMemory], nothing
    /// stays allocated.
    default TrainingState allocate(ModelSpec model, Device device) {
        return TrainingState.allocate(header(), model, device);
    }

    /// Checks, allocates and fills, for callers with no other operation on the device.
    default TrainingState make(ModelSpec model, Device device) {
        check(model);
        TrainingState state = allocate(model, device);
        try {
            fill(state, new StagingBuffer());
            return state;
        } catch (Throwable failed) {
            state.close();
            throw failed;
        }
    }

    /// The state of a new run: a new adapter, no steps, [AdamParams#DEFAULT].
    record NewState(LoraSpec lora) implements StateSource {
        @Override public StateSnapshot.Header header() {
            return new StateSnapshot.Header(lora, 0, 0, AdamParams.DEFAULT);
        }

        @Override public void check(ModelSpec model) {}

        @Override public void fill(TrainingState state, StagingBuffer staging) {
            state.adapter().initialize(staging);
        }

        @Override public void verify() {}

        @Override public void close() {}
    }

    /// A recovery point, written by [StateSnapshot#writeRecoveryPoint]; restores the exact state, also one of
    /// an earlier build that is not finite: it cannot be saved, but another state can be loaded over it.
    record RecoveryPoint(TensorStream file, StateSnapshot.Header header) implements StateSource {
        public RecoveryPoint(TensorStream file) {
            this(file, StateSnapshot.Header.of(file.metadata()));
        }

        @Override public void check(ModelSpec model) {
            Adapter.checkFile(file, header.lora(), model);
            FactorLayout layout = FactorLayout.of(header.lora(), model);
            Factors.check(file, layout, StateSnapshot.FIRST_MOMENT);
            Factors.check(file, layout, StateSnapshot.SECOND_MOMENT);
            if (header.accumulatedOperations() > 0) Factors.check(file, layout, StateSnapshot.GRADIENT);
        }

        @Override public void fill(TrainingState state, StagingBuffer staging) {
            Map<String, TensorStream.RowSink> sinks = new HashMap<>();
            state.adapter().weights().sinks(sinks, StateSnapshot.WEIGHTS, staging);
            state.firstMoment().sinks(sinks, StateSnapshot.FIRST_MOMENT, staging);
            state.secondMoment().sinks(sinks, StateSnapshot.SECOND_MOMENT, staging);
            state.gradient().ifPresent(sum -> sum.sinks(sinks, StateSnapshot.GRADIENT, staging));
            file.read(sinks, staging);
        }

        @Override public void verify() {
            file.verify();
        }

        @Override public void close() {
            file.close();
        }
    }

    /// A checkpoint, written by [StateSnapshot#writeAdapter] and [StateSnapshot#writeOptimizer]; refused if a
    /// number of it is not finite. Without an optimizer the moments and the number of steps are zero.
    ///
    /// @param header of the checkpoint; nothing is accumulated
    record Checkpoint(TensorStream adapter, Optional<TensorStream> optimizer, StateSnapshot.Header header)
            implements StateSource {
        /// @param steps of the checkpoint
        /// @param settings used by steps without settings
        public Checkpoint(TensorStream adapter, Optional<TensorStream> optimizer, LoraSpec lora, long steps,
                AdamParams settings) {
            this(adapter, optimizer,
                    new StateSnapshot.Header(lora, optimizer.isPresent() ? steps : 0, 0, settings));
        }

        @Override public void check(ModelSpec model) {
            Adapter.checkFile(adapter, header.lora(), model);
            FactorLayout layout = FactorLayout.of(header.lora(), model);
            optimizer.ifPresent(file -> {
                Factors.check(file, layout, StateSnapshot.FIRST_MOMENT);
                Factors.check(file, layout, StateSnapshot.SECOND_MOMENT);
            });
        }

        @Override public void fill(TrainingState state, StagingBuffer staging) {
            state.adapter().readFrom(adapter, staging);
            optimizer.ifPresent(file -> {
                Map<String, TensorStream.RowSink> sinks = new HashMap<>();
                state.firstMoment().sinks(sinks, StateSnapshot.FIRST_MOMENT, staging);
                state.secondMoment().sinks(sinks, StateSnapshot.SECOND_MOMENT, staging);
                sinks.replaceAll(file::finite);
                file.read(sinks, staging);
            });
        }

        @Override public void verify() {
            adapter.verify();
            optimizer.ifPresent(TensorStream::verify);
        }

        @Override public void close() {
            try (adapter) {
                optimizer.ifPresent(TensorStream::close);
            }
        }
    }
}
