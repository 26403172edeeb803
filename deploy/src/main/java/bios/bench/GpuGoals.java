package bios.bench;

import bios.protocol.model.ModelName;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.DeviceSettings;
import bios.worker.device.Devices;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.FrozenMatrix.WeightType;
import bios.worker.device.HostArray;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import bios.worker.kernel.HalfFloats;
import bios.worker.model.BaseModel;
import bios.worker.sample.Sampler;
import bios.worker.sample.SamplerSettings;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.function.UnaryOperator;

/// Measures how fast a device trains and samples, beside its own limits measured in the same process.
final class GpuGoals implements AutoCloseable {
    private static final int RANK = 16;
    private static final int TENANTS = 16;
    private static final int REPETITIONS = 5;
    private static final int STEPS = 3;
    private static final int PROMPT = 32;
    private static final int ADAPTERS = 8;
    /// The share of the device's memory for the activations that backward needs.
    static final double ACTIVATIONS = 0.4;

    /// Goals on an H100 of 80 GB, for [GpuCheck.Sizes#FULL].
    private static final double TRAINED_TOKENS = 15_000;
    private static final double MATMUL_SHARE = 0.6;
    private static final double PEER = 1.5;
    private static final double BESIDE = 0.95;
    private static final double BANDWIDTH = 0.7;
    private static final double DIFFERENCE = 1e-2;
    private static final double FIRST_STEP = 10;
    private static final double DECODING_PEER = 3;
    private static final double WITH_ADAPTERS = 0.9;
    private static final String DECODING_RATIO = "decoding, all streams, ratio to transformers' generate";
    private static final String NO_PEER = "needs --peer";
    private static final String NO_CEILINGS = "needs the part ceilings";

    private final GpuCheck.Sizes sizes;
    private final DeviceSettings settings;
    private final Path folder;
    private final Optional<Peer> peer;
    private double matmul = Double.NaN;
    private double copy = Double.NaN;
    private double loading = Double.NaN;
    /// Folder of the shape that was written last.
    private Optional<Path> written = Optional.empty();

    /// @param settings of the device that is measured
    /// @param folder where models of random weights are written
    GpuGoals(GpuCheck.Sizes sizes, DeviceSettings settings, Path folder, Optional<Peer> peer) {
        this.sizes = sizes;
        this.settings = settings;
        this.folder = folder;
        this.peer = peer;
    }

    /// Adds a measured value beside what it should reach.
    ///
    /// @param least whether the goal is the least value, else the largest
    private static void goal(ObjectNode line, String what, double value, double goal, boolean least) {
        if (Double.isNaN(value) || Double.isNaN(goal)) {
            notMeasured(line, what, goal, NO_CEILINGS);
            return;
        }
        line.withArray("goals").addObject().put("what", what).put("value", value).put("goal", goal)
                .put("reached", least ? value >= goal : value <= goal);
    }

    /// Adds a goal whose value is not known, and why.
    private static void notMeasured(ObjectNode line, String what, double goal, String why) {
        ObjectNode entry = line.withArray("goals").addObject().put("what", what).putNull("value");
        if (!Double.isNaN(goal)) entry.put("goal", goal);
        entry.put("not_measured", why);
    }

    /// The rates of a large copy, of a large bf16 product, and of weights from the memory of the host.
    void ceilings(ObjectNode line) {
        try (Device device = Devices.open(settings)) {
            copy = 2.0 * sizes.copyBytes() / seconds(device, timed -> copies(device, timed));
            double n = sizes.matmul();
            matmul = 2 * n * n * n / seconds(device, timed -> products(device, timed));
            loading = 2 * n * n / loadSeconds(device);
        }
        line.put("copy_gb_s", Report.round(copy / 1e9)).put("matmul_tflop_s", Report.round(matmul / 1e12))
                .put("weights_gb_s", Report.round(loading / 1e9));
    }

    /// Seconds in which a weight goes from the memory of the host to the device. The first is not counted:
    /// the device may look at its shape more closely. The same matrix twice in succession is not copied.
    private double loadSeconds(Device device) {
        int n = sizes.matmul();
        List<Double> all = new ArrayList<>();
        try (Arena arena = Arena.ofShared()) {
            List<FrozenMatrix> matrices = List.of(random(arena, n, n), random(arena, n, n));
            device.weight(matrices.getLast());
            for (int i = 0; i < 4; i++) {
                wait(device);
                long begin = System.nanoTime();
                device.weight(matrices.get(i % 2));
                wait(device);
                all.add((System.nanoTime() - begin) * 1e-9);
            }
        }
        return Percentiles.of(all).median();
    }

    private void copies(Device device, Timed timed) {
        try (Device.Scope scope = device.scope()) {
            int columns = 4096;
            int rows = (int) (sizes.copyBytes() / 4 / columns);
            Tensor from = device.scratch(scope, rows, columns);
            Tensor to = device.scratch(scope, rows, columns);
            device.fill(from, 1);
            timed.of(() -> device.copy(to, from));
        }
    }

    private void products(Device device, Timed timed) {
        int n = sizes.matmul();
        try (Device.Scope scope = device.scope(); Arena arena = Arena.ofShared()) {
            Weight weight = device.weight(random(arena, n, n));
            Tensor x = device.scratch(scope, DType.BF16, n, n);
            Tensor y = device.scratch(scope, DType.BF16, n, n);
            device.copy(x, random(device, scope, n, n));
            var none = device.slots(scope, List.of());
            timed.of(() -> device.project(y, x, weight, Optional.empty(), Optional.empty(), none, 0,
                    Optional.empty()));
        }
    }

    private static Tensor random(Device device, Device.Scope scope, int rows, int columns) {
        SplittableRandom chance = new SplittableRandom(3);
        float[] values = new float[rows * columns];
        for (int i = 0; i < values.length; i++) values[i] = (float) chance.nextDouble(-1, 1);
        return device.upload(scope, List.of(new HostArray.Floats(rows, columns, values))).getFirst();
    }

    private static FrozenMatrix random(Arena arena, int rows, int columns) {
        SplittableRandom chance = new SplittableRandom(4);
        var memory = arena.allocate(2L * rows * columns, 64);
        for (long i = 0; i < (long) rows * columns; i++)
            memory.setAtIndex(ValueLayout.JAVA_SHORT, i,
                    HalfFloats.toBf16((float) chance.nextDouble(-1, 1)));
        return new FrozenMatrix(memory, WeightType.BF16, rows, columns);
    }

    /// Receives a verb and measures it.
    private interface Timed {
        void of(Runnable verb);
    }

    private interface Measured {
        void with(Timed timed);
    }

    /// Seconds of one call of a verb: the median of several bursts, after a warm-up.
    private static double seconds(Device device, Measured measured) {
        List<Double> all = new ArrayList<>();
        measured.with(verb -> {
            burst(device, verb, 3);
            for (int i = 0; i < REPETITIONS; i++) all.add(burst(device, verb, 10) / 10);
        });
        return Percentiles.of(all).median();
    }

    private static double burst(Device device, Runnable verb, int times) {
        wait(device);
        long begin = System.nanoTime();
        for (int i = 0; i < times; i++) verb.run();
        wait(device);
        return (System.nanoTime() - begin) * 1e-9;
    }

    /// Waits until all earlier verbs are executed.
    static void wait(Device device) {
        try (Device.Scope scope = device.scope()) {
            Tensor one = device.scratch(scope, 1, 1);
            device.fill(one, 0);
            device.readback(List.of(one)).floats(0);
        }
    }

    /// A training step of equal lengths.
    void train(ObjectNode line) throws IOException {
        int[] lengths = Lengths.equal(sizes.sequences(), sizes.length());
        Workload workload = Workload.of(RANK, lengths);
        try (Loaded loaded = load(sizes.train(), line)) {
            double first = step(loaded.model, workload, line, loaded.begin);
            double rate = workload.tokens() / first;
            Work work = workload.work(sizes.train());
            line.put("shape", sizes.train().name()).put("tok_s", Report.round(rate))
                    .put("tflop_s", Report.round(work.all() / first / 1e12))
                    .put("share_of_matmul", Report.three(work.all() / first / matmul));
            line.put("step_s", Report.three(first)).put("attention_flop_share",
                    Report.three(work.attention() / work.all()));
            goal(line, "training, tokens/s", Report.round(rate), TRAINED_TOKENS, true);
            goal(line, "training, share of the matmul ceiling",
                    Report.three(work.all() / first / matmul), MATMUL_SHARE, true);
            // what the weights take from the memory of the host, and ten seconds
            goal(line, "load and first step, seconds", line.path("to_first_step_s").asDouble(),
                    Report.round(sizes.train().bytes(true) / loading + FIRST_STEP), false);
        }
        peer.ifPresentOrElse(p -> comparison(line, p),
                () -> notMeasured(line, "training, ratio to PyTorch", PEER, NO_PEER));
    }

    private void comparison(ObjectNode line, Peer other) {
        try {
            ObjectNode theirs = other.run(sizes.train(), true, RANK, List.of("--device", "cuda", "--batch",
                    "1", "--seq", "" + sizes.length(), "--steps", "" + STEPS));
            line.set("peer", theirs);
            double ratio = line.path("tok_s").asDouble() / theirs.path("train_tok_s").asDouble();
            goal(line, "training, ratio to PyTorch", Report.two(ratio), PEER, true);
        } catch (RuntimeException failure) {
            notMeasured(line, "training, ratio to PyTorch", PEER, String.valueOf(failure.getMessage()));
        }
    }

    /// Seconds of a step after a warm-up.
    private double step(BaseModel model, Workload workload, ObjectNode line, long begin) {
        List<Double> seconds = new ArrayList<>();
        try (TrainBench.Training runs = new TrainBench.Training(model, workload)) {
            runs.step(0);
            line.put("to_first_step_s", Report.three((System.nanoTime() - begin) * 1e-9));
            for (int step = 1; step <= STEPS; step++) seconds.add(runs.step(step));
        }
        line.put("memory_gib", Report.round(model.device().memoryInUse() / (double) (1L << 30)));
        return Percentiles.of(seconds).median();
    }

    /// Steps of many runs of several ranks together, beside one run with the same tokens.
    void tenants(ObjectNode line) throws IOException {
        try (Loaded loaded = load(sizes.train(), line)) {
            Workload tenants = Workload.tenants(TENANTS, sizes.sequences() * sizes.length() / TENANTS);
            beside(line, "16 tenants beside one", loaded.model, tenants, tenants.merged());
        }
    }

    private void beside(ObjectNode line, String what, BaseModel model, Workload mine, Workload other) {
        double one = step(model, other, line, System.nanoTime());
        double all = step(model, mine, line, System.nanoTime());
        double ratio = mine.tokens() / all / (other.tokens() / one);
        line.put("tok_s", Report.round(mine.tokens() / all)).put("beside_tok_s",
                Report.round(other.tokens() / one));
        goal(line, what, Report.three(ratio), BESIDE, true);
    }

    /// The time of a step by verb; the device is waited for after each, so the sum is longer than a step.
    void profile(ObjectNode line) throws IOException {
        Profiler[] profiler = new Profiler[1];
        Workload workload = Workload.of(RANK, Lengths.equal(1, sizes.length()));
        try (Loaded loaded = load(sizes.train(), line, device -> {
            profiler[0] = new Profiler(device, () -> wait(device));
            return profiler[0].proxy();
        }); TrainBench.Training runs = new TrainBench.Training(loaded.model, workload)) {
            runs.step(0);
            profiler[0].clear();
            double seconds = runs.step(1);
            Report report = new Report("profile", loaded.device.description());
            ProfileTable.add(report, profiler[0].lines(), List.of(seconds), matmul, copy);
            line.set("profile", report.line().get("profile"));
        }
    }

    /// Packed sequences whose lengths differ, beside as many of equal lengths.
    void mixed(ObjectNode line) throws IOException {
        try (Loaded loaded = load(sizes.decode(), line)) {
            int[] lengths = Lengths.logUniform(sizes.packed(), sizes.packed() / 4, 1);
            beside(line, "packed lengths beside equal ones", loaded.model, Workload.of(RANK, lengths),
                    Workload.of(RANK, Lengths.levelled(lengths)));
        }
    }

    /// Sampling with one stream and with many of several adapters.
    void decode(ObjectNode line) throws IOException {
        Shape shape = sizes.decode();
        try (Loaded loaded = load(shape, line);
                var trained = new Decoding.Adapters(loaded.model, ADAPTERS, RANK);
                Sampler sampler = new Sampler(loaded.model, Optional.empty(), samplerSettings())) {
            Decoding decoding = new Decoding(sampler, trained, new ModelName("check/decode"));
            decoding.draw(1, sizes.tokens(), PROMPT);
            decoding.draw(sizes.streams(), sizes.tokens(), PROMPT);
            double one = decoding.rate(1, sizes.tokens(), PROMPT);
            double all = decoding.rate(sizes.streams(), sizes.tokens(), PROMPT);
            double base = decoding.baseRate(sizes.streams(), sizes.tokens(), PROMPT);
            // A copy reads and writes: its rate counts both.
            double limit = copy / shape.decodedBytes(true);
            var off = decoding.difference(Math.min(8, sizes.streams()), sizes.tokens(), PROMPT);
            if (off.largest() != 0) line.putArray("failures").add("sampler and trainer differ");
            line.put("shape", shape.name()).put("device", loaded.model.device().description())
                    .put("one_stream_tok_s", Report.round(one))
                    .put("streams", sizes.streams()).put("adapters", ADAPTERS)
                    .put("tok_s", Report.round(all)).put("base_tok_s", Report.round(base));
            goal(line, "decoding, one stream, share of the bandwidth", Report.three(one / limit), BANDWIDTH,
                    true);
            goal(line, "decoding, all streams, share of the bandwidth",
                    Report.three(all / sizes.streams() / limit), BANDWIDTH, true);
            goal(line, "sampler and trainer, largest difference", off.largest(), DIFFERENCE, false);
            goal(line, "sampler and trainer, mean difference", off.mean(), DIFFERENCE / 10, false);
            goal(line, "decoding, all streams, with adapters beside without", Report.three(all / base),
                    WITH_ADAPTERS, true);
        }
        peer.ifPresentOrElse(p -> decodingComparison(line, p),
                () -> notMeasured(line, DECODING_RATIO, DECODING_PEER, NO_PEER));
    }

    private void decodingComparison(ObjectNode line, Peer other) {
        try {
            ObjectNode theirs = other.run(sizes.decode(), true, RANK, List.of("--device", "cuda", "--batch",
                    "1", "--seq", "" + PROMPT, "--steps", "1", "--sample", "" + sizes.tokens(),
                    "--sample-batch", "" + sizes.streams()));
            line.set("peer", theirs);
            double ratio = line.path("tok_s").asDouble() / theirs.path("decode_tok_s").asDouble();
            goal(line, DECODING_RATIO, Report.two(ratio), DECODING_PEER, true);
        } catch (RuntimeException failure) {
            notMeasured(line, DECODING_RATIO, DECODING_PEER, String.valueOf(failure.getMessage()));
        }
    }

    /// The time of a token of all streams by verb; the device is waited for after each.
    void decodeProfile(ObjectNode line) throws IOException {
        Profiler[] profiler = new Profiler[1];
        try (Loaded loaded = load(sizes.decode(), line, device -> {
            profiler[0] = new Profiler(device, () -> wait(device));
            return profiler[0].proxy();
        }); var trained = new Decoding.Adapters(loaded.model, ADAPTERS, RANK);
                Sampler sampler = new Sampler(loaded.model, Optional.empty(), samplerSettings())) {
            Decoding decoding = new Decoding(sampler, trained, new ModelName("check/decode"));
            decoding.draw(sizes.streams(), sizes.tokens(), PROMPT);
            profiler[0].clear();
            double seconds = decoding.draw(sizes.streams(), sizes.tokens(), PROMPT).seconds();
            Report report = new Report("decode-profile", loaded.device.description());
            ProfileTable.add(report, profiler[0].lines(), Collections.nCopies(sizes.tokens(),
                    seconds / sizes.tokens()), matmul, copy);
            line.set("profile", report.line().get("profile"));
        }
    }

    private SamplerSettings samplerSettings() {
        return samplerSettings(sizes);
    }

    static SamplerSettings samplerSettings(GpuCheck.Sizes sizes) {
        return new SamplerSettings(8L << 30, DType.BF16, 2048, Math.max(sizes.streams(), 8), 64);
    }

    /// A model on a device of its own.
    ///
    /// @param begin when its loading began, as `System.nanoTime` counts
    private record Loaded(Device device, BaseModel model, long begin) implements AutoCloseable {
        @Override public void close() {
            device.close();
            model.files().close();
        }
    }

    private Loaded load(Shape shape, ObjectNode line) throws IOException {
        return load(shape, line, UnaryOperator.identity());
    }

    private Loaded load(Shape shape, ObjectNode line, UnaryOperator<Device> wrapped) throws IOException {
        Path at = folder.resolve(shape.name());
        if (written.filter(at::equals).isEmpty()) {
            close();
            shape.withContext(sizes.packed()).write(at, true);
            written = Optional.of(at);
        }
        long begin = System.nanoTime();
        Device device = Devices.open(settings);
        try {
            BaseModel model = BaseModel.load(at, new ModelName("check/" + shape.name()),
                    wrapped.apply(device), DType.BF16);
            long budget = (long) (ACTIVATIONS * (device.memoryLimit() - device.memoryInUse()));
            model.setActivationBudget(budget, budget);
            line.put("load_s", Report.three((System.nanoTime() - begin) * 1e-9));
            return new Loaded(device, model, begin);
        } catch (RuntimeException failure) {
            device.close();
            throw failure;
        }
    }

    @Override public void close() throws IOException {
        if (written.isPresent() && Files.exists(written.get())) Setup.delete(written.get());
        written = Optional.empty();
    }
}
