package bios.worker.device.cpu;

import bios.worker.device.FrozenMatrix;
import bios.worker.device.FrozenMatrix.WeightType;
import bios.worker.device.Weight;
import bios.worker.kernel.HalfFloats;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/// A frozen matrix W `[out, in]` packed in slivers of 32 outputs, step by step: the form that [GemmKernel]
/// reads as the right factor of x·Wᵀ. A step is one input in fp32, or two adjacent inputs in bf16, as pairs.
/// One copy is used for both directions: for dy·W, panels are transposed when they are read.
final class Packed implements Weight {
    /// Outputs of a sliver.
    static final int SLIVER = 32;
    /// Bytes of a step: 32 fp32 or 32 pairs.
    static final int STEP = 128;
    private static final int BLOCK = 16;
    /// Kernels read whole blocks; the bytes beyond the last sliver are not used.
    private static final long MARGIN = 2L * BLOCK * STEP;

    private final MemorySegment memory;
    private final boolean pairs;
    private final int out;
    private final int in;
    private final int steps;

    private Packed(MemorySegment memory, boolean pairs, int out, int in, int steps) {
        this.memory = memory;
        this.pairs = pairs;
        this.out = out;
        this.in = in;
        this.steps = steps;
    }

    /// Packs a matrix; other element types than fp32 and bf16 are widened to fp32.
    static Packed of(FrozenMatrix matrix, Arena arena, Pool pool, ReadAhead ahead) {
        int slivers = (matrix.rows() + SLIVER - 1) / SLIVER;
        var memory = Linux.allocate(bytes(matrix), arena);
        var packed = new Packed(memory, pairs(matrix), matrix.rows(), matrix.columns(), steps(matrix));
        if (matrix.memory().isMapped()) ahead.prefetchAfter(matrix.memory());
        var scan = new FiniteScan(matrix);
        pool.runInOrder(slivers, (sliver, _) -> {
            scan.rows(sliver * SLIVER, SLIVER);
            packed.fill(sliver, matrix);
        });
        // the matrix is not read again, so its mapped pages are released
        if (matrix.memory().isMapped()) Linux.release(matrix.memory());
        scan.finish();
        return packed;
    }

    private static boolean pairs(FrozenMatrix matrix) {
        return matrix.dtype() == WeightType.BF16;
    }

    private static int steps(FrozenMatrix matrix) {
        return pairs(matrix) ? (matrix.columns() + 1) / 2 : matrix.columns();
    }

    /// Bytes of a matrix when it is packed.
    static long bytes(FrozenMatrix matrix) {
        return (long) Math.ceilDiv(matrix.rows(), SLIVER) * steps(matrix) * STEP + MARGIN;
    }

    @Override public int out() {
        return out;
    }

    @Override public int in() {
        return in;
    }

    /// Whether a step holds pairs of bf16.
    boolean pairs() {
        return pairs;
    }

    /// Steps of a sliver.
    int steps() {
        return steps;
    }

    /// Bytes of a sliver.
    long sliverBytes() {
        return (long) steps * STEP;
    }

    long address() {
        return memory.address();
    }

    private void fill(int sliver, FrozenMatrix from) {
        int rows = Math.min(SLIVER, out - sliver * SLIVER);
        int blocks = from.dtype() == WeightType.F16 || in % 2 == 1 && pairs ? 0 : steps / BLOCK;
        int whole = rows / BLOCK * BLOCK;
        long rowBytes = (long) in * from.dtype().bytes();
        for (int row = 0; row < whole && blocks > 0; row += BLOCK)
            Kernels.panel(Kernels.of(PanelKernel.Form.TRANSPOSE),
                    from.memory().address() + (long) (sliver * SLIVER + row) * rowBytes, rowBytes,
                    memory.address() + sliver * sliverBytes() + 4L * row, STEP, blocks, 4L * BLOCK,
                    (long) BLOCK * STEP);
        for (int row = 0; row < rows; row++)
            fillRow(sliver, row, row < whole ? blocks * BLOCK : 0, from);
    }

    /// Packs the steps from `first` on of one row, one by one.
    private void fillRow(int sliver, int row, int first, FrozenMatrix from) {
        float[] values = null;
        for (int step = first; step < steps; step++) {
            if (values == null) {
                values = new float[in + 1];
                HalfFloats.row(values, from, sliver * SLIVER + row);
            }
            long at = sliver * sliverBytes() + (long) step * STEP + 4L * row;
            if (pairs) memory.set(DWORD, at, HalfFloats.toBf16(values[2 * step]) & 0xffff
                    | HalfFloats.toBf16(values[2 * step + 1]) << 16);
            else memory.set(ValueLayout.JAVA_FLOAT, at, values[step]);
        }
    }

    private static final ValueLayout.OfInt DWORD = ValueLayout.JAVA_INT.withOrder(ByteOrder.LITTLE_ENDIAN);

    // ---- panels ----

    /// to ← columns `sliver·32` and after of Wᵀ, `count` slivers, inputs `from` (even) to `end`, in fp32:
    /// slivers of `length` steps.
    void forwardPanel(long to, int sliver, int count, int from, int end, int length) {
        long widen = Kernels.of(PanelKernel.Form.WIDEN);
        for (int s = 0; s < count; s++)
            Kernels.panel(widen, address() + (sliver + s) * sliverBytes() + from / 2 * (long) STEP, 0,
                    to + (long) s * length * STEP, 0, (end - from + 1) / 2, STEP, 2L * STEP);
    }

    /// to ← columns `32·sliver` and after of W, `count` slivers, outputs `from` to `end` (multiples of 16,
    /// but for the last), in fp32: slivers of `length` steps.
    void backwardPanel(long to, int sliver, int count, int from, int end, int length) {
        var form = pairs ? PanelKernel.Form.TRANSPOSE_WIDEN : PanelKernel.Form.TRANSPOSE;
        long kernel = Kernels.of(form);
        int blockSteps = pairs ? SLIVER / 2 : SLIVER;
        for (int n = from; n < end; n += BLOCK) {
            long source = address() + n / SLIVER * sliverBytes() + n % SLIVER * 4L;
            long target = to + (long) (n - from) * STEP;
            for (int half = 0; half < (pairs ? 1 : 2); half++)
                Kernels.panel(kernel, source + ((long) sliver * blockSteps + (long) half * BLOCK) * STEP,
                STEP,
                        target + half * 64L, STEP, count, (long) blockSteps * STEP, (long) length * STEP);
        }
    }

    /// As [#backwardPanel], as pairs of neighbouring outputs: slivers of `length` steps.
    void backwardPairs(long to, int sliver, int count, int from, int end, int length) {
        long kernel = Kernels.of(PanelKernel.Form.TRANSPOSE_PAIRS);
        for (int n = from; n < end; n += BLOCK)
            Kernels.panel(kernel, address() + n / SLIVER * sliverBytes() + n % SLIVER * 4L
                    + (long) sliver * BLOCK * STEP, STEP, to + (long) (n - from) / 2 * STEP, STEP, count,
                    (long) BLOCK * STEP, (long) length * STEP);
    }
}
