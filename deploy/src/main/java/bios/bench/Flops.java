package bios.bench;

import bios.worker.device.AttentionShape;
import bios.worker.device.FactorTable.Factor;
import bios.worker.device.Sequence;
import bios.worker.device.Sequences;
import bios.worker.device.Slot;
import bios.worker.device.Slots;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import java.util.List;
import java.util.Optional;
import java.util.function.ToDoubleFunction;

/// Floating-point operations of a verb's matrix products, computed from the shapes of its operands; a
/// multiplication and an addition count as two. 0 for verbs without a product.
final class Flops {
    private Flops() {}

    /// @param arguments as [bios.worker.device.Device] declares them
    static double of(String verb, Object[] arguments) {
        return switch (verb) {
            case "lowRank" -> lowRank((Slots) arguments[2], (List<?>) arguments[3]);
            case "project" -> product((Tensor) arguments[0], (Weight) arguments[2])
                    + corrections((Slots) arguments[5], (Integer) arguments[6], f -> f.b().elements());
            case "projectBack" -> projectBack(arguments);
            case "attention" -> 2 * attention(arguments);
            case "attentionBackward" -> 4 * attention(arguments);
            case String _ -> 0;
        };
    }

    private static double product(Tensor rows, Weight weight) {
        return 2.0 * rows.rows() * weight.in() * weight.out();
    }

    private static double lowRank(Slots slots, List<?> sites) {
        double flops = 0;
        for (Object site : sites) flops += corrections(slots, (Integer) site, f -> f.a().elements());
        return flops;
    }

    /// dlow and dB each need one product with a matrix of B's shape, dA and dx each one of A's shape.
    private static double projectBack(Object[] arguments) {
        Optional<?> dx = (Optional<?>) arguments[0];
        double base = dx.map(t -> product((Tensor) t, (Weight) arguments[4])).orElse(0.0);
        return base + corrections((Slots) arguments[5], (Integer) arguments[6],
                f -> 2.0 * f.b().elements() + (dx.isPresent() ? 2.0 : 1.0) * f.a().elements());
    }

    /// 2 · rows · elements of the factors that the slots have at a site.
    private static double corrections(Slots slots, int site, ToDoubleFunction<Factor> elements) {
        double flops = 0;
        for (Slot slot : slots.slots()) {
            Optional<Factor> factor = slot.weights().at(site);
            if (factor.isPresent()) flops += 2.0 * slot.count() * elements.applyAsDouble(factor.get());
        }
        return flops;
    }

    /// Operations of one product of causal attention: 2 · headDim for each pair of a query and a visible key.
    private static double attention(Object[] arguments) {
        double pairs = 0;
        AttentionShape shape = null;
        for (Object argument : arguments) {
            if (argument instanceof Sequences all)
                for (Sequence s : all.sequences()) pairs += s.count() * (s.position() + 0.5 * s.count());
            if (argument instanceof AttentionShape given) shape = given;
        }
        return shape == null ? 0 : 2.0 * shape.heads() * shape.headDim() * pairs;
    }
}
