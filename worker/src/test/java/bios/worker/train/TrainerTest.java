package bios.worker.train;

import static bios.worker.device.TestDevices.read;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.run.AdamParams;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation.ForwardBackward;
import bios.protocol.run.OperationResult.Evaluated;
import bios.protocol.run.OperationResult;
import bios.protocol.run.TensorData;
import bios.worker.adapter.StateFiles;
import bios.worker.adapter.TrainingState;
import bios.worker.device.Device;
import bios.worker.device.DeviceLost;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.TestDevices;
import bios.worker.model.BaseModel;
import bios.worker.model.Golden;
import bios.worker.model.RecordingDevice;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;

class TrainerTest {
    @Test void anOperationThatDoesNotFitTheModelIsRefusedAndChangesNothing() {
        try (Device on = TestDevices.open(1); BaseModel model = Golden.of("qwen3").load(on);
                TrainingState run = Examples.run(Examples.SMALL, model)) {
            Trainer trainer = new Trainer(model);
            trainer.evaluate(run, Examples.operation(model, 1, 2, false));
            byte[] before = StateFiles.point(run);
            Datum good = Examples.datum(new int[] {1, 2}, new long[] {2, 3}, new float[] {1, 1});
            float[] ones = {1, 1};
            Map<Datum, String> bad = Map.of(
                    Examples.datum(new int[] {1, 96}, new long[] {2, 3}, ones),
                    "data[1].model_input: holds 96 at position 1",
                    Examples.datum(new int[] {-1, 2}, new long[] {2, 3}, ones), "holds -1 at position 0",
                    Examples.datum(new int[] {1, 2}, new long[] {2, 1L << 40}, ones),
                    "target_tokens: holds 1099511627776",
                    Examples.datum(new int[129], new long[129], new float[129]),
                    "has 129 tokens; the model's context is 128",
                    Examples.datum(new int[0], new long[0], new float[0]), "has no tokens",
                    Examples.datum(new int[] {1, 2}, new long[] {2}, ones), "target_tokens: has shape [1]");
            bad.forEach((datum, message) -> {
                Refused refused = assertThrows(Refused.class,
                        () -> trainer.evaluate(run, new ForwardBackward(List.of(good, datum),
                                LossFunction.CROSS_ENTROPY, Map.of(), false)));
                assertTrue(refused.fault().message().contains(message), refused.fault().message());
                assertArrayEquals(before, StateFiles.point(run));
            });
        }
    }

    @Test void aStepWithoutGradientIsRefused() {
        try (Device on = TestDevices.open(1); BaseModel model = Golden.of("qwen3").load(on);
                TrainingState run = Examples.run(Examples.SMALL, model)) {
            Trainer trainer = new Trainer(model);
            assertEquals("no_gradient", assertThrows(Refused.class,
                    () -> trainer.optimStep(run, Optional.empty())).fault().code());
            trainer.evaluate(run, Examples.operation(model, 1, 2, true));
            assertEquals("no_gradient", assertThrows(Refused.class,
                    () -> trainer.optimStep(run, Optional.empty())).fault().code());
            trainer.evaluate(run, Examples.operation(model, 1, 2, false));
            AdamParams params = new AdamParams(0.01, 0.5, 0.6, 1e-8, 0, 0);
            assertEquals(1, trainer.optimStep(run, Optional.of(params)).complete().step());
            assertEquals(params, run.optimizerSettings());
            assertThrows(Refused.class, () -> trainer.optimStep(run, Optional.empty()));
        }
    }

    @Test void outOfMemoryAtAnyAllocationChangesNothingAndARetryGivesTheSameBits() {
        try (Device cpu = TestDevices.open(1)) {
            RecordingDevice test = new RecordingDevice(cpu);
            Device on = test.device();
            try (BaseModel model = Golden.of("qwen3").load(on);
                    TrainingState run = Examples.run(Examples.SMALL, model);
                    TrainingState same = Examples.run(Examples.SMALL, model)) {
                model.setActivationBudget(300_000, 300_000);
                Trainer trainer = new Trainer(model, 60);
                ForwardBackward operation = Examples.operation(model, 1, 3, false);
                for (TrainingState state : List.of(run, same)) trainer.evaluate(state, operation);
                Evaluated expected = trainer.evaluate(same, operation);
                byte[] before = StateFiles.point(run);
                long bytes = on.memoryInUse();
                int tensors = test.tensors();
                Optional<Evaluated> result = Optional.empty();
                for (int n = 0; result.isEmpty(); n += TestDevices.oneOf(17)) {
                    test.refuseAfter(n);
                    try {
                        result = Optional.of(trainer.evaluate(run, operation));
                        test.refuseNothing();
                        assertTrue(n > 100, n + " allocations");
                    } catch (OutOfDeviceMemory _) {
                        assertEquals(1, run.accumulatedOperations());
                        assertEquals(tensors, test.tensors());
                        assertEquals(bytes, on.memoryInUse());
                        if (n % 16 == 0) assertArrayEquals(before, StateFiles.point(run));
                    }
                }
                for (int i = 0; i < expected.logprobs().size(); i++)
                    assertArrayEquals(expected.logprobs().get(i), result.get().logprobs().get(i));
                assertEquals(expected.metrics(), result.get().metrics());
                assertArrayEquals(StateFiles.point(same), StateFiles.point(run));
            }
        }
    }

    @Test void aPassIsOneUploadThenVerbsThenOneReadbackAndNothingBlocks() {
        try (Device cpu = TestDevices.open(1)) {
            RecordingDevice test = new RecordingDevice(cpu);
            try (BaseModel model = Golden.of("qwen3").load(test.device());
                    TrainingState run = Examples.run(Examples.SMALL, model);
                    TrainingState other = Examples.run(Examples.LARGE, model)) {
                Trainer trainer = new Trainer(model);
                try (Evaluation mine = trainer.begin(run, Examples.operation(model, 1, 3, false));
                        Evaluation theirs = trainer.begin(other, Examples.operation(model, 2, 2, true))) {
                    test.calls();
                    PreparedPass prepared = trainer.prepare(List.of(theirs, mine));
                    assertEquals(List.of(), test.calls(), "preparation calls the device");
                    LaunchedPass launched = prepared.launch();
                    List<String> calls = test.calls();
                    assertEquals(1, calls.stream().filter("upload"::equals).count());
                    assertEquals("readback", calls.getLast());
                    assertEquals(1, calls.stream().filter("readback"::equals).count());
                    assertTrue(calls.indexOf("upload") < calls.indexOf("embed"));
                    // the inputs of a pass are uploaded before its first verb
                    for (String data : List.of("slots", "sequences"))
                        assertTrue(calls.lastIndexOf(data) < calls.indexOf("embed"), data);
                    for (String waits : List.of("read", "write", "floats", "ints", "doubles", "snapshot"))
                        assertFalse(calls.contains(waits), waits);
                    launched.complete();
                    assertEquals(List.of("floats", "doubles"), test.calls().stream().distinct().sorted()
                            .toList().reversed());
                    mine.finish();
                    theirs.finish();
                    for (String waits : List.of("read", "write", "readback", "floats"))
                        assertFalse(test.calls().contains(waits), waits);
                }
            }
        }
    }

    @Test void anOptimizerStepIsOneVerbForAllMatricesAndDoesNotWaitForTheNorm() {
        try (Device cpu = TestDevices.open(1)) {
            RecordingDevice test = new RecordingDevice(cpu);
            try (BaseModel model = Golden.of("qwen3").load(test.device());
                    TrainingState run = Examples.run(Examples.SMALL, model)) {
                Trainer trainer = new Trainer(model);
                trainer.evaluate(run, Examples.operation(model, 1, 2, false));
                byte[] before = StateFiles.point(run);
                test.refuseAfter(0);
                assertThrows(OutOfDeviceMemory.class, () -> trainer.optimStep(run, Optional.empty()));
                assertArrayEquals(before, StateFiles.point(run));
                test.calls();
                LaunchedStep step = trainer.optimStep(run, Optional.empty());
                List<String> calls = test.calls();
                for (String verb : List.of("sumOfSquares", "adamW", "readback"))
                    assertEquals(1, calls.stream().filter(verb::equals).count(), verb);
                for (String waits : List.of("read", "write", "floats", "ints", "doubles", "snapshot"))
                    assertFalse(calls.contains(waits), waits);
                assertTrue(step.complete().metrics().get("grad_norm") > 0);
                calls = test.calls();
                for (String waits : List.of("read", "write", "floats", "readback", "adamW", "add"))
                    assertFalse(calls.contains(waits), waits);
            }
        }
    }

    @Test void lostResultsLeaveTheRunUnchanged() {
        try (Device cpu = TestDevices.open(1)) {
            RecordingDevice test = new RecordingDevice(cpu);
            try (BaseModel model = Golden.of("qwen3").load(test.device());
                    TrainingState run = Examples.run(Examples.SMALL, model)) {
                Trainer trainer = new Trainer(model, 60);
                ForwardBackward operation = Examples.operation(model, 1, 3, false);
                trainer.evaluate(run, operation);
                byte[] before = StateFiles.point(run);
                int tensors = test.tensors();
                test.loseReadback();
                assertThrows(DeviceLost.class, () -> trainer.evaluate(run, operation));
                assertArrayEquals(before, StateFiles.point(run));
                assertEquals(tensors, test.tensors());
                trainer.evaluate(run, operation);
                assertEquals(2, run.accumulatedOperations());
            }
        }
    }

    /// Prompts have no weight: their share of the head's backward is skipped, unless the loss is dro.
    @Test void rowsWithoutWeightHaveNoBackwardAtTheHead() {
        try (Device cpu = TestDevices.open(1)) {
            RecordingDevice test = new RecordingDevice(cpu);
            try (BaseModel model = Golden.of("qwen3").load(test.device());
                    TrainingState run = Examples.run(Examples.SMALL, model)) {
                Trainer trainer = new Trainer(model);
                for (LossFunction function : LossFunction.values())
                    for (float weight : new float[] {0, 0.5f}) {
                        String name = function == LossFunction.CROSS_ENTROPY ? "weights" : "advantages";
                        Map<String, TensorData> inputs = new HashMap<>();
                        inputs.put("target_tokens", TensorData.of(new long[] {4, 5}));
                        inputs.put(name, TensorData.of(new float[] {0, weight}));
                        if (function != LossFunction.CROSS_ENTROPY)
                            inputs.put("logprobs", TensorData.of(new float[] {-1, -2}));
                        Datum datum = new Datum(new int[] {3, 4}, inputs);
                        test.calls();
                        trainer.evaluate(run, new ForwardBackward(List.of(datum), function, Map.of(), false));
                        boolean backward = weight != 0 || function == LossFunction.DRO;
                        assertEquals(backward, test.calls().contains("logSoftmaxBackward"),
                                function + " " + weight);
                    }
            }
        }
    }

    @Test void aPassIsPreparedWhileThePreviousOneIsOnTheDevice() {
        try (Device on = TestDevices.open(1); BaseModel model = Golden.of("qwen3").load(on);
                TrainingState run = Examples.run(Examples.SMALL, model);
                TrainingState same = Examples.run(Examples.SMALL, model)) {
            Trainer trainer = new Trainer(model, 60);
            ForwardBackward operation = Examples.operation(model, 4, 6, false);
            Evaluated expected = trainer.evaluate(same, operation);
            try (Evaluation evaluation = trainer.begin(run, operation)) {
                LaunchedPass before = trainer.prepare(List.of(evaluation)).launch();
                assertFalse(evaluation.allPrepared());
                while (!evaluation.allPrepared()) {
                    LaunchedPass next = trainer.prepare(List.of(evaluation)).launch();
                    before.complete();
                    assertFalse(evaluation.done());
                    before = next;
                }
                before.complete();
                assertTrue(evaluation.done());
                assertEquals(expected.metrics(), evaluation.finish().metrics());
            }
            assertArrayEquals(StateFiles.point(same), StateFiles.point(run));
        }
    }

    @Test void aLossIsTheSumOfItsPositionsInDoublePrecision() {
        float[] l = {-1f, -2f, -0.5f, -3f};
        float[] q = {-1.5f, -1f, 0f, -3f};
        float[] a = {2f, -1f, 0f, -4f};
        Loss is = loss(LossFunction.IMPORTANCE_SAMPLING, Map.of(), q, a);
        double expected = 7;
        for (int i = 0; i < 4; i++) expected -= Math.exp((double) l[i] - q[i]) * a[i];
        assertEquals(expected, is.sum(l, 7));
        assertEquals(3, is.weightSum(0));
        Loss ppo = loss(LossFunction.PPO,
                Map.of("clip_low_threshold", 0.8, "clip_high_threshold", 1.2), q, a);
        assertEquals(-(1.2 * 2 + 0.8 * -1 + 1 * -4), ppo.sum(l, 0), 1e-6);
        Loss far = loss(LossFunction.IMPORTANCE_SAMPLING, Map.of(), new float[] {-1e30f}, new float[] {0});
        assertEquals(0, far.sum(new float[] {0}, 0));
    }

    /// A datum with three targets for each position beside one with a vector of them: the log-probabilities
    /// are those of single targets to the bit, the loss is their sum, and the result has both shapes.
    @Test void severalTargetsOfAPositionAreScoredAsSingleOnes() {
        try (Device on = TestDevices.open(1); BaseModel model = Golden.of("qwen3").load(on);
                TrainingState run = Examples.run(Examples.SMALL, model)) {
            Trainer trainer = new Trainer(model);
            int[] tokens = {3, 4, 5, 6};
            long[] ids = {1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10, 0};
            float[] weights = {1, 0.5f, -0.25f, 0, 2, 0, 0.5f, 0.5f, 1, 0, 0, 0};
            Datum vector = Examples.datum(new int[] {9, 8}, new long[] {7, 6}, new float[] {1, 1});
            Datum matrix = matrix(tokens, 3, ids, weights);
            OperationResult.EvaluatedMatrix result;
            var data = List.of(matrix, vector, matrix);
            try (Evaluation evaluation = trainer.begin(run,
                    new ForwardBackward(data, LossFunction.CROSS_ENTROPY, Map.of(), false))) {
                while (!evaluation.done()) trainer.pass(List.of(evaluation));
                result = (OperationResult.EvaluatedMatrix) evaluation.result();
            }
            assertEquals(List.of(3, 0, 3), result.columns());
            List<float[]> logprobs = result.values().logprobs();
            assertEquals(2, logprobs.get(1).length);
            assertArrayEquals(logprobs.get(0), logprobs.get(2));
            double loss = 0;
            for (int k = 0; k < 3; k++) {
                long[] own = new long[4];
                for (int i = 0; i < 4; i++) own[i] = ids[3 * i + k];
                float[] single = trainer.evaluate(run, new ForwardBackward(
                        List.of(Examples.datum(tokens, own, new float[4])), LossFunction.CROSS_ENTROPY,
                        Map.of(), true)).logprobs().getFirst();
                for (int i = 0; i < 4; i++) {
                    assertEquals(single[i], logprobs.get(0)[3 * i + k]);
                    loss -= 2.0 * weights[3 * i + k] * single[i];
                }
            }
            for (float l : logprobs.get(1)) loss -= l;
            assertEquals(loss, result.values().metrics().get("loss:sum"), 1e-6);
            assertEquals(10, result.values().metrics().get("tokens:sum"));
            assertEquals(0, result.values().metrics().get("non_finite:sum"));
        }
    }

    /// A sparse matrix of targets comes as a dense one, in which the others have no weight: a step with it
    /// has the bits of one without those.
    @Test void aStepHasTheSameBitsWithTargetsThatHaveNoWeight() {
        int[] tokens = {3, 4, 5, 6};
        long[] ids = {1, 2, 4, 5, 7, 7, 8, 9};
        float[] weights = {1, 0.5f, -0.25f, 2, 0.5f, 0.5f, 1, 0.125f};
        long[] wide = new long[2 * ids.length];
        float[] wideWeights = new float[2 * ids.length];
        for (int i = 0; i < ids.length; i++) {
            wide[2 * i + 1] = ids[i];
            wideWeights[2 * i + 1] = weights[i];
        }
        try (Device on = TestDevices.open(1); BaseModel model = Golden.of("qwen3").load(on)) {
            byte[] narrow = stepped(model, matrix(tokens, 2, ids, weights));
            assertArrayEquals(narrow, stepped(model, matrix(tokens, 4, wide, wideWeights)));
            weights[3] = 1;
            assertFalse(Arrays.equals(narrow, stepped(model, matrix(tokens, 2, ids, weights))));
        }
    }

    /// The state of a run after a step with a datum beside one with single targets.
    private static byte[] stepped(BaseModel model, Datum datum) {
        Datum single = Examples.datum(new int[] {9, 8}, new long[] {7, 6}, new float[] {1, 1});
        try (TrainingState run = Examples.run(Examples.SMALL, model)) {
            Trainer trainer = new Trainer(model);
            trainer.evaluate(run, new ForwardBackward(List.of(datum, single), LossFunction.CROSS_ENTROPY,
                    Map.of(), false));
            trainer.optimStep(run, Optional.of(AdamParams.DEFAULT)).complete();
            return StateFiles.point(run);
        }
    }

    private static Datum matrix(int[] tokens, int each, long[] targets, float[] weights) {
        int[] shape = {tokens.length, each};
        return new Datum(tokens, Map.of(
                "target_tokens", new TensorData(TensorData.DType.INT64, shape, TensorData.of(targets).data()),
                "weights", new TensorData(TensorData.DType.FLOAT32, shape, TensorData.of(weights).data())));
    }

    @Test void ownThresholdsCountInsteadOfTheSettings() {
        float[] l = {-1f, -2f, -0.5f};
        float[] q = {-1.5f, -1f, -0.5f};
        float[] a = {2f, -1f, 1f};
        Map<String, Double> settings = Map.of("clip_low_threshold", 0.8, "clip_high_threshold", 1.2);
        Datum plain = new Datum(new int[3], Map.of("logprobs", TensorData.of(q), "advantages",
                TensorData.of(a), "target_tokens", TensorData.of(new long[3])));
        Map<String, TensorData> inputs = new HashMap<>(plain.lossInputs());
        inputs.put("clip_low_threshold", TensorData.of(0.25f, 0.25f, 0.25f));
        inputs.put("clip_high_threshold", TensorData.of(1.5f, 1.5f, 1.5f));
        Loss both = new Loss(LossFunction.PPO, settings, List.of(plain, new Datum(new int[3], inputs)));
        double expected = -(1.2 * 2 + 0.8 * -1 + 1) - (1.5 * 2 - Math.exp(-1) + 1);
        assertEquals(expected, both.sum(new float[] {l[0], l[1], l[2], l[0], l[1], l[2]}, 0), 1e-6);
        assertEquals(0, both.notFinite(new float[6]));
    }

    @Test void theDivergenceOfTheSamplerIsOverSampledTokens() {
        Loss loss = loss(LossFunction.PPO, Map.of("clip_low_threshold", 0.8, "clip_high_threshold", 1.2),
                new float[] {0, -1, -2, 0}, new float[] {0, 1, 0, 0});
        var divergence = new Divergence();
        loss.addTo(divergence, new float[] {-7, -1.5f, -1.5f, -9});
        Map<String, Double> metrics = new HashMap<>();
        divergence.report(LossFunction.PPO, metrics);
        assertEquals(0, metrics.get("kl_sample_train_v1:mean"), 1e-12);
        assertEquals(0.125, metrics.get("kl_sample_train_v2:mean"), 1e-12);
        assertEquals(Math.cosh(0.5) - 1, metrics.get("kl_sample_train_v3:mean"), 1e-12);
        metrics.clear();
        divergence.report(LossFunction.CROSS_ENTROPY, metrics);
        assertEquals(Map.of(), metrics);
    }

    @Test void crossEntropyUsesItsWeightsOrOnes() {
        Datum given = Examples.datum(new int[2], new long[2], new float[] {0.5f, -2});
        Datum missing = new Datum(new int[1], Map.of("target_tokens", TensorData.of(new long[1])));
        Loss loss = new Loss(LossFunction.CROSS_ENTROPY, Map.of(), List.of(given, missing));
        assertArrayEquals(new float[] {0.5f, -2, 1}, loss.inputs().weights());
        assertEquals(2 - 2 + 7, loss.sum(new float[] {-4, -1, -7}, 0));
        assertEquals(-0.5, loss.weightSum(0));
    }

    private static Loss loss(LossFunction function, Map<String, Double> settings, float[] q, float[] a) {
        Datum datum = new Datum(new int[q.length], Map.of("logprobs", TensorData.of(q),
                "advantages", TensorData.of(a), "target_tokens", TensorData.of(new long[q.length])));
        return new Loss(function, settings, List.of(datum));
    }

    @Test void trainingReducesTheLoss() {
        try (Device on = TestDevices.open(1); BaseModel model = Golden.of("llama-bf16").load(on);
                TrainingState run = TrainingState.createInitialized(Examples.LARGE, model.spec(), on)) {
            Trainer trainer = new Trainer(model);
            ForwardBackward operation = Examples.operation(model, 1, 2, false);
            double first = trainer.evaluate(run, operation).metrics().get("loss:sum");
            run.dropGradient();
            for (int i = 0; i < 30; i++) {
                trainer.evaluate(run, operation);
                trainer.optimStep(run, Optional.of(new AdamParams(1e-2, 0.9, 0.95, 1e-8, 0, 1))).complete();
            }
            double last = trainer.evaluate(run, operation).metrics().get("loss:sum");
            assertTrue(last < 0.5 * first, first + " became " + last);
        }
    }

    @Test void tensorsOfANewRunAreThoseOfItsSeed() {
        try (Device on = TestDevices.open(1); BaseModel model = Golden.of("qwen3").load(on);
                TrainingState one = TrainingState.createInitialized(Examples.SMALL, model.spec(), on);
                TrainingState two = TrainingState.createInitialized(Examples.SMALL, model.spec(), on)) {
            assertArrayEquals(StateFiles.point(one), StateFiles.point(two));
            for (int layer = 0; layer <= model.spec().layers(); layer++)
                for (var target : Examples.SMALL.targets()) one.adapter().factor(layer, target)
                        .ifPresent(factor -> {
                            double bound = 1 / Math.sqrt(factor.a().rows());
                            double sum = 0;
                            for (float v : read(on, factor.a())) {
                                assertTrue(Math.abs(v) <= bound);
                                sum += v * v;
                            }
                            assertEquals(bound * bound / 3, sum / factor.a().elements(), 0.3 * bound * bound,
                                    target + " is not uniform");
                            for (float v : read(on, factor.b())) assertEquals(0, v);
                        });
        }
    }}
