package bios.worker.device.cuda;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;

/// A library of the CUDA runtime, called by java.lang.foreign. It is searched, by the names of several
/// versions, in the folders of `bios.engine.cuda.library-path`, then where the system's loader looks
/// (LD_LIBRARY_PATH), then in the toolkit's usual folders.
@SuppressWarnings("restricted")
final class NativeLibrary {
    private final String name;
    private final SymbolLookup symbols;

    private NativeLibrary(String name, SymbolLookup symbols) {
        this.name = name;
        this.symbols = symbols;
    }

    /// The first of these libraries that loads.
    ///
    /// @param names file names, the most wanted first
    /// @param companions beginnings of names of libraries that it loads by itself from its own folder
    /// @throws IllegalStateException that says what was searched and what to install
    static NativeLibrary of(List<String> names, List<String> companions, List<String> folders,
            String packages) {
        for (String folder : folders)
            for (String name : names) {
                var found = in(Path.of(folder), name, companions);
                if (found != null) return found;
            }
        for (String name : names) {
            try {
                return new NativeLibrary(name, SymbolLookup.libraryLookup(name, Arena.global()));
            } catch (IllegalArgumentException _) {
                // not where the loader looks
            }
        }
        for (Path folder : usualFolders())
            for (String name : names) {
                var found = in(folder, name, companions);
                if (found != null) return found;
            }
        throw new IllegalStateException("none of " + String.join(", ", names) + " can be loaded: install "
                + packages + ", and put its folder on LD_LIBRARY_PATH or into bios.engine.cuda.library-path");
    }

    private static List<Path> usualFolders() {
        var folders = new ArrayList<Path>();
        for (String variable : List.of("CUDA_HOME", "CUDA_PATH")) {
            String home = System.getenv(variable);
            if (home != null && !home.isBlank()) folders.add(Path.of(home, "lib64"));
        }
        folders.add(Path.of("/usr/local/cuda/lib64"));
        folders.add(Path.of("/usr/local/cuda/targets/x86_64-linux/lib"));
        return folders;
    }

    private static NativeLibrary in(Path folder, String name, List<String> companions) {
        Path file = folder.resolve(name);
        if (!Files.exists(file)) return null;
        for (String companion : companions) preload(folder, companion);
        try {
            return new NativeLibrary(file.toString(), SymbolLookup.libraryLookup(file, Arena.global()));
        } catch (IllegalArgumentException _) {
            return null;        // for another machine, or it lacks what it is linked with
        }
    }

    /// Loads the libraries of a folder with such a name, so that they are found by their names later.
    private static void preload(Path folder, String companion) {
        try (Stream<Path> files = Files.list(folder)) {
            for (Path file : files.filter(f -> f.getFileName().toString().startsWith(companion)).toList()) {
                try {
                    SymbolLookup.libraryLookup(file, Arena.global());
                } catch (IllegalArgumentException _) {
                    // the library itself will say what it lacks
                }
            }
        } catch (IOException _) {
            // as above
        }
    }

    /// The file, or the name by which the loader found it.
    String name() {
        return name;
    }

    /// A function that returns an int.
    MethodHandle function(String function, MemoryLayout... arguments) {
        return returning(function, ValueLayout.JAVA_INT, arguments);
    }

    /// A function that returns something else.
    MethodHandle returning(String function, MemoryLayout result, MemoryLayout... arguments) {
        MemorySegment at = symbols.find(function).orElseThrow(
                () -> new IllegalStateException(name + " has no " + function));
        return Linker.nativeLinker().downcallHandle(at, FunctionDescriptor.of(result, arguments));
    }

    /// Calls a function; for calls that are rare.
    static Object call(MethodHandle function, Object... arguments) {
        try {
            return function.invokeWithArguments(arguments);
        } catch (RuntimeException | Error e) {
            throw e;
        } catch (Throwable t) {
            throw new IllegalStateException(t);
        }
    }
}
