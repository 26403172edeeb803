package bios.worker.adapter;

import static bios.protocol.Require.require;

import bios.protocol.model.LoraSpec;
import bios.protocol.run.AdamParams;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.Device.AdamStep;
import bios.worker.device.Readback;
import bios.worker.device.Snapshot;
import bios.worker.device.Tensor;
import bios.worker.load.ModelSpec;
import java.util.ArrayList;
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

    /// A state of zeros, to be filled by a [StateSource]; [bios.worker.device.OutOfDeviceMemory] with nothing
    /// taken.
    ///
    /// @param header shape, counters and settings; a gradient sum is allocated if it counts any
    static TrainingState allocate(StateSnapshot.Header header, ModelSpec model, Device on) {
        List<Runnable> undo = new ArrayList<>();
        try {
            Adapter adapter = Adapter.allocate(header.lora(), model, on);
            undo.add(adapter::close);
            FactorLayout layout = adapter.weights().layout();
            Factors first = new Factors(layout, on);
            undo.add(first::close);
            Factors second = new Factors(layout, on);
            undo.add(second::close);
            var state = new TrainingState(adapter, first, second, on, header.steps(), header.settings());
            if (header.accumulated() > 0) state.gradient = Optional.of(new Factors(layout, on));
            state.accumulated = header.accumulated();
            return state;
        } catch (Throwable refused) {
            undo.forEach(Runnable::run);
            throw refused;
        }
    }

    /// A new run's state: a fresh adapter, no steps, [AdamParams#DEFAULT].
    public static TrainingState fresh(LoraSpec lora, ModelSpec model, Device on) {
        return new StateSource.Fresh(lora).make(model, on);
    }

    Factors firstMoment() {
        return firstMoment;
    }

    Factors secondMoment() {
        return secondMoment;
    }

    Optional<Factors> gradient() {
        return gradient;
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
        return 5 * 4 * FactorLayout.elements(lora, model);
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

    /// Enqueues one AdamW step on the gradient sum, which it clears. The gradient is first multiplied by
    /// min(1, gradClipNorm / (norm + 1e-6)) where there is a gradClipNorm, as torch.nn.utils.clip_grad_norm_
    /// does.
    ///
    /// @param params become the settings
    /// @return waits for the norm of the whole gradient, before clipping; any thread
    public DoubleSupplier step(AdamParams params) {
        require(gradient.isPresent(), "a step without gradient");
        List<Tensor> sum = gradient.get().slabs();
        try (Device.Scope scope = on.scope()) {
            Tensor squares = on.scratch(scope, DType.F64, 1, 1);
            on.sumOfSquares(squares, sum);
            Readback norm = on.readback(List.of(squares));
            on.adamW(adapter.weights().slabs(), firstMoment.slabs(), secondMoment.slabs(), sum, squares,
                    new AdamStep(params.learningRate(), params.beta1(), params.beta2(), params.eps(),
                            params.weightDecay(), steps + 1, params.gradClipNorm()));
            dropGradient();
            steps++;
            settings = params;
            return () -> Math.sqrt(norm.doubles(0)[0]);
        }
    }

    /// Copies the state on the device, to be written by another thread while training goes on. Does not wait.
    /// [bios.worker.device.OutOfDeviceMemory] with nothing taken when there is no room for the copy.
    public StateSnapshot snapshot(StateSnapshot.Content content) {
        return snapshot(content, on.snapshot(tensors(content)));
    }

    /// The same without a copy: reads the state itself, which must not change until it is written.
    public StateSnapshot live(StateSnapshot.Content content) {
        return snapshot(content, new StateSnapshot.Live(on, tensors(content)));
    }

    private StateSnapshot snapshot(StateSnapshot.Content content, Snapshot copy) {
        var header = new StateSnapshot.Header(adapter.lora(), steps, accumulated, settings);
        return new StateSnapshot(header, adapter.weights().layout(), suffixes(content), copy);
    }

    /// Bytes on the device of [#snapshot].
    public long snapshotBytes(StateSnapshot.Content content) {
        return 4 * adapter.weights().elements() * suffixes(content).size();
    }

    private List<String> suffixes(StateSnapshot.Content content) {
        List<String> all = List.of(StateSnapshot.WEIGHTS, StateSnapshot.FIRST_MOMENT,
                StateSnapshot.SECOND_MOMENT, StateSnapshot.GRADIENT);
        return all.subList(0, switch (content) {
            case WEIGHTS -> 1;
            case CHECKPOINT -> 3;
            case EVERYTHING -> gradient.isPresent() ? 4 : 3;
        });
    }

    private List<Tensor> tensors(StateSnapshot.Content content) {
        List<Tensor> tensors = new ArrayList<>(adapter.weights().tensors());
        if (content == StateSnapshot.Content.WEIGHTS) return tensors;
        tensors.addAll(firstMoment.tensors());
        tensors.addAll(secondMoment.tensors());
        if (content == StateSnapshot.Content.EVERYTHING)
            gradient.ifPresent(sum -> tensors.addAll(sum.tensors()));
        return tensors;
    }

    @Override public void close() {
        dropGradient();
        secondMoment.close();
        firstMoment.close();
        adapter.close();
    }
}
