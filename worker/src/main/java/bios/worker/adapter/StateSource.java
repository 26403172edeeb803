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

/// Where the content of a new [TrainingState] comes from. A state is made in three steps, so that the device
/// never waits for a store: [#check] reads headers only, [#allocate] takes the memory on the device's thread,
/// and [#fill] streams the content from any thread, while no verb uses the state. The caller closes the
/// source, and the state when [#fill] throws.
public sealed interface StateSource extends AutoCloseable {
    /// Shape, counters and settings of the state.
    StateSnapshot.Header header();

    /// Refuses files that are not those of a state of this shape: [bios.worker.load.ModelRefused] names the
    /// tensor.
    void check(ModelSpec model);

    /// Writes the content into the zeros of [#allocate]; once.
    void fill(TrainingState state, StagingBuffer staging);

    /// Reads the rest of the files, see [TensorStream#verify].
    void verify();

    @Override void close();

    /// A state of zeros of this shape; [bios.worker.device.OutOfDeviceMemory] with nothing taken.
    default TrainingState allocate(ModelSpec model, Device on) {
        return TrainingState.allocate(header(), model, on);
    }

    /// All three steps at once, where nothing else uses the device.
    default TrainingState make(ModelSpec model, Device on) {
        check(model);
        TrainingState state = allocate(model, on);
        try {
            fill(state, new StagingBuffer());
            return state;
        } catch (Throwable failed) {
            state.close();
            throw failed;
        }
    }

    /// A new run's state: a fresh adapter, no steps, [AdamParams#DEFAULT].
    record Fresh(LoraSpec lora) implements StateSource {
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

    /// A recovery point, exact: what [StateSnapshot#writePoint] wrote.
    record Point(TensorStream file, StateSnapshot.Header header) implements StateSource {
        public Point(TensorStream file) {
            this(file, StateSnapshot.Header.of(file.metadata()));
        }

        @Override public void check(ModelSpec model) {
            Adapter.check(file, header.lora(), model);
            FactorLayout layout = FactorLayout.of(header.lora(), model);
            Factors.check(file, layout, StateSnapshot.FIRST_MOMENT);
            Factors.check(file, layout, StateSnapshot.SECOND_MOMENT);
            if (header.accumulated() > 0) Factors.check(file, layout, StateSnapshot.GRADIENT);
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

    /// A checkpoint: what [StateSnapshot#writeAdapter] and [StateSnapshot#writeOptimizer] wrote. Without an
    /// optimizer the moments and the number of steps are zero.
    ///
    /// @param header of the checkpoint; nothing is accumulated
    record Checkpoint(TensorStream adapter, Optional<TensorStream> optimizer, StateSnapshot.Header header)
            implements StateSource {
        /// @param steps of the checkpoint
        /// @param settings what steps without settings use
        public Checkpoint(TensorStream adapter, Optional<TensorStream> optimizer, LoraSpec lora, long steps,
                AdamParams settings) {
            this(adapter, optimizer,
                    new StateSnapshot.Header(lora, optimizer.isPresent() ? steps : 0, 0, settings));
        }

        @Override public void check(ModelSpec model) {
            Adapter.check(adapter, header.lora(), model);
            FactorLayout layout = FactorLayout.of(header.lora(), model);
            optimizer.ifPresent(file -> {
                Factors.check(file, layout, StateSnapshot.FIRST_MOMENT);
                Factors.check(file, layout, StateSnapshot.SECOND_MOMENT);
            });
        }

        @Override public void fill(TrainingState state, StagingBuffer staging) {
            state.adapter().fill(adapter, staging);
            optimizer.ifPresent(file -> {
                Map<String, TensorStream.RowSink> sinks = new HashMap<>();
                state.firstMoment().sinks(sinks, StateSnapshot.FIRST_MOMENT, staging);
                state.secondMoment().sinks(sinks, StateSnapshot.SECOND_MOMENT, staging);
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
