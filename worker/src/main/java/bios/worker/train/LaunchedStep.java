package bios.worker.train;

import bios.protocol.run.OperationResult.Stepped;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.DoubleSupplier;

/// An optimizer step that the device works on.
public final class LaunchedStep {
    private final long step;
    private final double learningRate;
    private final DoubleSupplier norm;

    /// @param step its number, from 1
    /// @param norm waits for the norm of the gradient
    LaunchedStep(long step, double learningRate, DoubleSupplier norm) {
        this.step = step;
        this.learningRate = learningRate;
        this.norm = norm;
    }

    /// Waits for the norm of the gradient. Any thread.
    public Stepped complete() {
        return new Stepped(step, new TreeMap<>(Map.of("grad_norm", norm.getAsDouble(),
                "learning_rate", learningRate)));
    }
}
