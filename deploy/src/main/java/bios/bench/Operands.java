package bios.bench;

import bios.worker.device.KeyValues;
import bios.worker.device.PagePool;
import bios.worker.device.Sequence;
import bios.worker.device.Sequences;
import bios.worker.device.Tensor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.RecordComponent;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// The data that a verb of the device reads and writes: the tensors among its arguments, also in lists,
/// optionals and records, and the pages of keys and values of its sequences.
///
/// @param pageBytes bytes of the keys and values of one layer that attention reads from pages
record Operands(List<Tensor> tensors, double pageBytes) {

    static Operands of(Object[] arguments) {
        Found found = new Found();
        if (arguments != null) for (Object argument : arguments) found.take(argument, 0);
        return new Operands(found.tensors, found.pageBytes());
    }

    /// Bytes of all tensors and pages.
    double bytes() {
        return pageBytes + tensors.stream().mapToDouble(t -> (double) t.dtype().bytes() * t.elements()).sum();
    }

    private static final class Found {
        private static final int DEEPEST = 4;

        final List<Tensor> tensors = new ArrayList<>();
        Optional<PagePool> pool = Optional.empty();
        long positions;

        void take(Object argument, int depth) {
            switch (argument) {
                case null -> {}
                case Tensor tensor -> tensors.add(tensor);
                case KeyValues.Paged paged -> pool = Optional.of(paged.pool());
                case Sequences all ->
                    positions = all.sequences().stream().mapToLong(Found::positions).sum();
                case Optional<?> some -> some.ifPresent(value -> take(value, depth));
                case Iterable<?> all -> all.forEach(value -> take(value, depth));
                case Record parts when depth < DEEPEST -> open(parts, depth + 1);
                case Object _ -> {}
            }
        }

        private static long positions(Sequence sequence) {
            return (long) sequence.position() + sequence.count();
        }

        double pageBytes() {
            if (pool.isEmpty()) return 0;
            PagePool.Format format = pool.get().format();
            return 2.0 * positions * format.kvHeads() * format.headDim() * format.dtype().bytes();
        }

        private void open(Record parts, int depth) {
            for (RecordComponent part : parts.getClass().getRecordComponents())
                try {
                    part.getAccessor().setAccessible(true);
                    take(part.getAccessor().invoke(parts), depth);
                } catch (IllegalAccessException | InvocationTargetException | RuntimeException _) {
                    // inaccessible records are not counted
                }
        }
    }
}
