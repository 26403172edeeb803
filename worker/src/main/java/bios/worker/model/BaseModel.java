package bios.worker.model;

import static bios.protocol.Require.require;

import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import bios.worker.adapter.Adapter;
import bios.worker.adapter.Factors;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.Readback;
import bios.worker.device.Slot;
import bios.worker.device.Slots;
import bios.worker.device.Table;
import bios.worker.device.Tensor;
import bios.worker.load.ModelFolder;
import bios.worker.load.ModelSpec;
import bios.worker.load.Safetensors;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// A frozen transformer on a device, shared by any number of adapters: several of them, of any ranks, go
/// through one pass. A pass is prepared on the host, launched by the thread that calls the device's verbs,
/// and read back once, at its end. With keys and values cached in the type of activations, a row's bits
/// depend on its own sequence and adapter only: not on the other rows of the pass, not on the number of
/// threads, and not on whether it went through [#launch] or, token by token, through [#forward].
public final class BaseModel implements AutoCloseable {
    private final ModelSpec spec;
    private final ModelInfo info;
    private final Device on;
    private final Safetensors files;
    private final Table embedding;
    private final List<Layer> layers;
    private final Head head;
    private final RopeTable rope;
    private long activationBytes = 640L << 20;
    private long longSequenceBytes = 2L << 30;

    BaseModel(ModelSpec spec, ModelInfo info, Device on, Safetensors files, Table embedding,
            List<Layer> layers, Head head) {
        this.spec = spec;
        this.info = info;
        this.on = on;
        this.files = files;
        this.embedding = embedding;
        this.layers = List.copyOf(layers);
        this.head = head;
        this.rope = new RopeTable(spec.rope(), spec.contextLength(), on);
    }

    /// Loads a `save_pretrained` folder; [bios.worker.load.ModelRefused] when it cannot be served.
    ///
    /// @param name what it is served as
    public static BaseModel load(Path folder, ModelName name, Device device) {
        return load(folder, name, device, DType.F32);
    }

    /// The same with another type of activations, [DType#F32] or [DType#BF16]. The residual stream, logits
    /// and log-probabilities are fp32 with either.
    public static BaseModel load(Path folder, ModelName name, Device device, DType activations) {
        ModelFolder model = ModelFolder.open(folder);
        Safetensors files = model.tensors();
        try {
            return new ModelLoader(model.spec(), files, device, activations)
                    .load(name, folder.toAbsolutePath().normalize().toString());
        } catch (Throwable e) {
            files.close();
            throw e;
        }
    }

    /// What a worker announces of it.
    public ModelInfo info() {
        return info;
    }

    /// Its configuration.
    public ModelSpec spec() {
        return spec;
    }

    /// Where it lives.
    public Device device() {
        return on;
    }

    /// Checks a training pass and lays out its data. Pure work of the host, on any thread.
    public TrainingPass prepare(List<RunBatch> batches) {
        return new TrainingPass(this, batches);
    }

    /// Starts a training pass, see [TrainingPass#launch]. Layer inputs are saved; what else backward needs
    /// is saved as far as [#keepActivations] allows and recomputed otherwise.
    Readback launch(TrainingPass pass, List<Optional<Factors>> gradients) {
        List<Slot> adapters = pass.slots(gradients);
        rope.cover(pass.longest());
        try (Device.Scope scope = on.scope(); SavedActivations saved = saved(pass)) {
            TrainingPass.Inputs in = TrainingPass.Inputs.of(on.upload(scope, pass.arrays()));
            PassContext forward = new PassContext(on, in.positions(), on.slots(scope, adapters),
                    on.sequences(scope, pass.sequences(pass.rows())), Optional.empty(), rope.cos(),
                    rope.sin());
            PassContext backward = backward(forward, pass, scope);
            Tensor logprobs = on.scratch(scope, pass.rows(), 1);
            List<Tensor> inputs = inputs(pass, in.tokens(), scope);
            for (Layer layer : layers)
                saved.forward(layer, inputs.get(layer.index() + 1), inputs.get(layer.index()), forward);
            Optional<Tensor> d = pass.backwardRows() == 0 ? Optional.empty()
                    : Optional.of(on.scratch(scope, pass.backwardRows(), spec.hidden()));
            d.ifPresent(t -> on.fill(t, 0));
            evaluateHead(d, inputs.getLast(), logprobs, in, forward.slots(), pass);
            if (d.isPresent()) for (Layer layer : layers.reversed())
                saved.backward(layer, d.get(), inputs.get(layer.index()).rows(0, d.get().rows()), backward);
            return on.readback(List.of(logprobs));
        }
    }

    /// The context of the rows that have a backward.
    private PassContext backward(PassContext forward, TrainingPass pass, Device.Scope scope) {
        int rows = pass.backwardRows();
        if (rows == 0 || rows == pass.rows()) return forward;
        return new PassContext(on, forward.positions().rows(0, rows), forward.slots().rows(0, rows),
                on.sequences(scope, pass.sequences(rows)), Optional.empty(), rope.cos(), rope.sin());
    }

    /// A pass from beginning to end, for tests and benchmarks.
    ///
    /// @param gradients one for each batch, present where it has a loss
    /// @return the log-probabilities of each batch's targets
    public List<float[]> evaluate(List<RunBatch> batches, List<Optional<Factors>> gradients) {
        TrainingPass pass = prepare(batches);
        Readback results = pass.launch(gradients);
        List<float[]> logprobs = new ArrayList<>();
        for (int i = 0; i < batches.size(); i++) logprobs.add(pass.logprobs(results, i));
        return logprobs;
    }

    /// How many bytes of activations a pass may save for its backward; the bits of its
    /// results do not depend on it.
    ///
    /// @param longSequence the same for a pass of one sequence that is too long for `bytes`
    public void keepActivations(long bytes, long longSequence) {
        longSequenceBytes = Math.max(bytes, longSequence);
        activationBytes = bytes;
    }

    /// How many tokens of training can go through a pass with everything saved that backward needs.
    public int passTokens() {
        long bytes = layers.getFirst().fullBytes() * layers.size() + 4L * spec.hidden() * (layers.size() + 1);
        return Math.clamp(activationBytes / bytes, 1, 1 << 20);
    }

    /// Activations are worth saving if backward uses every row of them.
    private SavedActivations saved(TrainingPass pass) {
        if (pass.backwardRows() < pass.rows()) return SavedActivations.none(on, layers.size());
        long budget = pass.rows() > passTokens() ? longSequenceBytes : activationBytes;
        Layer any = layers.getFirst();
        return SavedActivations.within(budget, on, layers.size(), any.fullBytes() * pass.rows(),
                any.partialBytes() * pass.rows());
    }

    /// Residual rows before each layer and after the last; two matrices in turn when there is no backward.
    private List<Tensor> inputs(TrainingPass pass, Tensor tokens, Device.Scope scope) {
        List<Tensor> inputs = new ArrayList<>();
        for (int i = 0; i <= layers.size(); i++)
            inputs.add(pass.backwardRows() == 0 && i >= 2
                    ? inputs.get(i - 2) : on.scratch(scope, pass.rows(), spec.hidden()));
        on.embed(inputs.getFirst(), tokens, embedding);
        return inputs;
    }

    /// Batches with a loss come first: their rows of d (zeros) become the gradient for x.
    private void evaluateHead(Optional<Tensor> d, Tensor x, Tensor logprobs, TrainingPass.Inputs in,
            Slots slots, TrainingPass pass) {
        for (int i = 0; i < pass.batches().size(); i++) {
            RunBatch batch = pass.batches().get(i);
            int row = pass.firstRow(i);
            int n = batch.rows();
            head.evaluate(new Head.Rows(batch, slots.rows(row, n), x.rows(row, n), in.targets().rows(row, n),
                    logprobs.rows(row, n), batch.loss().map(loss -> in.terms(loss, row, n)),
                    batch.loss().flatMap(_ -> d).map(t -> t.rows(row, n))), on);
        }
    }

    /// Checks a pass over cached sequences and lays out its data. Every cache must have room
    /// ([KeyValueCache#reserve]); inputs of one adapter should stand together, they share its products. May
    /// allocate on the device (the table of angles), so it comes before the pass's upload.
    public CachedPass prepareCached(List<SequenceInput> inputs) {
        CachedPass pass = new CachedPass(inputs, spec);
        rope.cover(pass.longest());
        return pass;
    }

    /// Forward for the next tokens of cached sequences, whose keys and values are written to their pages;
    /// the caller counts them with [KeyValueCache#advance].
    ///
    /// @param tokens, positions uploads of the pass's arrays
    /// @return lives as long as `scope`
    public CachedPass.Output forward(Device.Scope scope, CachedPass pass, Tensor tokens, Tensor positions) {
        PassContext context = new PassContext(on, positions, on.slots(scope, pass.slots()),
                on.sequences(scope, pass.sequences()), Optional.of(pass.pages()), rope.cos(), rope.sin());
        Tensor x = on.scratch(scope, pass.rows(), spec.hidden());
        Tensor next = on.scratch(scope, pass.rows(), spec.hidden());
        on.embed(x, tokens, embedding);
        for (Layer layer : layers) {
            try (Device.Scope temporary = on.scope()) {
                layer.forward(next, x, context, temporary, true);
            }
            Tensor swap = x;
            x = next;
            next = swap;
        }
        return new CachedPass.Output(x, context.slots());
    }

    /// [#forward] from the host's data on, with caches that grow, for tests.
    ///
    /// @return hidden rows, as long as `scope` lives
    public Tensor forwardCached(Device.Scope scope, List<SequenceInput> inputs) {
        for (SequenceInput input : inputs)
            require(input.cache().reserve(input.tokens().length), "no page is free for %d tokens",
                    input.tokens().length);
        CachedPass pass = prepareCached(inputs);
        List<Tensor> uploaded = on.upload(scope, List.of(pass.tokens(), pass.positions()));
        Tensor hidden = forward(scope, pass, uploaded.get(0), uploaded.get(1)).hidden();
        for (SequenceInput input : inputs) input.cache().advance(input.tokens().length);
        return hidden;
    }

    /// Logits `[rows, vocabulary]` of rows that [#forward] gave; a log-probability is [Device#logSoftmaxAt]
    /// of them. Ask for few rows at a time: a row takes 4 · vocabulary bytes.
    ///
    /// @param hidden any of its rows, gathered or not
    /// @param slots the adapters of these rows
    public Tensor logits(Device.Scope scope, Tensor hidden, Slots slots) {
        return head.logits(hidden, slots, on, scope);
    }

    /// The adapters of single rows as device data; neighbouring rows of one adapter share its products.
    ///
    /// @param adapters one for each row
    public Slots slots(Device.Scope scope, List<Optional<Adapter>> adapters) {
        return on.slots(scope, CachedPass.slots(adapters));
    }

    static void requireKnown(int[] tokens, ModelSpec spec) {
        for (int token : tokens)
            require(token >= 0 && token < spec.vocabularySize(), "token %d is outside the vocabulary of %d",
                    token, spec.vocabularySize());
    }

    /// Frees what it can; the device frees the weights.
    @Override public void close() {
        rope.close();
        files.close();
    }
}
