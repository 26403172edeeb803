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

/// The training state of a run on a device: adapter, Adam's moments, number of steps, settings of the
/// optimizer, and the sum of gradients since the last step. Only [#accumulate], [#step] with [#finish], and
/// [#dropGradient] change it; each succeeds completely or changes nothing. Weights and moments are always
/// finite. The gradient sum may not be: then the next step changes no weight and clears it.
public final class TrainingState implements AutoCloseable {
    private final Adapter adapter;
    private final Factors firstMoment;
    private final Factors secondMoment;
    private final Device device;
    private Optional<Factors> gradient = Optional.empty();
    private long accumulatedOperations;
    private long steps;
    private AdamParams optimizerSettings;

    private TrainingState(Adapter adapter, Factors firstMoment, Factors secondMoment, Device device,
            long steps, AdamParams optimizerSettings) {
        this.adapter = adapter;
        this.firstMoment = firstMoment;
        this.secondMoment = secondMoment;
        this.device = device;
        this.steps = steps;
        this.optimizerSettings = optimizerSettings;
    }

    /// Allocates a state of zeros, for a [StateSource] to fill. If it throws
    /// [bios.worker.device.OutOfDeviceMemory], nothing stays allocated.
    ///
    /// @param header shape, counters and settings; a gradient sum is allocated if it counts operations
    static TrainingState allocate(StateSnapshot.Header header, ModelSpec model, Device device) {
        List<Runnable> undo = new ArrayList<>();
        try {
            Adapter adapter = Adapter.allocate(header.lora(), model, device);
            undo.add(adapter::close);
            FactorLayout layout = adapter.weights().layout();
            Factors first = new Factors(layout, device);
            undo.add(first::close);
            Factors second = new Factors(layout, device);
            undo.add(second::close);
            var state = new TrainingState(adapter, first, second, device, header.steps(),
                    header.optimizerSettings());
            if (header.accumulatedOperations() > 0) state.gradient = Optional.of(new Factors(layout, device));
            state.accumulatedOperations = header.accumulatedOperations();
            return state;
        } catch (Throwable refused) {
            undo.forEach(Runnable::run);
            throw refused;
        }
    }

    /// Allocates the state of a new run: a new adapter, no steps, [AdamParams#DEFAULT].
    public static TrainingState createInitialized(LoraSpec lora, ModelSpec model, Device device) {
        return new StateSource.NewState(lora).make(model, device);
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

    /// The weights themselves, not a copy: the next step changes them.
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

    /// The settings of the last [#step], which a step without settings uses.
    public AdamParams optimizerSettings() {
        return optimizerSettings;
    }

    /// Operations whose gradients are summed and not yet applied.
    public long accumulatedOperations() {
        return accumulatedOperations;
    }

    /// Most bytes that the state of a run of this shape takes on a device: weights, both moments, the
    /// gradient sum, and the gradient of an operation under way.
    public static long mostBytes(LoraSpec lora, ModelSpec model) {
        return 5 * 4 * FactorLayout.elements(lora, model);
    }

    /// Bytes on the device, the gradient sum included.
    public long bytes() {
        return gradientBytes() * (gradient.isPresent() ? 4 : 3);
    }

    /// Bytes on the device of one gradient of the adapter's shape.
    public long gradientBytes() {
        return 4 * adapter.weights().elements();
    }

    /// Allocates zeros of the adapter's shape, in which an operation sums its gradient before [#accumulate].
    public Factors allocateGradient() {
        return new Factors(adapter.lora(), adapter.model(), device);
    }

    /// Adds one operation's gradient to the sum, and takes ownership of it.
    public void accumulate(Factors operation) {
        if (gradient.isEmpty()) gradient = Optional.of(operation);
        else {
            gradient.get().add(operation);
            operation.close();
        }
        accumulatedOperations++;
    }

    /// Frees the gradient sum.
    public void dropGradient() {
        gradient.ifPresent(Factors::close);
        gradient = Optional.empty();
        accumulatedOperations = 0;
    }

    /// Enqueues one AdamW step on the gradient sum. The gradient is first multiplied by min(1, gradClipNorm /
    /// (norm + 1e-6)) if gradClipNorm is set, as torch.nn.utils.clip_grad_norm_ does. The device applies the
    /// step if all of the new weights and moments are finite, else it changes nothing. Until [#finish], or
    /// until the step is given up, no other operation may change the state or copy it; a pass that is
    /// launched behind the step reads the weights that the step leaves.
    public Step step(AdamParams params) {
        require(gradient.isPresent(), "the gradient sum is empty");
        List<Tensor> sum = gradient.get().slabs();
        try (Device.Scope scope = device.scope()) {
            Tensor squares = device.scratch(scope, DType.F64, 1, 1);
            Tensor notFinite = device.scratch(scope, DType.I32, 1, 1);
            device.sumOfSquares(squares, sum);
            device.adamW(notFinite, adapter.weights().slabs(), firstMoment.slabs(), secondMoment.slabs(),
                    sum, squares, new AdamStep(params.learningRate(), params.beta1(), params.beta2(),
                            params.eps(), params.weightDecay(), steps + 1, params.gradClipNorm()));
            return new Step(params, device.readback(List.of(squares, notFinite)));
        }
    }

    /// An optimizer step that the device computes.
    ///
    /// @param results norm² of the gradient; what is not finite
    public record Step(AdamParams params, Readback results) {
        /// Waits for the norm of the whole gradient, before clipping. Any thread.
        public double norm() {
            return Math.sqrt(results.doubles(0)[0]);
        }

        /// Waits for what of the step is not finite, as bits of [bios.worker.kernel.AdamW]; 0 if the step is
        /// applied. Any thread.
        public int notFinite() {
            return results.ints(1)[0];
        }
    }

    /// Ends a step: clears the gradient sum, takes the step's settings, and counts the step if the device has
    /// applied it. Called by the thread that calls the device's verbs, after the step's results have arrived.
    public void finish(Step step) {
        dropGradient();
        optimizerSettings = step.params();
        if (step.notFinite() == 0) steps++;
    }

    /// Copies the state on the device, to be written by another thread while training goes on. Does not wait.
    /// If it throws [bios.worker.device.OutOfDeviceMemory], nothing stays allocated.
    public StateSnapshot snapshot(StateSnapshot.Content content) {
        return snapshot(content, device.snapshot(tensors(content)));
    }

    /// The same without a copy: the snapshot reads the tensors themselves, so no operation may change the
    /// state until it is written.
    public StateSnapshot live(StateSnapshot.Content content) {
        return snapshot(content, new StateSnapshot.LiveTensors(device, tensors(content)));
    }

    private StateSnapshot snapshot(StateSnapshot.Content content, Snapshot copy) {
        var header = new StateSnapshot.Header(adapter.lora(), steps, accumulatedOperations,
                optimizerSettings);
        return new StateSnapshot(header, adapter.weights().layout(), suffixes(content), copy);
    }

    /// Bytes on the device of [#snapshot].
    public long snapshotBytes(StateSnapshot.Content content) {
        return gradientBytes() * suffixes(content).size();
    }

    private List<String> suffixes(StateSnapshot.Content content) {
        List<String> all = List.of(StateSnapshot.WEIGHTS, StateSnapshot.FIRST_MOMENT,
                StateSnapshot.SECOND_MOMENT, StateSnapshot.GRADIENT);
        return all.subList(0, switch (content) {
            case WEIGHTS -> 1;
            case CHECKPOINT -> 3;
            case RECOVERY_POINT -> gradient.isPresent() ? 4 : 3;
        });
    }

    private List<Tensor> tensors(StateSnapshot.Content content) {
        List<Tensor> tensors = new ArrayList<>(adapter.weights().tensors());
        if (content == StateSnapshot.Content.WEIGHTS) return tensors;
        tensors.addAll(firstMoment.tensors());
        tensors.addAll(secondMoment.tensors());
        if (content == StateSnapshot.Content.RECOVERY_POINT)
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
