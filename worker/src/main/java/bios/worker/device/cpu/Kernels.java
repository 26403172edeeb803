package bios.worker.device.cpu;

import bios.worker.device.cpu.GemmKernel.Left;
import bios.worker.device.cpu.GemmKernel.Result;
import bios.worker.device.cpu.GemmKernel.Right;
import java.lang.invoke.MethodHandle;

/// The machine code of this process, generated at its first use. A kernel is an address; [#call] runs it.
final class Kernels {
    private static final MethodHandle CALL = MachineCode.function(entryPoint(), GemmKernel.ARGUMENTS + 1);
    // Addresses of the kernels by their parameters; 0 if not generated yet. Two threads may generate the same
    // one.
    private static final long[] GEMMS =
            new long[2 * (GemmKernel.MOST + 1) * 2 * 2 * 3 * 4];
    private static final long[] PANELS = new long[PanelKernel.Form.values().length];
    private static final long[] ROWS = new long[RowKernel.Kind.values().length];

    private Kernels() {}

    /// Code that jumps to the address in the last argument: the JVM compiles calls of one constant handle
    /// well.
    private static byte[] entryPoint() {
        var to = new Assembler();
        to.jumpTo(Assembler.Address.of(Assembler.RSP, 8 * (1 + GemmKernel.ARGUMENTS - 6)));
        return to.code();
    }

    static long gemm(int rows, int vectors, Left left, Right right, Result result) {
        return gemm(rows, vectors, left, right, result, false);
    }

    static long gemm(int rows, int vectors, Left left, Right right, Result result, boolean ahead) {
        int at = (((rows * 2 + vectors - 1) * 2 + left.ordinal()) * 3 + right.ordinal()) * 4
                + result.ordinal() + (ahead ? GEMMS.length / 2 : 0);
        if (GEMMS[at] == 0)
            GEMMS[at] = MachineCode.place(new GemmKernel(rows, vectors, left, right, result, ahead).code());
        return GEMMS[at];
    }

    static long of(PanelKernel.Form form) {
        if (PANELS[form.ordinal()] == 0)
            PANELS[form.ordinal()] = MachineCode.place(new PanelKernel(form).code());
        return PANELS[form.ordinal()];
    }

    static long of(RowKernel.Kind kind) {
        if (ROWS[kind.ordinal()] == 0) ROWS[kind.ordinal()] = MachineCode.place(new RowKernel(kind).code());
        return ROWS[kind.ordinal()];
    }

    /// Runs a [RowKernel]: its arguments in order.
    static void rows(long kernel, long a, long b, long c, long d, long e, long f, long g, long h) {
        call(kernel, a, b, c, d, e, f, g, h, 0, 0, 0);
    }

    /// Runs a [RowKernel] along a row of n elements.
    static void along(RowKernel.Kind kind, long a, long b, long c, long d, long e, int n) {
        rows(of(kind), a, b, c, d, e, n / 16, (1L << n % 16) - 1, 0);
    }

    /// Runs a [PanelKernel].
    static void panel(long kernel, long from, long fromStride, long to, long toStride, long count,
            long fromBlock, long toBlock) {
        panel(kernel, from, fromStride, to, toStride, count, fromBlock, toBlock, 0);
    }

    /// The same, with a prefetch distance in bytes.
    static void panel(long kernel, long from, long fromStride, long to, long toStride, long count,
            long fromBlock, long toBlock, long ahead) {
        call(kernel, from, fromStride, to, toStride, count, fromBlock, toBlock, ahead, 0, 0, 0);
    }

    /// Runs a [GemmKernel].
    static void call(long kernel, long a, long aStride, long b, long bStep, long c, long cStride, long steps,
            long slivers, long bSliver, long lastMask, float factor) {
        call(kernel, a, aStride, b, bStep, c, cStride, steps, slivers, bSliver, lastMask, factor, 0);
    }

    /// The same, with a prefetch distance of the weights in bytes.
    static void call(long kernel, long a, long aStride, long b, long bStep, long c, long cStride, long steps,
            long slivers, long bSliver, long lastMask, float factor, long ahead) {
        try {
            CALL.invokeExact(a, aStride, b, bStep, c, cStride, steps, slivers, bSliver, lastMask,
                    (long) Float.floatToRawIntBits(factor) & 0xffffffffL, ahead, kernel);
        } catch (RuntimeException | Error e) {
            throw e;
        } catch (Throwable t) {
            throw new IllegalStateException(t);
        }
    }
}
