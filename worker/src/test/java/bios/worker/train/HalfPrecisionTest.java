package bios.worker.train;

import static bios.worker.device.TestDevices.read;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.run.Datum;
import bios.protocol.run.Operation.ForwardBackward;
import bios.worker.adapter.Factors;
import bios.worker.adapter.TrainingState;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.HostArray;
import bios.worker.device.Tensor;
import bios.worker.device.TestDevices;
import bios.worker.model.BaseModel;
import bios.worker.model.Golden;
import bios.worker.model.KeyValueCache;
import bios.worker.model.KeyValuePages;
import bios.worker.model.RunBatch;
import bios.worker.model.SequenceInput;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Activations in bfloat16 against those in fp32, for devices with bf16 products.
class HalfPrecisionTest {
    /// Number of roundings of a row in a layer: results of norms, q, k, v, result of attention, gate, up,
    /// their product, and the low-rank products.
    private static final int ROUNDINGS = 16;

    /// Rounding to 8 bits is off by at most 2^-9 of a value; independent roundings add up as the square root
    /// of their number. Three times that allows for their propagation through products.
    private static double tolerance(BaseModel model, int directions) {
        return 3 * 0x1p-9 * Math.sqrt(directions * (double) ROUNDINGS * model.spec().layers());
    }

    private record Result(float[] logprobs, float[] gradient) {}

    private static Result trained(BaseModel model, RunBatch batch, TrainingState run) {
        try (Factors gradient = run.allocateGradient()) {
            float[] logprobs = model.runPass(List.of(batch), List.of(Optional.of(gradient))).getFirst();
            List<float[]> slabs = new ArrayList<>();
            for (Tensor slab : gradient.slabs()) slabs.add(read(model.device(), slab));
            float[] all = new float[slabs.stream().mapToInt(s -> s.length).sum()];
            int at = 0;
            for (float[] slab : slabs) {
                System.arraycopy(slab, 0, all, at, slab.length);
                at += slab.length;
            }
            return new Result(logprobs, all);
        }
    }

    private static double norm(float[] a, float[] b) {
        double sum = 0;
        for (int i = 0; i < a.length; i++) sum += ((double) a[i] - b[i]) * ((double) a[i] - b[i]);
        return Math.sqrt(sum);
    }

    @ParameterizedTest @ValueSource(strings = {"qwen3", "qwen2-sliding"})
    void logProbabilitiesAndGradientsDifferByRoundingOnly(String name) {
        try (Device on = TestDevices.open(2); BaseModel exact = Golden.of(name).load(on);
                BaseModel half = Golden.of(name).load(on, DType.BF16);
                TrainingState run = Examples.run(Examples.SMALL, exact)) {
            ForwardBackward operation = Examples.operation(exact, 5, 4, false);
            RunBatch batch = new Trainer(exact).begin(run, operation).nextBatch();
            Result expected = trained(exact, batch, run);
            Result got = trained(half, batch, run);
            double largest = 0;
            double worst = 0;
            for (int i = 0; i < expected.logprobs.length; i++) {
                largest = Math.max(largest, Math.abs(expected.logprobs[i]));
                worst = Math.max(worst, Math.abs((double) expected.logprobs[i] - got.logprobs[i]));
            }
            System.out.printf("bf16 %s logprobs %.2e of %.2e%n", name, worst, tolerance(exact, 1) * largest);
            assertTrue(worst > 0, "nothing was rounded");
            assertTrue(worst <= tolerance(exact, 1) * largest, "off by " + worst);
            double relative = norm(expected.gradient, got.gradient)
                    / norm(expected.gradient, new float[expected.gradient.length]);
            System.out.printf("bf16 %s gradient %.2e of %.2e%n", name, relative, tolerance(exact, 2));
            assertTrue(relative <= tolerance(exact, 2), "gradients are off by " + relative);
        }
    }

    @ParameterizedTest @ValueSource(strings = {"qwen3", "qwen2-sliding"})
    void whatIsSavedDoesNotChangeABit(String name) {
        try (Device on = TestDevices.open(2); BaseModel half = Golden.of(name).load(on, DType.BF16);
                TrainingState run = Examples.run(Examples.SMALL, half)) {
            RunBatch batch = new Trainer(half).begin(run, Examples.operation(half, 5, 4, false)).nextBatch();
            Result all = trained(half, batch, run);
            for (long bytes : new long[] {200_000, 100_000, 0}) {
                half.setActivationBudget(bytes, bytes);
                Result some = trained(half, batch, run);
                assertArrayEquals(all.logprobs, some.logprobs);
                assertArrayEquals(all.gradient, some.gradient);
            }
        }
    }

    /// A cache in the type of the activations adds no rounding.
    @ParameterizedTest @ValueSource(strings = {"qwen3", "qwen2-sliding"})
    void decodingWithACacheOfTheSameTypeGivesTheTrainersBits(String name) {
        try (Device on = TestDevices.open(2); BaseModel half = Golden.of(name).load(on, DType.BF16);
                TrainingState run = Examples.run(Examples.SMALL, half);
                KeyValuePages pages = new KeyValuePages(half.spec(), on, 8, DType.BF16);
                KeyValueCache cache = pages.open()) {
            Datum datum = Examples.operation(half, 3, 2, true).data().getLast();
            float[] expected = new Trainer(half).evaluate(run, new ForwardBackward(List.of(datum),
                    Examples.operation(half, 3, 2, true).loss(), Map.of(), true)).logprobs().getFirst();
            long[] targets = datum.lossInputs().get("target_tokens").longs();
            int[] tokens = datum.tokens();
            for (int at = 0; at < tokens.length; ) {
                int n = at == 0 ? Math.min(9, tokens.length) : 1;
                try (Device.Scope scope = on.scope()) {
                    Tensor hidden = half.forwardCached(scope, List.of(new SequenceInput(
                            Arrays.copyOfRange(tokens, at, at + n), cache, Optional.of(run.adapter()))));
                    Tensor logits = half.logits(scope, hidden,
                            half.slots(scope, Collections.nCopies(n, Optional.of(run.adapter()))));
                    Tensor logprobs = on.scratch(scope, n, 1);
                    int[] part = new int[n];
                    for (int i = 0; i < n; i++) part[i] = (int) targets[at + i];
                    on.logSoftmaxAt(logprobs, on.scratch(scope, n, 1), logits,
                            on.upload(scope, List.of(HostArray.column(part))).getFirst());
                    assertArrayEquals(Arrays.copyOfRange(expected, at, at + n), read(on, logprobs));
                }
                at += n;
            }
        }
    }
}
