package bios.worker.device.cpu;

import bios.worker.device.Tensor;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/// Transposes of fp32 matrices, in blocks of 16 by 16 where they are whole.
final class Transposes {
    private static final int BLOCK = 16;

    private Transposes() {}

    /// n in whole blocks.
    static int padded(int n) {
        return (n + BLOCK - 1) / BLOCK * BLOCK;
    }

    /// to ← fromᵀ, rows of `to` so many bytes apart.
    static void transpose(MemorySegment to, long stride, Tensor from) {
        long kernel = Kernels.of(PanelKernel.Form.TRANSPOSE);
        int across = from.columns() / BLOCK;
        int down = from.rows() / BLOCK;
        for (int i = 0; i < across && down > 0; i++)
            Kernels.panel(kernel, from.memory().address() + 4L * BLOCK * i, 4L * from.stride(),
                    to.address() + stride * BLOCK * i, stride, down, 4L * BLOCK * from.stride(), 4L * BLOCK);
        for (int row = 0; row < from.rows(); row++)
            for (int column = row < down * BLOCK ? across * BLOCK : 0; column < from.columns(); column++)
                to.set(ValueLayout.JAVA_FLOAT, stride * column + 4L * row,
                        from.memory().get(ValueLayout.JAVA_FLOAT, 4 * ((long) row * from.stride() + column)));
    }
}
