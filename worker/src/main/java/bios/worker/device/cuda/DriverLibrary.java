package bios.worker.device.cuda;

import java.lang.foreign.Arena;
import java.lang.foreign.SymbolLookup;
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

    /// Why the driver cannot be used; empty if its library is loaded.
    static Optional<String> problem() {
        return Loaded.PROBLEM;
    }
}
