package bios.worker.device.cpu;

import java.lang.invoke.MethodHandle;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/// The machine code of this process, made when it is first asked for. A kernel is an address; [#call] runs it.
final class Kernels {
    private static final Map<Record, Long> MADE = new ConcurrentHashMap<>();
    private static final MethodHandle CALL = MachineCode.function(springboard(), GemmKernel.ARGUMENTS + 1);

    private Kernels() {}

    /// Goes on at the address that is the last argument: with one constant handle for all kernels, a call is cheap.
    private static byte[] springboard() {
        var to = new Assembler();
        to.jumpTo(Assembler.Address.of(Assembler.RSP, 8 * (1 + GemmKernel.ARGUMENTS - 6)));
        return to.code();
    }

    static long of(GemmKernel kernel) {
        return MADE.computeIfAbsent(kernel, _ -> MachineCode.place(kernel.code()));
    }

    static long of(PanelKernel kernel) {
        return MADE.computeIfAbsent(kernel, _ -> MachineCode.place(kernel.code()));
    }

    /// Runs a [PanelKernel].
    static void panel(long kernel, long from, long fromStride, long to, long toStride, long count,
            long fromBlock, long toBlock) {
        call(kernel, from, fromStride, to, toStride, count, fromBlock, toBlock, 0, 0, 0, 0);
    }

    /// Runs a [GemmKernel].
    static void call(long kernel, long a, long aStride, long b, long bStep, long c, long cStride, long steps,
            long slivers, long bSliver, long lastMask, float factor) {
        try {
            CALL.invokeExact(a, aStride, b, bStep, c, cStride, steps, slivers, bSliver, lastMask,
                    (long) Float.floatToRawIntBits(factor) & 0xffffffffL, kernel);
        } catch (RuntimeException | Error e) {
            throw e;
        } catch (Throwable t) {
            throw new IllegalStateException(t);
        }
    }
}
