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
import bios.worker.device.EmbeddingTable;
import bios.worker.device.Tensor;
import bios.worker.load.Fingerprint;
import bios.worker.load.FingerprintCache;
import bios.worker.load.ModelFolder;
import bios.worker.load.ModelSpec;
import bios.worker.load.Safetensors;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.function.Consumer;

/// A frozen transformer on a device, shared by any number of adapters: one pass can contain several adapters
/// of any ranks. A pass is prepared on the host, launched by the thread that calls the device's verbs, and
/// read back once, at its end. If keys and values are cached in the type of activations, the results of a
/// row depend on its own sequence and adapter only. They are bitwise independent of the other rows of the
/// pass, of the number of threads, and of the method: [#launch] or, token by token, [#forward].
public final class BaseModel implements AutoCloseable {
    private final ModelSpec spec;
    private final ModelInfo info;
    private final Device device;
    private final Safetensors files;
    private final EmbeddingTable embedding;
    private final List<Layer> layers;
    private final Head head;
    private final RopeTable rope;
    private long activationBytes = 640L << 20;
    private long longSequenceBytes = 2L << 30;

    BaseModel(ModelSpec spec, ModelInfo info, Device device, Safetensors files, EmbeddingTable embedding,
            List<Layer> layers, Head head) {
        this.spec = spec;
        this.info = info;
        this.device = device;
        this.files = files;
        this.embedding = embedding;
        this.layers = List.copyOf(layers);
        this.head = head;
        this.rope = new RopeTable(spec.rope(), spec.contextLength(), device);
    }

    /// Loads a `save_pretrained` folder. Throws [bios.worker.load.ModelRefused] if Bios cannot serve it.
    ///
    /// @param name under which the worker announces the model
    public static BaseModel load(Path folder, ModelName name, Device device) {
        return load(folder, name, device, DType.F32);
    }

    /// The same with another type of activations, [DType#F32] or [DType#BF16]. The residual stream, logits
    /// and log-probabilities are fp32 with either.
    public static BaseModel load(Path folder, ModelName name, Device device, DType activations) {
        return load(ModelFolder.open(folder), name, device, activations, FingerprintCache.NONE, _ -> {});
    }

    /// The same.
    ///
    /// @param cache knows the hashes of files that were read before
    /// @param warn is told what the files say beside what is used, or against it
    public static BaseModel load(ModelFolder folder, ModelName name, Device device, DType activations,
            FingerprintCache cache, Consumer<String> warn) {
        Safetensors files = folder.tensors();
        try {
            var loader = new ModelLoader(folder.spec(), files);
            loader.check();
            folder.warnings().forEach(warn);
            loader.warnings().forEach(warn);
            return load(loader, name, device, activations,
                    () -> Fingerprint.of(folder.spec(), files, cache));
        } catch (Throwable e) {
            files.close();
            throw e;
        }
    }

    /// Loads the weights while their files are hashed: each takes a part of the time of the other. What is
    /// wrong with a file is said by the hash, which reads it, and not by the weights, which are mapped.
    private static BaseModel load(ModelLoader loader, ModelName name, Device device, DType activations,
            Callable<Fingerprint> compute) {
        FutureTask<Fingerprint> hash = new FutureTask<>(compute);
        Thread.ofPlatform().daemon().name("fingerprint").start(hash);
        try {
            return loader.load(name, device, activations, () -> value(hash));
        } catch (Throwable failed) {
            value(hash);
            throw failed;
        }
    }

    private static Fingerprint value(FutureTask<Fingerprint> hash) {
        try {
            return hash.get(); // edge: a model is loaded
        } catch (ExecutionException failed) {
            if (failed.getCause() instanceof RuntimeException known) throw known;
            throw new IllegalStateException(failed.getCause());
        } catch (InterruptedException interrupted) {
            throw new IllegalStateException("interrupted while a model was loaded", interrupted);
        }
    }

    /// Checks a folder as [#load] does, but for its contents, and prepares nothing.
    public static void check(Path folder) {
        ModelFolder model = ModelFolder.open(folder);
        try (Safetensors files = model.tensors()) {
            new ModelLoader(model.spec(), files).check();
        }
    }

    /// The files that the weights were read from.
    public Safetensors files() {
        return files;
    }

    /// The description that a worker announces.
    public ModelInfo info() {
        return info;
    }

    /// The model's configuration.
    public ModelSpec spec() {
        return spec;
    }

    /// The device that holds the weights.
    public Device device() {
        return device;
    }

    /// Checks a training pass and lays out its data. Runs on the host only; any thread may call it.
    public TrainingPass prepare(List<RunBatch> batches) {
        return new TrainingPass(this, batches);
    }

    /// Starts a training pass, see [TrainingPass#launch]. Layer inputs are saved. The other activations
    /// that backward needs are saved as far as [#setActivationBudget] allows and recomputed otherwise.
    Readback launch(TrainingPass pass, List<Optional<Factors>> gradients) {
        List<Slot> slots = pass.slots(gradients);
        rope.growTo(pass.longest());
        try (Device.Scope scope = device.scope(); SavedActivations saved = activationPlan(pass)) {
            TrainingPass.Inputs in = TrainingPass.Inputs.of(device.upload(scope, pass.arrays()));
            PassContext forward = new PassContext(device, in.positions(), device.slots(scope, slots),
                    device.sequences(scope, pass.sequences(pass.rows())), Optional.empty(), rope.cos(),
                    rope.sin());
            PassContext backward = backwardContext(forward, pass, scope);
            Tensor logprobs = device.scratch(scope, 1, pass.targets());
            List<Tensor> inputs = embedAndAllocateInputs(pass, in.tokens(), scope);
            for (Layer layer : layers)
                saved.forward(layer, inputs.get(layer.index() + 1), inputs.get(layer.index()), forward);
            Optional<Tensor> d = pass.backwardRows() == 0 ? Optional.empty()
                    : Optional.of(device.scratch(scope, pass.backwardRows(), spec.hidden()));
            d.ifPresent(t -> device.fill(t, 0));
            headForwardBackward(d, inputs.getLast(), logprobs, in, forward.slots(), pass);
            if (d.isPresent()) for (Layer layer : layers.reversed())
                saved.backward(layer, d.get(), inputs.get(layer.index()).rows(0, d.get().rows()), backward);
            List<Tensor> results = new ArrayList<>(List.of(logprobs));
            results.addAll(squares(pass.inOrder(gradients), scope));
            return device.readback(results);
        }
    }

    /// Σ g² of the gradient of each batch with a loss, in their order. It is finite exactly if the gradient
    /// is: the squares of fp32 numbers do not overflow in double precision.
    private List<Tensor> squares(List<Factors> gradients, Device.Scope scope) {
        List<Tensor> sums = new ArrayList<>();
        for (Factors gradient : gradients) {
            Tensor sum = device.scratch(scope, DType.F64, 1, 1);
            device.sumOfSquares(sum, gradient.slabs());
            sums.add(sum);
        }
        return sums;
    }

    /// The context of the rows that have a backward.
    private PassContext backwardContext(PassContext forward, TrainingPass pass, Device.Scope scope) {
        int rows = pass.backwardRows();
        if (rows == 0 || rows == pass.rows()) return forward;
        return new PassContext(device, forward.positions().rows(0, rows), forward.slots().rows(0, rows),
                device.sequences(scope, pass.sequences(rows)), Optional.empty(), rope.cos(), rope.sin());
    }

    /// Prepares and launches a training pass and waits for its results, for tests and benchmarks.
    ///
    /// @param gradients one for each batch, present where it has a loss
    /// @return the log-probabilities of each batch's targets
    public List<float[]> runPass(List<RunBatch> batches, List<Optional<Factors>> gradients) {
        TrainingPass pass = prepare(batches);
        Readback results = pass.launch(gradients);
        List<float[]> logprobs = new ArrayList<>();
        for (int i = 0; i < batches.size(); i++) logprobs.add(pass.logprobs(results, i));
        return logprobs;
    }

    /// Limits the bytes of activations that a pass saves for its backward. The results are bitwise
    /// independent of the limit.
    ///
    /// @param longSequenceBytes the limit for a pass of one sequence that is too long for `bytes`
    public void setActivationBudget(long bytes, long longSequenceBytes) {
        this.longSequenceBytes = Math.max(bytes, longSequenceBytes);
        activationBytes = bytes;
    }

    /// Most tokens of a training pass for which all activations that backward needs are saved.
    public int maxTokensFullySaved() {
        long bytes = layers.getFirst().fullBytes() * layers.size() + 4L * spec.hidden() * (layers.size() + 1);
        return Math.clamp(activationBytes / bytes, 1, 1 << 20);
    }

    /// The layers whose activations are saved: none if backward uses only a part of the rows.
    private SavedActivations activationPlan(TrainingPass pass) {
        if (pass.backwardRows() < pass.rows()) return SavedActivations.none(device, layers.size());
        long budget = pass.rows() > maxTokensFullySaved() ? longSequenceBytes : activationBytes;
        Layer any = layers.getFirst();
        return SavedActivations.within(budget, device, layers.size(), any.fullBytes() * pass.rows(),
                any.partialBytes() * pass.rows());
    }

    /// Allocates the residual rows before each layer and after the last, and embeds the tokens into the
    /// first. Without a backward, two matrices alternate.
    private List<Tensor> embedAndAllocateInputs(TrainingPass pass, Tensor tokens, Device.Scope scope) {
        List<Tensor> inputs = new ArrayList<>();
        for (int i = 0; i <= layers.size(); i++)
            inputs.add(pass.backwardRows() == 0 && i >= 2
                    ? inputs.get(i - 2) : device.scratch(scope, pass.rows(), spec.hidden()));
        device.embed(inputs.getFirst(), tokens, embedding);
        return inputs;
    }

    /// Computes log-probabilities and, for batches with a loss, writes the gradient for x to their rows of d,
    /// which are zero. Batches with a loss come first. Rows with equally many targets go through it together.
    private void headForwardBackward(Optional<Tensor> d, Tensor x, Tensor logprobs, TrainingPass.Inputs in,
            Slots slots, TrainingPass pass) {
        for (int i = 0; i < pass.batches().size(); i++) {
            RunBatch batch = pass.batches().get(i);
            for (RunBatch.Segment s : batch.segments()) {
                int row = pass.firstRow(i) + s.row();
                int n = s.rows();
                int target = pass.firstTarget(i) + s.target();
                head.forwardBackward(new Head.Rows(batch, s.target(), slots.rows(row, n), x.rows(row, n),
                        in.targets().matrix(target, n, s.each()), logprobs.matrix(target, n, s.each()),
                        batch.loss().map(loss -> in.terms(loss, target, n, s.each())),
                        batch.loss().flatMap(_ -> d).map(t -> t.rows(row, n))), device);
            }
        }
    }

    /// Checks a pass over cached sequences and lays out its data. Every cache must have reserved pages
    /// ([KeyValueCache#reserve]). Inputs of the same adapter should be adjacent, because they share products.
    /// May allocate on the device (the RoPE table), so call it before the upload of the pass.
    public CachedPass prepareCached(List<SequenceInput> inputs) {
        CachedPass pass = new CachedPass(inputs, spec);
        rope.growTo(pass.longest());
        return pass;
    }

    /// Forward for the next tokens of cached sequences, whose keys and values are written to their pages;
    /// the caller counts them with [KeyValueCache#advance].
    ///
    /// @param tokens, positions uploads of the pass's arrays
    /// @return valid until `scope` is closed
    public CachedPass.Output forward(Device.Scope scope, CachedPass pass, Tensor tokens, Tensor positions) {
        Slots slots = device.slots(scope, pass.slots());
        Tensor hidden = device.repeat(scope, List.of(this, rope.cos(), rope.sin()),
                List.of(tokens, positions), slots, device.sequences(scope, pass.sequences()), pass.pages(),
                (own, inputs, adapters, sequences) -> layers(own, inputs.get(0), new PassContext(device,
                        inputs.get(1), adapters, sequences, Optional.of(pass.pages()), rope.cos(),
                        rope.sin())));
        return new CachedPass.Output(hidden, slots);
    }

    /// The residual rows of tokens after the last layer.
    private Tensor layers(Device.Scope scope, Tensor tokens, PassContext context) {
        Tensor x = device.scratch(scope, tokens.rows(), spec.hidden());
        Tensor next = device.scratch(scope, tokens.rows(), spec.hidden());
        device.embed(x, tokens, embedding);
        for (Layer layer : layers) {
            try (Device.Scope temporary = device.scope()) {
                layer.forward(next, x, context, temporary, true);
            }
            Tensor swap = x;
            x = next;
            next = swap;
        }
        return x;
    }

    /// [#forward] with uploads made from the host's data and with caches that grow, for tests.
    ///
    /// @return hidden rows, valid until `scope` is closed
    public Tensor forwardCached(Device.Scope scope, List<SequenceInput> inputs) {
        for (SequenceInput input : inputs)
            require(input.cache().reserve(input.tokens().length), "no page is free for %d tokens",
                    input.tokens().length);
        CachedPass pass = prepareCached(inputs);
        List<Tensor> uploaded = device.upload(scope, List.of(pass.tokens(), pass.positions()));
        Tensor hidden = forward(scope, pass, uploaded.get(0), uploaded.get(1)).hidden();
        for (SequenceInput input : inputs) input.cache().advance(input.tokens().length);
        return hidden;
    }

    /// Logits `[rows, vocabulary]` of rows that [#forward] returned. [Device#logSoftmaxAt] computes a
    /// log-probability from them. Request few rows at a time: a row takes 4 · vocabulary bytes.
    ///
    /// @param hidden any of the returned rows, gathered or not
    /// @param slots the adapters of these rows
    public Tensor logits(Device.Scope scope, Tensor hidden, Slots slots) {
        return head.logits(hidden, slots, device, scope);
    }

    /// The adapters of single rows as device data. Adjacent rows of the same adapter share products.
    ///
    /// @param adapters one for each row
    public Slots slots(Device.Scope scope, List<Optional<Adapter>> adapters) {
        return device.slots(scope, CachedPass.slots(adapters));
    }

    static void requireInVocabulary(int[] tokens, ModelSpec spec) {
        for (int token : tokens)
            require(token >= 0 && token < spec.vocabularySize(), "token %d is outside the vocabulary of %d",
                    token, spec.vocabularySize());
    }

    /// Frees the RoPE table and closes the files. The weights are freed with the device.
    @Override public void close() {
        rope.close();
        files.close();
    }
}
