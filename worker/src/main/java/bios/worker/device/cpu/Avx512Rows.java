package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.cpu.RowKernel.Kind;
import bios.worker.kernel.LogSoftmax;
import bios.worker.kernel.Sampling;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/// The verbs on rows, implemented by [RowKernel].
final class Avx512Rows implements RowVerbs {
    private static final ValueLayout.OfFloat FLOAT = ValueLayout.JAVA_FLOAT;
    private static final ValueLayout.OfDouble DOUBLE = ValueLayout.JAVA_DOUBLE;
    /// Bytes of each thread's buffer for results of a kernel.
    private static final long ROOM = 256;

    private final Pool pool;
    private final MemorySegment[] rooms;
    private final NativeBuffer[] buffers;

    Avx512Rows(Pool pool, Memory memory) {
        this.pool = pool;
        rooms = new MemorySegment[pool.size()];
        buffers = NativeBuffer.each(pool.size(), memory);
        for (int i = 0; i < rooms.length; i++) rooms[i] = buffers[i].atLeast(ROOM);
    }

    private static long at(HostTensor t, int row) {
        return t.memory().address() + 4L * row * t.stride();
    }

    @Override public void add(HostTensor y, HostTensor x) {
        RowVerbs.sameShape(y, x);
        int n = y.columns();
        pool.rows(y.rows(), n, 2, (row, _) -> Kernels.along(Kind.ADD, at(y, row), at(x, row), 0, 0, 0, n));
    }

    /// Σ of the 16 doubles from byte `from`, in a fixed order.
    private static double sum(MemorySegment room, long from) {
        double sum = 0;
        for (int i = 0; i < 16; i++) sum += room.get(DOUBLE, from + 8L * i);
        return sum;
    }

    @Override public void rmsNorm(HostTensor y, HostTensor inverse, HostTensor x, HostTensor weight,
            float eps) {
        RowVerbs.sameShape(y, x);
        require(weight.columns() == x.columns() && inverse.rows() == x.rows(), "shapes of rmsNorm");
        int n = x.columns();
        pool.rows(x.rows(), n, 4, (row, member) -> {
            var room = rooms[member];
            Kernels.along(Kind.SUM_OF_SQUARES, room.address(), at(x, row), 0, 0, 0, n);
            Rows.set(inverse, row, (float) (1 / Math.sqrt(sum(room, 0) / n + eps)));
            Kernels.along(Kind.NORM, at(y, row), at(x, row), at(weight, 0), at(inverse, row), 0, n);
        });
    }

    @Override public void rmsNormBackwardAdd(HostTensor dx, HostTensor dy, HostTensor x, HostTensor inverse,
            HostTensor weight) {
        RowVerbs.sameShape(dx, x);
        RowVerbs.sameShape(dy, x);
        int n = x.columns();
        pool.rows(x.rows(), n, 6, (row, member) -> {
            var room = rooms[member];
            Kernels.along(Kind.SUM_OF_PRODUCTS, room.address(), at(dy, row), at(weight, 0), at(x, row), 0, n);
            float scale = Rows.get(inverse, row);
            float mean = (float) (sum(room, 0) / n * scale * scale);
            room.set(FLOAT, 0, scale);
            room.set(FLOAT, 4, mean);
            Kernels.along(Kind.NORM_BACKWARD, at(dx, row), at(dy, row), at(x, row), at(weight, 0),
                    room.address(), n);
        });
    }

    @Override public void rope(HostTensor x, int[] positions, int headDim, HostTensor cos, HostTensor sin) {
        turn(Kind.ROTATE, x, positions, headDim, cos, sin);
    }

    @Override public void ropeBackward(HostTensor dx, int[] positions, int headDim, HostTensor cos,
            HostTensor sin) {
        turn(Kind.ROTATE_BACK, dx, positions, headDim, cos, sin);
    }

    private void turn(Kind kind, HostTensor x, int[] positions, int headDim, HostTensor cos, HostTensor sin) {
        require(positions.length == x.rows() && x.columns() % headDim == 0, "shapes of rope");
        int half = headDim / 2;
        pool.rows(x.rows(), x.columns(), 4, (row, _) -> {
            require(positions[row] >= 0 && positions[row] < cos.rows(), "position %d of %d", positions[row],
                    cos.rows());
            for (int head = 0; head < x.columns(); head += headDim)
                Kernels.along(kind, at(x, row) + 4L * head, at(x, row) + 4L * (head + half),
                        at(cos, positions[row]),
                        at(sin, positions[row]), 0, half);
        });
    }

    @Override public void swiglu(HostTensor y, HostTensor gate, HostTensor up) {
        RowVerbs.sameShape(y, gate);
        RowVerbs.sameShape(y, up);
        int n = y.columns();
        pool.rows(y.rows(), n, 16, (row, _) ->
                Kernels.along(Kind.SWIGLU, at(y, row), at(gate, row), at(up, row), 0, 0, n));
    }

    @Override public void swigluBackward(HostTensor dgate, HostTensor dup, HostTensor dy, HostTensor gate,
            HostTensor up) {
        RowVerbs.sameShape(dgate, gate);
        RowVerbs.sameShape(dup, up);
        RowVerbs.sameShape(dy, gate);
        int n = dy.columns();
        pool.rows(dy.rows(), n, 16, (row, _) -> Kernels.along(Kind.SWIGLU_BACKWARD, at(dgate, row),
                at(dup, row), at(dy, row), at(gate, row), at(up, row), n));
    }

    @Override public void logSoftmaxAt(HostTensor logprobs, HostTensor lse, HostTensor logits,
            int[] targets) {
        RowVerbs.requireTargets(targets, logprobs, logits);
        int n = logits.columns();
        int each = logprobs.columns();
        pool.rows(logits.rows(), n, 16, (row, member) -> {
            var room = rooms[member];
            Kernels.along(Kind.LOG_SUM_EXP, at(logits, row), room.address(), 0, 0, 0, n);
            float all = (float) (room.get(FLOAT, 0) + Math.log(sum(room, 64)));
            Rows.set(lse, row, all);
            for (int k = 0; k < each; k++) {
                int target = targets[row * each + k];
                require(target >= 0 && target < n, "target %d of %d", target, n);
                Rows.set(logprobs, row, k, Rows.get(logits, row, target) - all);
            }
        });
    }

    @Override public void logSoftmaxBackward(HostTensor logits, HostTensor lse, int[] targets,
            HostTensor dlogprobs) {
        RowVerbs.requireTargets(targets, dlogprobs, logits);
        int n = logits.columns();
        int each = dlogprobs.columns();
        pool.rows(logits.rows(), n, 16, (row, member) -> {
            var room = rooms[member];
            float[] d = new float[each];
            Rows.load(d, dlogprobs, row);
            room.set(FLOAT, 0, Rows.get(lse, row));
            room.set(FLOAT, 4, -LogSoftmax.sum(d));
            Kernels.along(Kind.SCALED_EXP, at(logits, row), room.address(), 0, 0, 0, n);
            for (int k = 0; k < each; k++) {
                int target = targets[row * each + k];
                Rows.set(logits, row, target, Rows.get(logits, row, target) + d[k]);
            }
        });
    }

    @Override public void softmaxBlocks(HostTensor maxima, HostTensor sums, HostTensor logits) {
        RowVerbs.requireBlocks(maxima, sums, logits);
        int n = logits.columns();
        pool.rows(logits.rows(), n, 16, (row, member) -> {
            var room = rooms[member];
            for (int b = 0; b < maxima.columns(); b++) {
                int from = b * Sampling.BLOCK;
                Kernels.along(Kind.LOG_SUM_EXP, at(logits, row) + 4L * from, room.address(), 0, 0, 0,
                        Math.min(Sampling.BLOCK, n - from));
                float sum = (float) sum(room, 64);
                // beside a NaN the kernel's maximum may be any number, but its sum is NaN
                float max = Float.isNaN(sum) ? Float.NaN : room.get(FLOAT, 0);
                maxima.memory().set(FLOAT, 4 * ((long) row * maxima.stride() + b), max);
                sums.memory().set(FLOAT, 4 * ((long) row * sums.stride() + b), sum);
            }
        });
    }

    @Override public void close() {
        for (var buffer : buffers) buffer.close();
    }
}
