package bios.worker.train;

import static bios.worker.device.TestDevices.read;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.run.AdamParams;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation.ForwardBackward;
import bios.protocol.run.OperationResult.Evaluated;
import bios.protocol.run.TensorData;
import bios.worker.adapter.Adapter;
import bios.worker.adapter.StateFiles;
import bios.worker.adapter.TrainingState;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.HostArray;
import bios.worker.device.Tensor;
import bios.worker.device.TestDevices;
import bios.worker.load.Safetensors;
import bios.worker.model.BaseModel;
import bios.worker.model.Golden;
import bios.worker.model.KeyValueCache;
import bios.worker.model.KeyValuePages;
import bios.worker.model.RunBatch;
import bios.worker.model.SequenceInput;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import org.junit.jupiter.params.AfterParameterizedClassInvocation;
import org.junit.jupiter.params.BeforeParameterizedClassInvocation;
import org.junit.jupiter.params.Parameter;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// The engine's results against PyTorch, transformers and PEFT, for every architecture and dtype, on every
/// path of this process.
@ParameterizedClass @MethodSource("bios.worker.device.TestDevices#paths")
class ModelGoldenTest {
    private static final Map<String, Double> ERRORS = new TreeMap<>();
    private static Device on;

    /// All cases; those in bf16 also with their weights widened to fp32, where nothing is rounded.
    static List<String> cases() {
        List<String> cases = new ArrayList<>(Golden.cases());
        for (String name : Golden.cases()) if (!Golden.of(name).exact()) cases.add(name + Golden.WIDENED);
        return cases;
    }

    @Parameter private String path;

    @BeforeParameterizedClassInvocation static void open(String path) {
        on = TestDevices.open(path, 2);
    }

    @AfterParameterizedClassInvocation static void report(String path) {
        on.close();
        ERRORS.forEach((what, error) -> System.out.printf("golden %-12s %-60s %.2e%n", path, what, error));
        ERRORS.clear();
    }

    @ParameterizedTest @MethodSource("cases") void logProbabilitiesAgree(String name) {
        Golden golden = Golden.of(name);
        try (BaseModel model = golden.load(on); Adapter adapter = golden.adapter(model)) {
            for (Optional<Adapter> used : List.of(Optional.<Adapter>empty(), Optional.of(adapter))) {
                List<Golden.Sequence> sequences = golden.sequences();
                List<float[]> got = logprobs(model, used, sequences);
                String kind = used.isEmpty() ? "base" : "adapter";
                for (int i = 0; i < sequences.size(); i++)
                    close(golden, kind + " logprobs", golden.values(kind + ".logprobs." + i), got.get(i),
                            logprobTolerance(golden));
            }
        }
    }

    @ParameterizedTest @MethodSource("cases") void lossesAndGradientsAgree(String name) {
        Golden golden = Golden.of(name);
        try (BaseModel model = golden.load(on)) {
            for (var loss : golden.json().get("losses")) {
                LossFunction function = LossFunction.of(loss.asText());
                try (TrainingState state = state(golden, model)) {
                    Evaluated result = new Trainer(model, 48)
                            .evaluate(state, operation(golden, function, false));
                    double expected = golden.values("loss." + loss.asText())[0];
                    assertEquals(expected, result.metrics().get("loss:sum"),
                            (golden.exact() ? 1e-4 : 1e-3) * Math.max(1, Math.abs(expected)));
                    closeTensors(golden, "gradient." + loss.asText() + ".", StateFiles.point(state),
                            ".grad", gradientTolerance(golden), 0);
                }
            }
        }
    }

    /// PyTorch's cross_entropy, with each target given twice at half its weight beside one without weight.
    @ParameterizedTest @MethodSource("cases") void crossEntropyOfSeveralTargetsAgrees(String name) {
        Golden golden = Golden.of(name);
        try (BaseModel model = golden.load(on); TrainingState state = state(golden, model)) {
            ForwardBackward one = operation(golden, LossFunction.CROSS_ENTROPY, false);
            List<Datum> data = one.data().stream().map(d -> tripled(d)).toList();
            Evaluated result = new Trainer(model, 48).evaluate(state,
                    new ForwardBackward(data, LossFunction.CROSS_ENTROPY, Map.of(), false));
            double expected = golden.values("loss.cross_entropy")[0];
            assertEquals(expected, result.metrics().get("loss:sum"),
                    (golden.exact() ? 1e-4 : 1e-3) * Math.max(1, Math.abs(expected)));
            closeTensors(golden, "gradient.cross_entropy.", StateFiles.point(state), ".grad",
                    gradientTolerance(golden), 0);
        }
    }

    /// PyTorch's sum over several targets with weights, K of each datum its own.
    @ParameterizedTest @MethodSource("cases") void severalTargetsAgree(String name) {
        Golden golden = Golden.of(name);
        if (!golden.json().has("candidates")) return;
        try (BaseModel model = golden.load(on); TrainingState state = state(golden, model)) {
            List<Datum> data = new ArrayList<>();
            for (Golden.Sequence sequence : golden.sequences())
                data.add(candidates(golden, sequence, data.size()));
            Evaluated result = new Trainer(model, 48).evaluate(state,
                    new ForwardBackward(data, LossFunction.CROSS_ENTROPY, Map.of(), false));
            double expected = golden.values("loss.candidates")[0];
            assertEquals(expected, result.metrics().get("loss:sum"),
                    (golden.exact() ? 1e-4 : 1e-3) * Math.max(1, Math.abs(expected)));
            for (int i = 0; i < data.size(); i++)
                close(golden, "candidate logprobs", golden.values("candidate_logprobs." + i),
                        result.logprobs().get(i), logprobTolerance(golden));
            closeTensors(golden, "gradient.candidates.", StateFiles.point(state), ".grad",
                    gradientTolerance(golden), 0);
        }
    }

    private static Datum candidates(Golden golden, Golden.Sequence sequence, int index) {
        var rows = golden.json().get("candidates").get(index);
        int[] shape = {rows.size(), rows.get(0).size()};
        long[] ids = new long[shape[0] * shape[1]];
        for (int i = 0; i < ids.length; i++) ids[i] = rows.get(i / shape[1]).get(i % shape[1]).asLong();
        byte[] weights = TensorData.of(golden.values("candidate_weights." + index)).data();
        return new Datum(sequence.tokens(), Map.of(
                "target_tokens", new TensorData(TensorData.DType.INT64, shape, TensorData.of(ids).data()),
                "weights", new TensorData(TensorData.DType.FLOAT32, shape, weights)));
    }

    private static Datum tripled(Datum datum) {
        long[] targets = datum.targets().longs();
        float[] weights = datum.lossInputs().get("weights").floats();
        long[] ids = new long[3 * targets.length];
        float[] halves = new float[3 * targets.length];
        for (int i = 0; i < targets.length; i++) {
            ids[3 * i] = ids[3 * i + 2] = targets[i];
            halves[3 * i] = halves[3 * i + 2] = weights[i] / 2;
        }
        int[] shape = {targets.length, 3};
        return new Datum(datum.tokens(), Map.of(
                "target_tokens", new TensorData(TensorData.DType.INT64, shape, TensorData.of(ids).data()),
                "weights", new TensorData(TensorData.DType.FLOAT32, shape, TensorData.of(halves).data())));
    }

    /// Twenty steps give PyTorch's adapter, and that adapter gives PyTorch's log-probabilities.
    ///
    /// How an error grows: a gradient is off by ε of the largest one of its matrix, as
    /// [#lossesAndGradientsAgree] holds it. AdamW divides it by its own size, so a step is off by up to ε
    /// times its learning rate, and after all steps an element by up to ε·Σlr. Log-probabilities of a trained
    /// model have no such bound: their slope along an adapter is the case's own, and in some cases a
    /// difference of 4e-6 in the adapter, on the definitions' path in double precision too, moves one by
    /// 1e-3. So they are compared at one and the same adapter, PyTorch's, with the tolerance of any other
    /// log-probability. The same holds for the norms of later gradients: the case records how far rounding
    /// alone takes PyTorch from itself in these steps (`noise`), and five times that is added to their
    /// tolerance, because products of operands in two bf16 parts round more coarsely than PyTorch's.
    @ParameterizedTest @MethodSource("cases") void twentyStepsAgree(String name) {
        Golden golden = Golden.of(name);
        try (BaseModel model = golden.load(on); TrainingState state = state(golden, model)) {
            Trainer trainer = new Trainer(model);
            float[] losses = golden.values("steps.losses");
            float[] norms = golden.values("steps.grad_norms");
            List<AdamParams> steps = golden.steps();
            double noise = Math.max(golden.noise("after_logprobs"), golden.json().get("noise")
                    .path("grad_norms").asDouble());
            double normTolerance = gradientTolerance(golden) + 5 * noise;
            for (int i = 0; i < steps.size(); i++) {
                Evaluated result = trainer.evaluate(state, operation(golden, LossFunction.CROSS_ENTROPY,
                        false));
                assertEquals(losses[i], result.metrics().get("loss:sum"),
                        (golden.exact() ? 1e-4 : 1e-2) * Math.max(1, Math.abs(losses[i])), "loss " + i);
                double norm = trainer.optimStep(state, Optional.of(steps.get(i))).complete().metrics()
                        .get("grad_norm");
                assertEquals(norms[i], norm, normTolerance * norms[i], "norm " + i);
            }
            double way = steps.stream().mapToDouble(AdamParams::learningRate).sum();
            closeTensors(golden, "after.", StateFiles.point(state), "", 0, gradientTolerance(golden) * way);
            try (Adapter trained = StateFiles.readAdapter(golden.adapterBytes("after."), golden.lora(),
                    model.spec(), on)) {
                List<float[]> got = logprobs(model, Optional.of(trained), golden.sequences());
                for (int i = 0; i < got.size(); i++)
                    close(golden, "after logprobs", golden.values("after.logprobs." + i), got.get(i),
                            logprobTolerance(golden));
            }
        }
    }

    /// Relative to the largest gradient of a matrix.
    private static double gradientTolerance(Golden golden) {
        return golden.exact() ? 1e-3 : 3e-2;
    }

    @ParameterizedTest @MethodSource("cases") void greedyDecodingAgrees(String name) {
        Golden golden = Golden.of(name);
        int[] prompt = Golden.ints(golden.json().get("greedy").get("prompt"));
        int[] tokens = Golden.ints(golden.json().get("greedy").get("tokens"));
        try (BaseModel model = golden.load(on); Adapter adapter = golden.adapter(model);
                KeyValuePages pages = new KeyValuePages(model.spec(), on, 8, DType.F32);
                KeyValueCache cache = pages.open()) {
            Optional<Adapter> used = Optional.of(adapter);
            float[] logprobs = new float[tokens.length];
            int[] drawn = new int[tokens.length];
            for (int i = 0; i < tokens.length; i++) {
                int[] next = i == 0 ? prompt : new int[] {drawn[i - 1]};
                try (Device.Scope scope = on.scope()) {
                    Tensor hidden = model.forwardCached(scope, List.of(new SequenceInput(next, cache, used)));
                    if (i == 0) promptAgrees(golden, model, scope, hidden, prompt, used);
                    Tensor logits = model.logits(scope, hidden.rows(next.length - 1, 1),
                            model.slots(scope, List.of(used)));
                    drawn[i] = largest(read(on, logits));
                    logprobs[i] = logprobs(model, scope, logits, drawn[i])[0];
                }
            }
            assertArrayEquals(tokens, drawn);
            close(golden, "greedy logprobs", golden.values("greedy.logprobs"), logprobs,
                    logprobTolerance(golden));
        }
    }

    private static void promptAgrees(Golden golden, BaseModel model, Device.Scope scope, Tensor hidden,
            int[] prompt, Optional<Adapter> used) {
        int n = prompt.length - 1;
        Tensor logits = model.logits(scope, hidden.rows(0, n),
                model.slots(scope, Collections.nCopies(n, used)));
        float[] got = logprobs(model, scope, logits, java.util.Arrays.copyOfRange(prompt, 1, n + 1));
        float[] expected = golden.values("prompt.logprobs");
        close(golden, "prompt logprobs", java.util.Arrays.copyOfRange(expected, 1, n + 1), got,
                logprobTolerance(golden));
    }

    private static float[] logprobs(BaseModel model, Device.Scope scope, Tensor logits, int... targets) {
        Tensor logprobs = on.scratch(scope, targets.length, 1);
        on.logSoftmaxAt(logprobs, on.scratch(scope, targets.length, 1), logits,
                on.upload(scope, List.of(HostArray.column(targets))).getFirst());
        return read(on, logprobs);
    }

    private static List<float[]> logprobs(BaseModel model, Optional<Adapter> adapter,
            List<Golden.Sequence> sequences) {
        List<float[]> all = new ArrayList<>();
        int[] targets = sequences.stream().flatMapToInt(s -> java.util.Arrays.stream(s.targets())).toArray();
        RunBatch batch = new RunBatch(adapter, sequences.stream().map(Golden.Sequence::tokens).toList(),
                targets, Optional.empty());
        float[] row = model.runPass(List.of(batch), List.of(Optional.empty())).getFirst();
        int at = 0;
        for (Golden.Sequence s : sequences)
            all.add(java.util.Arrays.copyOfRange(row, at, at += s.tokens().length));
        return all;
    }

    private static TrainingState state(Golden golden, BaseModel model) {
        return StateFiles.load(golden.adapterBytes(""), Optional.empty(), 0, AdamParams.DEFAULT,
                golden.lora(), model.spec(), on);
    }

    private static ForwardBackward operation(Golden golden, LossFunction loss, boolean forwardOnly) {
        List<Datum> data = new ArrayList<>();
        List<Golden.Sequence> sequences = golden.sequences();
        for (int i = 0; i < sequences.size(); i++) {
            Map<String, TensorData> inputs = new TreeMap<>();
            inputs.put("target_tokens", TensorData.of(java.util.Arrays.stream(sequences.get(i).targets())
                    .asLongStream().toArray()));
            if (loss == LossFunction.CROSS_ENTROPY)
                inputs.put("weights", TensorData.of(golden.values("weights." + i)));
            else {
                inputs.put("logprobs", TensorData.of(golden.values("q." + i)));
                inputs.put("advantages", TensorData.of(golden.values("advantages." + i)));
            }
            data.add(new Datum(sequences.get(i).tokens(), inputs));
        }
        Map<String, Double> settings = new TreeMap<>();
        Map<String, String> names = Map.of("low", "clip_low_threshold", "high", "clip_high_threshold",
                "beta", "beta");
        golden.json().path(loss.wireName()).properties()
                .forEach(e -> settings.put(names.get(e.getKey()), e.getValue().asDouble()));
        return new ForwardBackward(data, loss, settings, forwardOnly);
    }

    /// PyTorch computed in fp32 from the files' values; the engine splits what it multiplies by bf16 weights
    /// in two numbers of bf16. (It promises 2e-2; the largest error of three seeds is 1.1e-4.)
    private static double logprobTolerance(Golden golden) {
        return golden.exact() ? 1e-4 : 5e-4;
    }

    private static void close(Golden golden, String what, float[] expected, float[] got, double tolerance) {
        double worst = 0;
        for (int i = 0; i < expected.length; i++)
            worst = Math.max(worst, Math.abs((double) expected[i] - got[i]));
        ERRORS.merge(golden.name() + " " + what, worst, Math::max);
        assertEquals(expected.length, got.length);
        assertTrue(worst <= tolerance, what + " differ by " + worst);
    }

    /// Each tensor to `relative` of its largest element, and `absolute`.
    private static void closeTensors(Golden golden, String prefix, byte[] state, String suffix,
            double relative, double absolute) {
        try (Safetensors got = Safetensors.of("state", state)) {
            for (String name : golden.expected().names()) {
                if (!name.startsWith(prefix + "base_model.")) continue;
                float[] e = golden.values(name);
                float[] g = got.floats(name.substring(prefix.length()) + suffix,
                        golden.expected().entry(name).shape().stream().mapToLong(Long::longValue).toArray());
                double largest = 0;
                double worst = 0;
                for (int i = 0; i < e.length; i++) {
                    largest = Math.max(largest, Math.abs(e[i]));
                    worst = Math.max(worst, Math.abs((double) e[i] - g[i]));
                }
                ERRORS.merge(golden.name() + " " + prefix, worst / Math.max(largest, 1e-12), Math::max);
                assertTrue(worst <= relative * largest + absolute, name + " differs by " + worst + " of "
                        + largest);
            }
        }
    }

    private static int largest(float[] values) {
        int best = 0;
        for (int i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
        return best;
    }
}
