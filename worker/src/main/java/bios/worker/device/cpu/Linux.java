package bios.worker.device.cpu;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.util.Optional;

/// Linux system calls for memory: mmap(2), mprotect(2), madvise(2), and glibc's malloc_trim(3).
@SuppressWarnings("restricted")
final class Linux {
    static final int READ = 1, WRITE = 2, EXECUTE = 4;
    static final long PAGE = 4096;
    private static final int PRIVATE = 2, ANONYMOUS = 0x20;
    private static final int WILL_NEED = 3, DONT_NEED = 4, HUGE = 14;
    private static final long HUGE_PAGE = 2L << 20;

    private Linux() {}

    private static final class Calls {
        static final MethodHandle MMAP = function("mmap", ADDRESS, ADDRESS, JAVA_LONG, JAVA_INT, JAVA_INT,
                JAVA_INT, JAVA_LONG);
        static final MethodHandle MUNMAP = function("munmap", JAVA_INT, ADDRESS, JAVA_LONG);
        static final MethodHandle MPROTECT = function("mprotect", JAVA_INT, ADDRESS, JAVA_LONG, JAVA_INT);
        static final MethodHandle MADVISE = function("madvise", JAVA_INT, ADDRESS, JAVA_LONG, JAVA_INT);

        /// Only in glibc.
        static final Optional<MethodHandle> TRIM = Linker.nativeLinker().defaultLookup().find("malloc_trim")
                .map(at -> Linker.nativeLinker().downcallHandle(at,
                        FunctionDescriptor.of(JAVA_INT, JAVA_LONG)));

        private static MethodHandle function(String name, MemoryLayout result, MemoryLayout... arguments) {
            var linker = Linker.nativeLinker();
            return linker.downcallHandle(linker.defaultLookup().findOrThrow(name),
                    FunctionDescriptor.of(result, arguments));
        }
    }

    private static boolean isLinux() {
        return System.getProperty("os.name").equals("Linux");
    }

    /// Zeroed memory, at least 64-byte aligned, until `arena` is closed. Large blocks use huge pages if the
    /// system has them: kernels access many rows at once, and small pages would cause many TLB misses.
    static MemorySegment allocate(long bytes, Arena arena) {
        if (!isLinux() || bytes < HUGE_PAGE) return arena.allocate(bytes, 64);
        long length = (bytes + PAGE - 1) / PAGE * PAGE + HUGE_PAGE;
        var mapped = map(length);
        long start = (mapped.address() + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        // the remainder uses small pages, because half a huge page would be wasted for each matrix
        advise(start, bytes / HUGE_PAGE * HUGE_PAGE, HUGE);
        return MemorySegment.ofAddress(start).reinterpret(bytes, arena, _ -> unmap(mapped, length));
    }

    /// New memory in whole pages; OutOfMemoryError if there is none.
    static MemorySegment map(long bytes) {
        try {
            var at = (MemorySegment) Calls.MMAP.invokeExact(MemorySegment.NULL, bytes, READ | WRITE,
                    PRIVATE | ANONYMOUS, -1, 0L);
            if (at.address() == -1) throw new OutOfMemoryError(bytes + " bytes of native memory");
            return at;
        } catch (RuntimeException | Error e) {
            throw e;
        } catch (Throwable t) {
            throw new IllegalStateException(t);
        }
    }

    /// Makes the C library return the free pages of its heaps to the system.
    static void trim() {
        if (!isLinux() || Calls.TRIM.isEmpty()) return;
        try {
            int _ = (int) Calls.TRIM.get().invokeExact(0L);
        } catch (RuntimeException | Error e) {
            throw e;
        } catch (Throwable t) {
            throw new IllegalStateException(t);
        }
    }

    private static void unmap(MemorySegment at, long bytes) {
        try {
            int status = (int) Calls.MUNMAP.invokeExact(at, bytes);
            if (status != 0) throw new IllegalStateException("munmap: status " + status);
        } catch (RuntimeException | Error e) {
            throw e;
        } catch (Throwable t) {
            throw new IllegalStateException(t);
        }
    }

    /// Makes whole pages executable and read-only.
    static void makeExecutable(MemorySegment at, long bytes) {
        try {
            if ((int) Calls.MPROTECT.invokeExact(at, bytes, READ | EXECUTE) != 0)
                throw new IllegalStateException("memory cannot be made executable");
        } catch (RuntimeException | Error e) {
            throw e;
        } catch (Throwable t) {
            throw new IllegalStateException(t);
        }
    }

    /// Prefetches whole pages of a mapped file.
    static void prefetch(long from, long bytes) {
        if (isLinux()) advise(from, bytes, WILL_NEED);
    }

    /// Releases the pages of a mapped file; they are read from the file again at the next access.
    static void release(MemorySegment mapped) {
        if (!isLinux()) return;
        long from = (mapped.address() + PAGE - 1) / PAGE * PAGE;
        long end = (mapped.address() + mapped.byteSize()) / PAGE * PAGE;
        if (from < end) advise(from, end - from, DONT_NEED);
    }

    /// The advice may be ignored: it affects speed and memory use only.
    private static void advise(long from, long bytes, int advice) {
        try {
            int _ = (int) Calls.MADVISE.invokeExact(MemorySegment.ofAddress(from), bytes, advice);
        } catch (RuntimeException | Error e) {
            throw e;
        } catch (Throwable t) {
            throw new IllegalStateException(t);
        }
    }
}
