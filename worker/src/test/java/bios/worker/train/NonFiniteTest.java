package bios.worker.train;

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
import bios.protocol.run.OperationResult.Stepped;
import bios.protocol.run.TensorData;
import bios.worker.adapter.Factors;
import bios.worker.adapter.StateFiles;
import bios.worker.adapter.TrainingState;
import bios.worker.device.Device;
import bios.worker.device.Tensor;
import bios.worker.device.TestDevices;
import bios.worker.model.BaseModel;
import bios.worker.model.Golden;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/// Numbers that are not finite never reach weights or moments, and the operation tells of them.
final class NonFiniteTest {
    private static final AdamParams STEP = new AdamParams(1e-2, 0.9, 0.95, 1e-8, 0.01, 0);
    private static final AdamParams CLIPPED = new AdamParams(1e-2, 0.9, 0.95, 1e-8, 0.01, 1);
    private static Device on;
    private static BaseModel model;
    private final Trainer trainer = new Trainer(model);
    private TrainingState run;

    @BeforeAll static void load() {
        on = TestDevices.open(2);
        model = Golden.of("qwen3").load(on);
    }

    @AfterAll static void unload() {
        model.close();
        on.close();
    }

    @BeforeEach void open() {
        run = Examples.run(Examples.SMALL, model);
    }

    @AfterEach void close() {
        run.close();
    }

    /// Six tokens, of which one has other loss inputs.
    private static ForwardBackward sixTokens(LossFunction function, float q, float a) {
        float[] advantages = {0, 0, 1, a, 1, 1};
        float[] logprobs = {0, 0, -3, q, -3, -3};
        Map<String, TensorData> inputs = new HashMap<>();
        inputs.put("target_tokens", TensorData.of(new long[] {2, 3, 4, 5, 6, 7}));
        inputs.put(function == LossFunction.CROSS_ENTROPY ? "weights" : "advantages",
                TensorData.of(advantages));
        if (function != LossFunction.CROSS_ENTROPY) inputs.put("logprobs", TensorData.of(logprobs));
        return new ForwardBackward(List.of(new Datum(new int[] {1, 2, 3, 4, 5, 6}, inputs)), function,
                Map.of(), false);
    }

    private static ForwardBackward ordinary() {
        return sixTokens(LossFunction.IMPORTANCE_SAMPLING, -3, 1);
    }

    private Stepped step(AdamParams params) {
        return trainer.optimStep(run, Optional.of(params)).complete();
    }

    private void requireFinite() {
        for (float[] values : StateFiles.values(run, on))
            for (float value : values) assertTrue(Float.isFinite(value));
    }

    private static void requireNumbers(Map<String, Double> metrics) {
        metrics.forEach((name, value) -> assertTrue(Double.isFinite(value), name + " is " + value));
    }

    /// The step after `bad` is skipped for this reason and changes no bit; the run trains on as if `bad` had
    /// never been.
    private void skips(ForwardBackward bad, AdamParams params, long positions, String reason) {
        trainer.evaluate(run, ordinary());
        assertEquals(0, step(STEP).metrics().get("skipped_steps:sum"));
        byte[] before = StateFiles.checkpoint(run);
        trainer.evaluate(run, ordinary());
        Evaluated evaluated = trainer.evaluate(run, bad);
        requireNumbers(evaluated.metrics());
        for (float[] values : evaluated.logprobs())
            for (float value : values) assertTrue(Float.isFinite(value));
        assertEquals(positions, evaluated.metrics().get("non_finite:sum"));
        trainer.evaluate(run, ordinary());
        Stepped skipped = step(params);
        requireNumbers(skipped.metrics());
        assertEquals(1, skipped.step());
        assertEquals(1, skipped.metrics().get("skipped_steps:sum"));
        assertEquals(1, skipped.metrics().get("skipped_" + reason + ":sum"), skipped.metrics().toString());
        assertEquals(0, run.accumulatedOperations());
        assertArrayEquals(before, StateFiles.checkpoint(run));
        assertEquals(0, trainer.evaluate(run, ordinary()).metrics().get("non_finite:sum"));
        Stepped applied = step(STEP);
        assertEquals(2, applied.step());
        assertEquals(0, applied.metrics().get("skipped_steps:sum"));
        assertFalse(Arrays.equals(before, StateFiles.checkpoint(run)));
        requireFinite();
    }

    @Test void anImportanceRatioBeyondFloat() {
        skips(sixTokens(LossFunction.IMPORTANCE_SAMPLING, -120, 1), STEP, 1, "gradient");
    }

    @Test void aClippedRatioThatIsInfinite() {
        skips(sixTokens(LossFunction.PPO, -2000, -1), CLIPPED, 1, "gradient");
    }

    @Test void weightsThatOverflowTheGradient() {
        ForwardBackward bad = sixTokens(LossFunction.CROSS_ENTROPY, 0, 3e38f);
        trainer.evaluate(run, bad);
        assertEquals(1, step(CLIPPED).metrics().get("skipped_steps:sum"));
        requireFinite();
    }

    /// The loss of the position is infinite in fp32, but its gradient may not be.
    @Test void aLossThatIsNotFiniteSkipsTheStepWhateverTheGradientIs() {
        ForwardBackward bad = sixTokens(LossFunction.DRO, 1e25f, 1);
        Evaluated evaluated = trainer.evaluate(run, bad);
        assertTrue(evaluated.metrics().get("non_finite:sum") >= 1);
        assertEquals(1, step(CLIPPED).metrics().get("skipped_gradient:sum"));
    }

    @Test void weightsThatOverflowTheSecondMomentAreToldAndTrainWhenClipped() {
        skips(sixTokens(LossFunction.CROSS_ENTROPY, 0, 1e24f), STEP, 0, "moments");
        byte[] before = StateFiles.checkpoint(run);
        trainer.evaluate(run, sixTokens(LossFunction.CROSS_ENTROPY, 0, 1e24f));
        assertEquals(0, step(CLIPPED).metrics().get("skipped_steps:sum"));
        assertFalse(Arrays.equals(before, StateFiles.checkpoint(run)));
        requireFinite();
    }

    @Test void zeroDividedByZero() {
        try (TrainingState fresh = TrainingState.createInitialized(Examples.SMALL, model.spec(), on)) {
            byte[] before = StateFiles.checkpoint(fresh);
            trainer.evaluate(fresh, ordinary());
            Stepped skipped = trainer.optimStep(fresh,
                    Optional.of(new AdamParams(1e-3, 0.9, 0.95, 0, 0, 0))).complete();
            assertEquals(1, skipped.metrics().get("skipped_weights:sum"));
            assertArrayEquals(before, StateFiles.checkpoint(fresh));
        }
    }

    @Test void aLearningRateOf1e30Twice() {
        AdamParams far = new AdamParams(1e30, 0.9, 0.95, 1e-8, 0.01, 0);
        for (int i = 0; i < 3; i++) {
            Evaluated evaluated = trainer.evaluate(run, ordinary());
            requireNumbers(evaluated.metrics());
            for (float[] values : evaluated.logprobs())
                for (float value : values) assertTrue(Float.isFinite(value));
            requireNumbers(step(far).metrics());
            requireFinite();
        }
        assertEquals(1, step(far, 1).metrics().get("skipped_steps:sum"));
    }

    private Stepped step(AdamParams params, int operations) {
        for (int i = 0; i < operations; i++) trainer.evaluate(run, ordinary());
        return step(params);
    }

    /// A recovery point keeps the spoilt sum: a run that is opened again skips the same step.
    @Test void aRecoveryPointBetweenTheOperationAndTheStepGivesTheSameBits() {
        trainer.evaluate(run, sixTokens(LossFunction.IMPORTANCE_SAMPLING, -120, 1));
        byte[] point = StateFiles.point(run);
        try (TrainingState again = StateFiles.restore(point, model.spec(), on)) {
            assertArrayEquals(point, StateFiles.point(again));
            Stepped other = trainer.optimStep(again, Optional.of(STEP)).complete();
            assertEquals(1, other.metrics().get("skipped_steps:sum"));
            assertEquals(step(STEP), other);
            assertArrayEquals(StateFiles.point(run), StateFiles.point(again));
        }
    }

    /// Runs that share passes with a spoilt one have the bits that they have alone.
    @Test void otherRunsOfThePassKeepTheirBits() {
        try (TrainingState alone = Examples.run(Examples.LARGE, model);
                TrainingState beside = Examples.run(Examples.LARGE, model)) {
            ForwardBackward operation = Examples.operation(model, 3, 2, false);
            Evaluated expected = trainer.evaluate(alone, operation);
            ForwardBackward bad = sixTokens(LossFunction.IMPORTANCE_SAMPLING, -120, 1);
            try (Evaluation spoilt = trainer.begin(run, bad);
                    Evaluation good = trainer.begin(beside, operation)) {
                trainer.pass(List.of(spoilt, good));
                assertEquals(1, spoilt.finish().metrics().get("non_finite:sum"));
                assertEquals(expected.metrics(), good.finish().metrics());
            }
            assertArrayEquals(StateFiles.point(alone), StateFiles.point(beside));
        }
    }

    @Test void operationsFailAndChangeNothingWhereTheSettingSaysSo() {
        Trainer failing = new Trainer(model, NonFinite.FAIL);
        failing.evaluate(run, ordinary());
        byte[] before = StateFiles.point(run);
        for (ForwardBackward bad : List.of(sixTokens(LossFunction.IMPORTANCE_SAMPLING, -120, 1),
                sixTokens(LossFunction.PPO, -2000, -1)))
            refused("1 tokens", () -> failing.evaluate(run, bad));
        assertArrayEquals(before, StateFiles.point(run));
        refused("weights", () -> failing.optimStep(run,
                Optional.of(new AdamParams(1e39, 0.9, 0.95, 1e-8, 0, 0))).complete());
        assertArrayEquals(before, StateFiles.point(run));
        assertEquals(1, failing.optimStep(run, Optional.of(STEP)).complete().step());
    }

    private static void refused(String message, Runnable operation) {
        Refused refused = assertThrows(Refused.class, operation::run);
        assertEquals("non_finite", refused.fault().code());
        assertTrue(refused.fault().message().contains(message), refused.fault().message());
    }

    /// Sums in fp32 of finite gradients may overflow.
    @Test void twoGradientsWhoseSumOverflows() {
        for (int i = 0; i < 2; i++) run.accumulate(filled());
        Stepped skipped = step(CLIPPED);
        assertEquals(1, skipped.metrics().get("skipped_gradient:sum"));
        assertEquals(Double.MAX_VALUE, skipped.metrics().get("grad_norm"));
        requireFinite();
    }

    private Factors filled() {
        Factors gradient = run.allocateGradient();
        for (Tensor slab : gradient.slabs()) on.fill(slab, 3e38f);
        return gradient;
    }
}
