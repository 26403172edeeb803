package bios.worker.device.cpu;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/// Transposes of fp32 matrices, by a kernel for whole blocks of 16 by 16 and element by element for the rest.
final class Transposes {
    private static final int BLOCK = 16;

    private Transposes() {}

    /// n rounded up to whole blocks.
    static int padded(int n) {
        return (n + BLOCK - 1) / BLOCK * BLOCK;
    }

    /// to ← fromᵀ; `stride` is the distance in bytes between rows of `to`.
    static void transpose(MemorySegment to, long stride, HostTensor from) {
        long kernel = Kernels.of(PanelKernel.Form.TRANSPOSE);
        int across = from.columns() / BLOCK;
        int down = from.rows() / BLOCK;
        for (int i = 0; i < across && down > 0; i++)
            Kernels.panel(kernel, from.memory().address() + 4L * BLOCK * i, 4L * from.stride(),
                    to.address() + stride * BLOCK * i, stride, down, 4L * BLOCK * from.stride(), 4L * BLOCK);
        edges(to, stride, from, across, down);
    }

    /// The same for rows that are not in a cache: they are read in order, and the next ones are prefetched.
    ///
    /// @param next address of the rows to prefetch after the last ones, of the same stride
    static void transpose(MemorySegment to, long stride, HostTensor from, long next) {
        long kernel = Kernels.of(PanelKernel.Form.TRANSPOSE_AHEAD);
        int across = from.columns() / BLOCK;
        int down = from.rows() / BLOCK;
        long rows = 4L * BLOCK * from.stride();
        for (int i = 0; i < down && across > 0; i++) {
            long at = from.memory().address() + i * rows;
            Kernels.panel(kernel, at, 4L * from.stride(), to.address() + 4L * BLOCK * i, stride, across,
                    4L * BLOCK, stride * BLOCK, i + 1 < down ? rows : next - at);
        }
        edges(to, stride, from, across, down);
    }

    /// The elements outside whole blocks.
    private static void edges(MemorySegment to, long stride, HostTensor from, int across, int down) {
        for (int row = 0; row < from.rows(); row++)
            for (int column = row < down * BLOCK ? across * BLOCK : 0; column < from.columns(); column++)
                to.set(ValueLayout.JAVA_FLOAT, stride * column + 4L * row,
                        from.memory().get(ValueLayout.JAVA_FLOAT, 4 * ((long) row * from.stride() + column)));
    }
}
