package bios.worker.train;

import static bios.worker.device.TestDevices.read;
import static bios.worker.device.TestDevices.write;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.model.TargetModule;
import bios.protocol.run.Operation.ForwardBackward;
import bios.worker.adapter.Factors;
import bios.worker.adapter.TrainingState;
import bios.worker.device.Device;
import bios.worker.device.Tensor;
import bios.worker.device.TestDevices;
import bios.worker.model.BaseModel;
import bios.worker.model.Golden;
import bios.worker.model.RunBatch;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.params.Parameter;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

@ParameterizedClass @MethodSource("bios.worker.device.TestDevices#paths")
class ModelGradientTest {
    @Parameter private String path;

    /// Every A and B of every layer and of the head is moved along its own gradient, by a step that is small
    /// enough for the loss to be linear and large enough for fp32 to resolve the difference.
    @ParameterizedTest @ValueSource(strings = {"qwen3", "llama-biases", "qwen2-sliding"})
    void backwardAgreesWithFiniteDifferencesEverywhere(String name) {
        try (Device on = TestDevices.open(path, 2); BaseModel model = Golden.of(name).load(on);
                TrainingState run = Examples.run(Examples.SMALL, model)) {
            ForwardBackward operation = Examples.operation(model, 5, 4, false);
            RunBatch batch = new Trainer(model).begin(run, operation).nextBatch();
            Factors gradient = run.allocateGradient();
            model.runPass(List.of(batch), List.of(Optional.of(gradient)));
            for (int layer = 0; layer <= model.spec().layers(); layer++)
                for (TargetModule target : TargetModule.values()) {
                    if (run.adapter().factor(layer, target).isEmpty()) continue;
                    check(model, run, operation, run.adapter().factor(layer, target).get().a(),
                            gradient.at(layer, target).orElseThrow().a(), target + "A " + layer);
                    check(model, run, operation, run.adapter().factor(layer, target).get().b(),
                            gradient.at(layer, target).orElseThrow().b(), target + "B " + layer);
                }
            gradient.close();
        }
    }

    private static void check(BaseModel model, TrainingState run, ForwardBackward operation, Tensor weight,
            Tensor gradient, String what) {
        Device on = model.device();
        float[] w = read(on, weight);
        float[] g = read(on, gradient);
        double norm = 0;
        for (float v : g) norm += (double) v * v;
        norm = Math.sqrt(norm);
        assertTrue(norm > 0, what);
        double step = Math.min(2e-3, 0.05 / norm);
        double up = moved(model, run, operation, weight, w, g, step / norm);
        double down = moved(model, run, operation, weight, w, g, -step / norm);
        write(on, weight, w);
        assertEquals(norm, (up - down) / (2 * step), 2e-2 * norm + 1e-4 / step, what);
    }

    private static double moved(BaseModel model, TrainingState run, ForwardBackward operation, Tensor weight,
            float[] w, float[] g, double by) {
        float[] there = new float[w.length];
        for (int i = 0; i < w.length; i++) there[i] = (float) (w[i] + by * g[i]);
        write(model.device(), weight, there);
        ForwardBackward forward = new ForwardBackward(operation.data(), operation.loss(),
                operation.settings(), true);
        return new Trainer(model).evaluate(run, forward).metrics().get("loss:sum");
    }
}
