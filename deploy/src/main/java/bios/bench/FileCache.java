package bios.bench;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.invoke.MethodHandle;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;

/// The system's page cache, from which files can be evicted by the C library's `posix_fadvise(2)`.
@SuppressWarnings("restricted")
final class FileCache {
    private static final int READ_ONLY = 0;
    private static final int DONT_NEED = 4;

    private FileCache() {}

    /// Evicts these files from the page cache, after writing them to the disk; false if the system does not
    /// support it.
    static boolean evict(List<Path> files) {
        try {
            MethodHandle open = function("open", JAVA_INT, ADDRESS, JAVA_INT);
            MethodHandle advise = function("posix_fadvise", JAVA_INT, JAVA_INT, JAVA_LONG, JAVA_LONG,
                    JAVA_INT);
            MethodHandle close = function("close", JAVA_INT, JAVA_INT);
            boolean accepted = true;
            for (Path file : files) {
                try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
                    channel.force(true);
                }
                try (Arena arena = Arena.ofConfined()) {
                    int handle = (int) open.invoke(arena.allocateFrom(file.toString()), READ_ONLY);
                    if (handle < 0) return false;
                    accepted &= (int) advise.invoke(handle, 0L, 0L, DONT_NEED) == 0;
                    int _ = (int) close.invoke(handle);
                }
            }
            return accepted;
        } catch (IOException | RuntimeException _) {
            return false;       // the system does not have these functions
        } catch (Throwable failure) {
            throw new IllegalStateException(failure);
        }
    }

    private static MethodHandle function(String name, MemoryLayout result,
            MemoryLayout... arguments) {
        Linker linker = Linker.nativeLinker();
        return linker.downcallHandle(linker.defaultLookup().findOrThrow(name),
                FunctionDescriptor.of(result, arguments));
    }
}
