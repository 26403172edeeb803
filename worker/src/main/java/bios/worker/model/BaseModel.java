package bios.worker.model;

import static bios.protocol.Require.require;

import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import bios.worker.adapter.Adapter;
import bios.worker.device.Device;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.Tensor;
import bios.worker.load.ModelFolder;
import bios.worker.load.ModelSpec;
import bios.worker.load.Safetensors;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;

/// A frozen transformer on a device, shared by any number of adapters: several of them, of any ranks, go
/// through one pass. Called by the thread that owns the device.
/// A row's bits depend on its own sequence and adapter only: not on the other rows of the pass, not
/// on the number of threads, and not on whether it went through [#evaluate] or, token by token,
/// through [#forwardCached].
public final class BaseModel implements AutoCloseable {
    private final ModelSpec spec;
    private final ModelInfo info;
    private final Device on;
    private final Safetensors files;
    private final FrozenMatrix embedding;
    private final List<Layer> layers;
    private final Head head;
    private final RopeTable rope;
    private long activationBytes = 640L << 20;
    private long longSequenceBytes = 2L << 30;

    BaseModel(ModelSpec spec, ModelInfo info, Device on, Safetensors files, FrozenMatrix embedding,
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
        ModelFolder model = ModelFolder.open(folder);
        Safetensors files = model.tensors();
        try {
            return new ModelLoader(model.spec(), files, device)
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

    /// Forward, losses, and backward for the lessons that have a gradient: adds dLoss/dA and dLoss/dB of
    /// each lesson to its own gradient. Layer inputs are kept; what else backward needs is kept as far as
    /// [#keepActivations] allows and computed again otherwise. When this throws, gradients may have been
    /// added to in part.
    public void evaluate(List<Lesson> given) {
        List<Lesson> training = given.stream().filter(l -> l.gradient().isPresent()).toList();
        List<Lesson> lessons = Stream.concat(training.stream(),
                given.stream().filter(l -> l.gradient().isEmpty())).toList();
        for (Lesson lesson : lessons) for (int[] sequence : lesson.sequences()) rope.cover(sequence.length);
        try (Device.Scope scope = on.scope(); Tapes tapes = tapes(lessons, training)) {
            Pass pass = pass(lessons);
            List<Tensor> inputs = inputs(lessons, training, scope);
            for (Layer layer : layers)
                tapes.forward(layer, inputs.get(layer.index() + 1), inputs.get(layer.index()), pass);
            Tensor d = on.scratch(scope, rows(training), spec.hidden());
            on.fill(d, 0);
            evaluateHead(d, inputs.getLast(), lessons);
            if (training.isEmpty()) return;
            Pass back = pass(training);
            for (Layer layer : layers.reversed())
                tapes.backward(layer, d, inputs.get(layer.index()).rows(0, d.rows()), back);
        }
    }

    /// How many bytes of activations a pass may keep for its backward; the bits of its
    /// results do not depend on it.
    ///
    /// @param longSequence the same for a pass of one sequence that is too long for `bytes`
    public void keepActivations(long bytes, long longSequence) {
        longSequenceBytes = Math.max(bytes, longSequence);
        activationBytes = bytes;
    }

    /// How many tokens of training can go through a pass with everything kept that backward needs.
    public int passTokens() {
        long bytes = layers.getFirst().tapeBytes() * layers.size() + 4L * spec.hidden() * (layers.size() + 1);
        return Math.clamp(activationBytes / bytes, 1, 1 << 20);
    }

    /// Tapes are worth keeping if every row of them is looked at in backward.
    private Tapes tapes(List<Lesson> lessons, List<Lesson> training) {
        if (training.size() < lessons.size()) return Tapes.none(on, layers.size());
        long rows = rows(lessons);
        long budget = rows > passTokens() ? longSequenceBytes : activationBytes;
        Layer any = layers.getFirst();
        return Tapes.within(budget, on, layers.size(), any.tapeBytes() * rows,
                any.leanTapeBytes() * rows);
    }

    /// Residual rows before each layer and behind the last; two matrices taking turns
    /// when there is no backward.
    private List<Tensor> inputs(List<Lesson> lessons, List<Lesson> training, Device.Scope scope) {
        List<Tensor> inputs = new ArrayList<>();
        for (int i = 0; i <= layers.size(); i++)
            inputs.add(training.isEmpty() && i >= 2
                    ? inputs.get(i - 2) : on.scratch(scope, rows(lessons), spec.hidden()));
        on.embed(inputs.getFirst(), tokens(lessons), embedding);
        return inputs;
    }

    /// Lessons that train come first: their rows of d (zeros) become the gradient for x.
    private void evaluateHead(Tensor d, Tensor x, List<Lesson> lessons) {
        int row = 0;
        for (Lesson lesson : lessons) {
            int count = lesson.rows();
            Optional<Tensor> own = lesson.gradient().isPresent()
                    ? Optional.of(d.rows(row, count)) : Optional.empty();
            head.evaluate(own, x.rows(row, count), lesson, on);
            row += count;
        }
    }

    private static int rows(List<Lesson> lessons) {
        return lessons.stream().mapToInt(Lesson::rows).sum();
    }

    /// Forward for the next tokens of several sequences, whose keys and values join their caches.
    /// Every cache must have room ([KeyValueCache#reserve]); steps of one adapter should stand
    /// together, they share its products.
    ///
    /// @return the residual stream behind the last layer `[all steps' tokens, hidden]`, for [#logits];
    ///     lives as long as `scope`
    public Tensor forwardCached(Device.Scope scope, List<Step> steps) {
        List<Integer> counts = steps.stream().map(s -> s.tokens().length).toList();
        int rows = counts.stream().mapToInt(Integer::intValue).sum();
        int[] tokens = new int[rows];
        int[] positions = new int[rows];
        int row = 0;
        List<Optional<Adapter>> adapters = new ArrayList<>();
        for (Step step : steps) {
            int length = step.cache().length() + step.tokens().length;
            require(length <= spec.contextLength(), "%d positions exceed the context of %d", length,
                    spec.contextLength());
            require(step.cache().reserve(step.tokens().length), "no page is free for %d tokens",
                    step.tokens().length);
            rope.cover(length);
            for (int i = 0; i < step.tokens().length; i++, row++) {
                tokens[row] = step.tokens()[i];
                positions[row] = step.cache().length() + i;
                adapters.add(step.adapter());
            }
        }
        requireKnown(tokens);
        KeyValues caches = new PagedKeyValues(steps.stream().map(Step::cache).toList(), counts, on);
        Pass pass = new Pass(on, positions, slots(adapters), caches, rope.cos(), rope.sin());
        Tensor x = on.scratch(scope, rows, spec.hidden());
        Tensor next = on.scratch(scope, rows, spec.hidden());
        on.embed(x, tokens, embedding);
        for (Layer layer : layers) {
            try (Device.Scope inner = on.scope()) {
                layer.forward(next, x, pass, inner, true);
            }
            Tensor swap = x;
            x = next;
            next = swap;
        }
        for (Step step : steps) step.cache().advance(step.tokens().length);
        return x;
    }

    /// Logits `[rows, vocabulary]` of rows that [#forwardCached] gave; a log-probability is
    /// [Device#logSoftmaxAt] of them. Ask for few rows at a time: a row takes 4 · vocabulary bytes.
    ///
    /// @param hidden any of its rows, see [#rows]
    /// @param adapters one for each row
    public Tensor logits(Device.Scope scope, Tensor hidden, List<Optional<Adapter>> adapters) {
        require(adapters.size() == hidden.rows(), "%d adapters for %d rows", adapters.size(), hidden.rows());
        return head.logits(hidden, slots(adapters), on, scope);
    }

    /// Copies the given rows of a matrix together, in the given order.
    public Tensor rows(Device.Scope scope, Tensor from, int... rows) {
        Tensor together = on.scratch(scope, rows.length, from.columns());
        for (int i = 0; i < rows.length; i++) on.copy(together.rows(i, 1), from.rows(rows[i], 1));
        return together;
    }

    /// Frees what it can; the device frees the weights.
    @Override public void close() {
        rope.close();
        files.close();
    }

    private Pass pass(List<Lesson> lessons) {
        List<Integer> lengths = new ArrayList<>();
        List<Slot> slots = new ArrayList<>();
        int row = 0;
        for (Lesson lesson : lessons) {
            lesson.sequences().forEach(s -> lengths.add(s.length));
            if (lesson.adapter().isPresent())
                slots.add(new Slot(row, lesson.rows(), lesson.adapter().get(), lesson.gradient()));
            row += lesson.rows();
            require(lesson.targets().length == lesson.rows(), "%d targets for %d rows",
                    lesson.targets().length, lesson.rows());
            requireKnown(lesson.targets());
        }
        int[] positions = new int[row];
        int at = 0;
        for (int length : lengths) {
            require(length >= 1 && length <= spec.contextLength(), "a sequence of %d tokens", length);
            for (int i = 0; i < length; i++) positions[at++] = i;
        }
        return new Pass(on, positions, slots, new PackedKeyValues(lengths), rope.cos(), rope.sin());
    }

    private int[] tokens(List<Lesson> lessons) {
        int[] tokens = lessons.stream().flatMap(l -> l.sequences().stream())
                .flatMapToInt(Arrays::stream).toArray();
        requireKnown(tokens);
        return tokens;
    }

    private void requireKnown(int[] tokens) {
        for (int token : tokens)
            require(token >= 0 && token < spec.vocabularySize(), "token %d is outside the vocabulary of %d",
                    token, spec.vocabularySize());
    }

    /// Neighbouring rows of one adapter make one slot.
    private static List<Slot> slots(List<Optional<Adapter>> adapters) {
        List<Slot> slots = new ArrayList<>();
        for (int row = 0; row < adapters.size(); ) {
            int end = row + 1;
            while (end < adapters.size() && adapters.get(end).equals(adapters.get(row))) end++;
            if (adapters.get(row).isPresent())
                slots.add(new Slot(row, end - row, adapters.get(row).get(), Optional.empty()));
            row = end;
        }
        return slots;
    }
}
