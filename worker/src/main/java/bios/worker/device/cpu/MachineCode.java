package bios.worker.device.cpu;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.Arrays;

/// Memory for machine code: written first, then made executable and read-only. It is never freed, because
/// kernels are kept for the life of the process.
@SuppressWarnings("restricted")
final class MachineCode {
    private MachineCode() {}

    /// Whether the system lets this process make memory executable; hardened systems do not.
    static boolean allowed() {
        try {
            var to = new Assembler();
            to.leave();
            place(to.code());
            return true;
        } catch (IllegalStateException _) {
            return false;
        }
    }

    /// A function of `arguments` longs that returns nothing. IllegalStateException if the system does not
    /// allow new code.
    static MethodHandle function(byte[] code, int arguments) {
        MemoryLayout[] longs = new MemoryLayout[arguments];
        Arrays.fill(longs, JAVA_LONG);
        return Linker.nativeLinker().downcallHandle(MemorySegment.ofAddress(place(code)),
                FunctionDescriptor.ofVoid(longs));
    }

    /// Copies code to executable memory and returns its address.
    static long place(byte[] code) {
        long bytes = (code.length + Linux.PAGE - 1) / Linux.PAGE * Linux.PAGE;
        var at = Linux.map(bytes);
        MemorySegment.copy(code, 0, at.reinterpret(bytes, Arena.global(), null), ValueLayout.JAVA_BYTE, 0,
                code.length);
        Linux.makeExecutable(at, bytes);
        return at.address();
    }
}
