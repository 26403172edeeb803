package bios.worker.kernel;

import static org.junit.jupiter.api.Assertions.assertEquals;

import bios.protocol.run.LossFunction;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// The losses: values by their formulas, derivatives by finite differences.
final class LossesTest {
    private static Losses losses(LossFunction function) {
        return new Losses(function, 0.8, 1.3, 0.5);
    }

    @Test void valuesFollowTheTableOfFormulas() {
        double l = -1.25, q = -1.0, a = 2;
        double r = Math.exp(l - q);         // 0.7788: below the lower threshold
        assertEquals(-a * l, losses(LossFunction.CROSS_ENTROPY).value(l, 0, a));
        assertEquals(-r * a, losses(LossFunction.IMPORTANCE_SAMPLING).value(l, q, a));
        assertEquals(-r * a, losses(LossFunction.PPO).value(l, q, a));
        assertEquals(0.8 * 2, losses(LossFunction.PPO).value(l, q, -a));
        assertEquals(-0.8 * a * l, losses(LossFunction.CISPO).value(l, q, a));
        assertEquals(-(l * a - 0.25 * 0.0625), losses(LossFunction.DRO).value(l, q, a));
    }

    @Test void clippedPpoHasNoGradient() {
        assertEquals(0, losses(LossFunction.PPO).derivative(-1.25, -1, -2));
        assertEquals(0, losses(LossFunction.PPO).derivative(-0.5, -1, 2));
        assertEquals(-2 * Math.exp(-0.25), losses(LossFunction.PPO).derivative(-1.25, -1, 2));
    }

    @ParameterizedTest @EnumSource void derivativesAgreeWithFiniteDifferences(LossFunction function) {
        var random = new SplittableRandom(1);
        var losses = losses(function);
        for (int i = 0; i < 500; i++) {
            double l = -3 * random.nextDouble(), q = l + random.nextDouble(-0.6, 0.6);
            double a = random.nextDouble(-2, 2), h = 1e-6;
            double r = Math.exp(l - q);
            if (Math.abs(r - 0.8) < 1e-4 || Math.abs(r - 1.3) < 1e-4) continue;     // kinks
            double slope = (losses.value(l + h, q, a) - losses.value(l - h, q, a)) / (2 * h);
            // cispo's clipped ratio is a constant, by definition
            if (function == LossFunction.CISPO)
                slope = -Math.clamp(r, 0.8, 1.3) * a;
            assertEquals(slope, losses.derivative(l, q, a), 1e-6);
        }
    }

    @ParameterizedTest @EnumSource void aPositionWithoutWeightContributesNothing(LossFunction function) {
        boolean square = function == LossFunction.DRO;
        assertEquals(square ? 0.25 * 4 : 0, losses(function).value(2, 0, 0));
        assertEquals(square ? 0.5 * 2 : 0, losses(function).derivative(2, 0, 0));
        if (!square) assertEquals(0, losses(function).value(1e4, 0, 0));
    }
}
