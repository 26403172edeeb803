package bios.bench;

import bios.worker.device.AttentionShape;
import bios.worker.device.Span;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.RecordComponent;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// The operands of a verb of the device, found wherever they are among its arguments: in lists, optionals and
/// records too.
record Operands(List<Tensor> tensors, List<Weight> weights, List<Span> spans,
        Optional<AttentionShape> shape) {

    static Operands of(Object[] arguments) {
        Found found = new Found();
        if (arguments != null) for (Object argument : arguments) found.take(argument, 0);
        return new Operands(found.tensors, found.weights, found.spans, Optional.ofNullable(found.shape));
    }

    /// Bytes of all tensors, each counted once.
    double bytes() {
        return tensors.stream().mapToDouble(t -> 4.0 * t.elements()).sum();
    }

    /// Operations of one product of causal attention: 2 · headDim for each query and key that meet.
    double attention() {
        if (shape.isEmpty()) return 0;
        double pairs = 0;
        for (Span span : spans) pairs += span.count() * (span.position() + 0.5 * span.count());
        return 2.0 * shape.get().heads() * shape.get().headDim() * pairs;
    }

    private static final class Found {
        private static final int DEEPEST = 4;

        final List<Tensor> tensors = new ArrayList<>();
        final List<Weight> weights = new ArrayList<>();
        final List<Span> spans = new ArrayList<>();
        AttentionShape shape;

        void take(Object argument, int depth) {
            switch (argument) {
                case null -> {}
                case Tensor tensor -> tensors.add(tensor);
                case Weight weight -> weights.add(weight);
                case Span span -> spans.add(span);
                case AttentionShape attention -> shape = attention;
                case Optional<?> some -> some.ifPresent(value -> take(value, depth));
                case Iterable<?> all -> all.forEach(value -> take(value, depth));
                case Record parts when depth < DEEPEST -> open(parts, depth + 1);
                case Object _ -> {}
            }
        }

        private void open(Record parts, int depth) {
            for (RecordComponent part : parts.getClass().getRecordComponents())
                try {
                    part.getAccessor().setAccessible(true);
                    take(part.getAccessor().invoke(parts), depth);
                } catch (IllegalAccessException | InvocationTargetException | RuntimeException _) {
                    // what cannot be looked into is not counted
                }
        }
    }
}
