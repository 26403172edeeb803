package bios.worker.device.cpu;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.Arrays;

/// Memory that holds machine code: written first, executable and no longer writable then. Never given back, because
/// code of a kernel is kept for the life of the process.
@SuppressWarnings("restricted")
final class MachineCode {
    private static final int READ = 1, WRITE = 2, EXECUTE = 4;
    private static final int PRIVATE = 2, ANONYMOUS = 0x20;
    private static final int DONT_NEED = 4;
    private static final long PAGE = 4096;

    private MachineCode() {}

    private static final class Linux {
        static final Linker LINKER = Linker.nativeLinker();
        static final MethodHandle MMAP = function("mmap", ADDRESS, ADDRESS, JAVA_LONG, JAVA_INT, JAVA_INT,
                JAVA_INT, JAVA_LONG);
        static final MethodHandle MPROTECT = function("mprotect", JAVA_INT, ADDRESS, JAVA_LONG, JAVA_INT);
        static final MethodHandle MADVISE = function("madvise", JAVA_INT, ADDRESS, JAVA_LONG, JAVA_INT);

        private static MethodHandle function(String name, MemoryLayout result, MemoryLayout... arguments) {
            return LINKER.downcallHandle(LINKER.defaultLookup().findOrThrow(name),
                    FunctionDescriptor.of(result, arguments));
        }
    }

    /// A function of `arguments` longs that returns nothing. IllegalStateException when the system allows
    /// no new code.
    static MethodHandle function(byte[] code, int arguments) {
        MemoryLayout[] longs = new MemoryLayout[arguments];
        Arrays.fill(longs, JAVA_LONG);
        return Linux.LINKER.downcallHandle(MemorySegment.ofAddress(place(code)),
                FunctionDescriptor.ofVoid(longs));
    }

    /// The address of the code, which can be run.
    static long place(byte[] code) {
        long bytes = (code.length + PAGE - 1) / PAGE * PAGE;
        try {
            var at = (MemorySegment) Linux.MMAP.invokeExact(MemorySegment.NULL, bytes, READ | WRITE,
                    PRIVATE | ANONYMOUS, -1, 0L);
            if (at.address() == -1) throw new IllegalStateException("no memory for code");
            var memory = at.reinterpret(bytes, Arena.global(), null);
            MemorySegment.copy(code, 0, memory, ValueLayout.JAVA_BYTE, 0, code.length);
            if ((int) Linux.MPROTECT.invokeExact(at, bytes, READ | EXECUTE) != 0)
                throw new IllegalStateException("memory cannot be made executable");
            return at.address();
        } catch (RuntimeException | Error e) {
            throw e;
        } catch (Throwable t) {
            throw new IllegalStateException(t);
        }
    }

    /// Lets go of the pages of a mapped file in memory; they are read again when they are looked at again.
    static void letGo(MemorySegment mapped) {
        long from = (mapped.address() + PAGE - 1) / PAGE * PAGE;
        long end = (mapped.address() + mapped.byteSize()) / PAGE * PAGE;
        if (from >= end) return;
        try {
            int status = (int) Linux.MADVISE.invokeExact(MemorySegment.ofAddress(from), end - from, DONT_NEED);
            if (status != 0) throw new IllegalStateException("madvise: status " + status);
        } catch (RuntimeException | Error e) {
            throw e;
        } catch (Throwable t) {
            throw new IllegalStateException(t);
        }
    }
}
