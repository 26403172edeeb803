package bios.worker.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.run.AdamParams;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation.ForwardBackward;
import bios.protocol.run.OperationResult.Evaluated;
import bios.protocol.run.TensorData;
import bios.worker.adapter.StateFiles;
import bios.worker.adapter.TrainingState;
import bios.worker.device.Device;
import bios.worker.device.cpu.CpuDevice;
import bios.worker.model.BaseModel;
import bios.worker.model.Golden;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

class TrainerTest {
    @Test void anOperationThatDoesNotFitTheModelIsRefusedAndChangesNothing() {
        try (Device on = new CpuDevice(1); BaseModel model = Golden.of("qwen3").load(on);
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
        try (Device on = new CpuDevice(1); BaseModel model = Golden.of("qwen3").load(on);
                TrainingState run = Examples.run(Examples.SMALL, model)) {
            Trainer trainer = new Trainer(model);
            assertEquals("no_gradient", assertThrows(Refused.class,
                    () -> trainer.optimStep(run, Optional.empty())).fault().code());
            trainer.evaluate(run, Examples.operation(model, 1, 2, true));
            assertEquals("no_gradient", assertThrows(Refused.class,
                    () -> trainer.optimStep(run, Optional.empty())).fault().code());
            trainer.evaluate(run, Examples.operation(model, 1, 2, false));
            AdamParams params = new AdamParams(0.01, 0.5, 0.6, 1e-8, 0, 0);
            assertEquals(1, trainer.optimStep(run, Optional.of(params)).step());
            assertEquals(params, run.settings());
            assertThrows(Refused.class, () -> trainer.optimStep(run, Optional.empty()));
        }
    }

    /// Out of memory at any of several moments leaves the run as it was, and every tensor given back.
    @Test void aFailureInTheMiddleChangesNothingAndLeaksNothing() {
        AtomicInteger live = new AtomicInteger();
        AtomicInteger fuse = new AtomicInteger(Integer.MAX_VALUE);
        try (Device cpu = new CpuDevice(1)) {
            Device on = failing(cpu, live, fuse);
            try (BaseModel model = Golden.of("qwen3").load(on);
                    TrainingState run = Examples.run(Examples.SMALL, model)) {
                Trainer trainer = new Trainer(model, 60);
                ForwardBackward operation = Examples.operation(model, 1, 4, false);
                trainer.evaluate(run, operation);
                byte[] before = StateFiles.point(run);
                int held = live.get();
                for (int at : new int[] {0, 1, 7, 60, 61, 150, 333}) {
                    fuse.set(at);
                    assertThrows(OutOfMemoryError.class, () -> trainer.evaluate(run, operation));
                    fuse.set(Integer.MAX_VALUE);
                    assertArrayEquals(before, StateFiles.point(run));
                    assertEquals(held, live.get());
                }
                Evaluated result = trainer.evaluate(run, operation);
                assertEquals(4, result.logprobs().size());
                assertEquals(2, run.accumulated());
            }
        }
    }

    /// A device that counts its tensors and, `fuse` allocations from now, is out of memory.
    private static Device failing(Device device, AtomicInteger live, AtomicInteger fuse) {
        return (Device) Proxy.newProxyInstance(Device.class.getClassLoader(), new Class<?>[] {Device.class},
                (_, method, arguments) -> {
                    boolean allocates = method.getName().equals("tensor")
                            || method.getName().equals("scratch");
                    if (allocates && fuse.getAndDecrement() == 0)
                        throw new OutOfMemoryError("as the test wants it");
                    try {
                        Object result = method.invoke(device, arguments);
                        if (method.getName().equals("tensor")) live.incrementAndGet();
                        if (method.getName().equals("free")) live.decrementAndGet();
                        return result;
                    } catch (InvocationTargetException e) {
                        throw e.getCause();
                    }
                });
    }

    @Test void lossesFollowTheirFormulas() {
        float[] l = {-1f, -2f, -0.5f, -3f};
        float[] q = {-1.5f, -1f, 0f, -3f};
        float[] a = {2f, -1f, 0f, -4f};
        Loss is = loss(LossFunction.IMPORTANCE_SAMPLING, Map.of(), q, a);
        float[] gradient = is.take(0, l);
        double expected = 0;
        for (int i = 0; i < 4; i++) {
            assertEquals(-Math.exp(l[i] - q[i]) * a[i], gradient[i], 1e-6);
            expected -= Math.exp(l[i] - q[i]) * a[i];
        }
        assertEquals(expected, is.sum(), 1e-9);
        assertEquals(3, is.weightSum(0));
        Loss ppo = loss(LossFunction.PPO,
                Map.of("clip_low_threshold", 0.8, "clip_high_threshold", 1.2), q, a);
        // r = 1.65, A > 0: clipped, flat; r = 0.37, A < 0: the clipped term is the
        // smaller, flat; A = 0; r = 1
        assertArrayEquals(new float[] {0, 0, 0, 4}, ppo.take(0, l));
        assertEquals(-(1.2 * 2 + 0.8 * -1 + 1 * -4), ppo.sum(), 1e-6);
        Loss far = loss(LossFunction.IMPORTANCE_SAMPLING, Map.of(), new float[] {-1e30f}, new float[] {0});
        assertArrayEquals(new float[] {0}, far.take(0, new float[] {0}));
        assertEquals(0, far.sum());
    }

    @Test void crossEntropyTakesItsWeightsOrOnes() {
        Datum given = Examples.datum(new int[2], new long[2], new float[] {0.5f, -2});
        Datum left = new Datum(new int[1], Map.of("target_tokens", TensorData.of(new long[1])));
        Loss loss = new Loss(LossFunction.CROSS_ENTROPY, Map.of(), List.of(given, left), 0);
        assertArrayEquals(new float[] {-0.5f, 2}, loss.take(0, new float[] {-4, -1}));
        assertArrayEquals(new float[] {-1}, loss.take(2, new float[] {-7}));
        assertEquals(2 - 2 + 7, loss.sum());
        assertEquals(-0.5, loss.weightSum(0));
    }

    private static Loss loss(LossFunction function, Map<String, Double> settings, float[] q, float[] a) {
        Datum datum = new Datum(new int[q.length],
                Map.of("logprobs", TensorData.of(q), "advantages", TensorData.of(a)));
        return new Loss(function, settings, List.of(datum), 0);
    }

    @Test void aRunThatIsTrainedLearns() {
        try (Device on = new CpuDevice(1); BaseModel model = Golden.of("llama-bf16").load(on);
                TrainingState run = TrainingState.fresh(Examples.LARGE, model.spec(), on)) {
            Trainer trainer = new Trainer(model);
            ForwardBackward operation = Examples.operation(model, 1, 2, false);
            double first = trainer.evaluate(run, operation).metrics().get("loss:sum");
            run.dropGradient();
            for (int i = 0; i < 30; i++) {
                trainer.evaluate(run, operation);
                trainer.optimStep(run, Optional.of(new AdamParams(1e-2, 0.9, 0.95, 1e-8, 0, 1)));
            }
            double last = trainer.evaluate(run, operation).metrics().get("loss:sum");
            assertTrue(last < 0.5 * first, first + " became " + last);
        }
    }

    @Test void tensorsOfAFreshRunAreThoseOfItsSeed() {
        try (Device on = new CpuDevice(1); BaseModel model = Golden.of("qwen3").load(on);
                TrainingState one = TrainingState.fresh(Examples.SMALL, model.spec(), on);
                TrainingState two = TrainingState.fresh(Examples.SMALL, model.spec(), on)) {
            assertArrayEquals(StateFiles.point(one), StateFiles.point(two));
            for (int layer = 0; layer <= model.spec().layers(); layer++)
                for (var target : Examples.SMALL.targets()) one.adapter().at(layer, target)
                        .ifPresent(factor -> {
                            double bound = 1 / Math.sqrt(factor.a().rows());
                            double sum = 0;
                            for (float v : on.read(factor.a())) {
                                assertTrue(Math.abs(v) <= bound);
                                sum += v * v;
                            }
                            assertEquals(bound * bound / 3, sum / factor.a().elements(), 0.3 * bound * bound,
                                    target + " is not uniform");
                            for (float v : on.read(factor.b())) assertEquals(0, v);
                        });
        }
    }}
