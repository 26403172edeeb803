package bios.worker.adapter;

import static bios.protocol.Require.require;

import bios.protocol.model.LoraSpec;
import bios.protocol.run.AdamParams;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.Device.ClippedStep;
import bios.worker.device.Readback;
import bios.worker.device.Tensor;
import bios.worker.load.ModelSpec;
import bios.worker.load.Safetensors;
import java.util.List;
import java.util.Optional;
import java.util.function.DoubleSupplier;

/// All that a run is on a device: adapter, Adam's moments, number of steps, settings, and the sum
/// of gradients since the last step. It changes in [#accumulate], [#step] and [#dropGradient]
/// only, each all or nothing.
public final class TrainingState implements AutoCloseable {
    private final Adapter adapter;
    private final Factors firstMoment;
    private final Factors secondMoment;
    private final Device on;
    private Optional<Factors> gradient = Optional.empty();
    private long accumulated;
    private long steps;
    private AdamParams settings;

    private TrainingState(Adapter adapter, Factors firstMoment, Factors secondMoment, Device on, long steps,
            AdamParams settings) {
        this.adapter = adapter;
        this.firstMoment = firstMoment;
        this.secondMoment = secondMoment;
        this.on = on;
        this.steps = steps;
        this.settings = settings;
    }

    /// A new run's state: a fresh adapter, no steps, [AdamParams#DEFAULT].
    public static TrainingState fresh(LoraSpec lora, ModelSpec model, Device on) {
        return of(Adapter.fresh(lora, model, on), on, 0, AdamParams.DEFAULT);
    }

    /// A checkpoint's state: [StateSnapshot#adapter] and [StateSnapshot#optimizer] read back. Without an
    /// optimizer the moments and the number of steps are zero.
    ///
    /// @param settings what [#step] without settings uses
    public static TrainingState load(Safetensors adapter, Optional<Safetensors> optimizer, long steps,
            AdamParams settings, LoraSpec lora, ModelSpec model, Device on) {
        Adapter weights = Adapter.fromSafetensors(adapter, lora, model, on);
        TrainingState state = of(weights, on, optimizer.isPresent() ? steps : 0, settings);
        try {
            optimizer.ifPresent(tensors -> state.readMoments(tensors));
            return state;
        } catch (RuntimeException e) {
            state.close();
            throw e;
        }
    }

    /// A recovery point's state, exact: what [StateSnapshot#writeTo] wrote.
    public static TrainingState restore(Safetensors tensors, ModelSpec model, Device on) {
        StateSnapshot.Header header = StateSnapshot.Header.of(tensors.metadata());
        TrainingState state = load(tensors, Optional.of(tensors), header.steps(), header.settings(),
                header.lora(), model, on);
        try {
            if (header.accumulated() > 0) {
                Factors sum = new Factors(header.lora(), model, on);
                state.gradient = Optional.of(sum);
                state.accumulated = header.accumulated();
                HostFactors host = sum.host();
                host.fillFrom(tensors, StateSnapshot.GRADIENT);
                sum.write(host);
            }
            return state;
        } catch (RuntimeException e) {
            state.close();
            throw e;
        }
    }

    private static TrainingState of(Adapter adapter, Device on, long steps, AdamParams settings) {
        Factors first = null;
        try {
            first = new Factors(adapter.lora(), adapter.model(), on);
            return new TrainingState(adapter, first, new Factors(adapter.lora(), adapter.model(), on), on,
                    steps, settings);
        } catch (Throwable e) {
            if (first != null) first.close();
            adapter.close();
            throw e;
        }
    }

    private void readMoments(Safetensors tensors) {
        HostFactors host = firstMoment.host();
        host.fillFrom(tensors, StateSnapshot.FIRST_MOMENT);
        firstMoment.write(host);
        host.fillFrom(tensors, StateSnapshot.SECOND_MOMENT);
        secondMoment.write(host);
    }

    /// The weights, live: the next step changes them.
    public Adapter adapter() {
        return adapter;
    }

    /// Shape, alpha and targets of the adapter.
    public LoraSpec lora() {
        return adapter.lora();
    }

    /// Optimizer steps applied so far.
    public long steps() {
        return steps;
    }

    /// What [#step] without settings uses: the last ones given.
    public AdamParams settings() {
        return settings;
    }

    /// Operations whose gradients are summed and not yet applied.
    public long accumulated() {
        return accumulated;
    }

    /// Most bytes that the state of a run of this shape takes on a device: weights, both moments, the
    /// gradient sum, and the gradient of an operation under way.
    public static long mostBytes(LoraSpec lora, ModelSpec model) {
        return 5 * 4 * Factors.elements(lora, model);
    }

    /// Bytes on the device, the gradient sum included.
    public long bytes() {
        return 4 * adapter.weights().elements() * (gradient.isPresent() ? 4 : 3);
    }

    /// Zeros of the adapter's shape: where an operation collects its gradient before [#accumulate] takes it.
    public Factors freshGradient() {
        return new Factors(adapter.lora(), adapter.model(), on);
    }

    /// Adds one operation's gradient to the sum, and owns it from now on.
    public void accumulate(Factors operation) {
        if (gradient.isEmpty()) gradient = Optional.of(operation);
        else {
            gradient.get().add(operation);
            operation.close();
        }
        accumulated++;
    }

    /// Forgets the gradient sum.
    public void dropGradient() {
        gradient.ifPresent(Factors::close);
        gradient = Optional.empty();
        accumulated = 0;
    }

    /// One AdamW step on the gradient sum, which it clears. The gradient is first multiplied by min(1,
    /// gradClipNorm / (norm + 1e-6)) where there is a gradClipNorm, as torch.nn.utils.clip_grad_norm_ does.
    /// Waits for nothing.
    ///
    /// @param params become the settings
    /// @return waits for the norm of the whole gradient, before clipping; any thread
    public DoubleSupplier step(AdamParams params) {
        require(gradient.isPresent(), "a step without gradient");
        List<Tensor> sum = gradient.get().slabs();
        ClippedStep step = new ClippedStep(params.learningRate(), params.beta1(), params.beta2(),
                params.eps(), params.weightDecay(), steps + 1, params.gradClipNorm());
        Readback squares;
        try (Device.Scope scope = on.scope()) {
            Tensor sumOfSquares = on.scratch(scope, DType.F64, 1, 1);
            on.sumOfSquares(sumOfSquares, sum);
            on.adamW(adapter.weights().slabs(), firstMoment.slabs(), secondMoment.slabs(), sum, sumOfSquares,
                    step);
            squares = on.readback(List.of(sumOfSquares));
        }
        dropGradient();
        steps++;
        settings = params;
        return () -> Math.sqrt(squares.doubles(0)[0]);
    }

    /// Copies all of it to the host, to be written by another thread while training goes
    /// on. Waits for the device.
    public StateSnapshot snapshot() {
        return new StateSnapshot(new StateSnapshot.Header(adapter.lora(), steps, accumulated, settings),
                adapter.weights().read(),
                firstMoment.read(), secondMoment.read(), gradient.map(Factors::read));
    }

    @Override public void close() {
        dropGradient();
        secondMoment.close();
        firstMoment.close();
        adapter.close();
    }
}
