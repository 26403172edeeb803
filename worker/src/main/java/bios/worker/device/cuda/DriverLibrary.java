package bios.worker.device.cuda;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.util.Optional;

/// The driver's library. JCuda's native half is linked with it, so JCuda is touched only after it is loaded:
/// a machine without a driver then has no CUDA device, and no error of linking.
@SuppressWarnings("restricted")
final class DriverLibrary {
    /// The name by which every driver installs it.
    static final String SONAME = "libcuda.so.1";

    private DriverLibrary() {}

    private static final class Loaded {
        static final Optional<String> PROBLEM = load();

        private static Optional<String> load() {
            if (!System.getProperty("os.name").equals("Linux")
                    || !System.getProperty("os.arch").equals("amd64"))
                return Optional.of("CUDA is used on Linux on x86-64 only");
            try {
                SymbolLookup.libraryLookup(SONAME, Arena.global());
                return Optional.empty();
            } catch (IllegalArgumentException _) {
                return Optional.of("no NVIDIA driver: " + SONAME + " cannot be loaded");
            }
        }
    }

    private static final class LaunchKernelEx {
        static final MethodHandle CALL = SymbolLookup.libraryLookup(SONAME, Arena.global())
                .find("cuLaunchKernelEx").map(at -> Linker.nativeLinker().downcallHandle(at,
                        FunctionDescriptor.of(JAVA_INT, ADDRESS, JAVA_LONG, JAVA_LONG, JAVA_LONG)))
                .orElse(null);
    }

    /// Whether the driver has `cuLaunchKernelEx`, which JCuda does not have.
    static boolean hasLaunchKernelEx() {
        return LaunchKernelEx.CALL != null;
    }

    /// Calls it; the driver's result.
    ///
    /// @param function handle of a kernel
    /// @param extra address of its packed parameters and their size, as cuLaunchKernel takes them
    static int launchKernelEx(MemorySegment configuration, long function, long extra) {
        try {
            return (int) LaunchKernelEx.CALL.invokeExact(configuration, function, 0L, extra);
        } catch (RuntimeException | Error failed) {
            throw failed;
        } catch (Throwable impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    /// Why the driver cannot be used; empty if its library is loaded.
    static Optional<String> problem() {
        return Loaded.PROBLEM;
    }
}
