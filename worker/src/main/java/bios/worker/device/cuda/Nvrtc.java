package bios.worker.device.cuda;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.util.List;
import java.util.Map;

/// NVIDIA's runtime compiler: from the text of a kernel to machine code for one architecture.
final class Nvrtc {
    private static final List<String> NAMES = List.of("libnvrtc.so.13", "libnvrtc.so.12");

    private final NativeLibrary library;
    private final MethodHandle create;
    private final MethodHandle compile;
    private final MethodHandle logSize;
    private final MethodHandle log;
    private final MethodHandle codeSize;
    private final MethodHandle code;
    private final MethodHandle destroy;

    /// @param folders where to look first
    /// @throws IllegalStateException if there is none
    Nvrtc(List<String> folders) {
        library = NativeLibrary.of(NAMES, List.of("libnvrtc-builtins.so"), folders,
                "the CUDA runtime compiler (package cuda-nvrtc-13-0 or 12-x, or nvidia-cuda-nvrtc)");
        create = library.function("nvrtcCreateProgram", ADDRESS, ADDRESS, ADDRESS, JAVA_INT, ADDRESS,
                ADDRESS);
        compile = library.function("nvrtcCompileProgram", ADDRESS, JAVA_INT, ADDRESS);
        logSize = library.function("nvrtcGetProgramLogSize", ADDRESS, ADDRESS);
        log = library.function("nvrtcGetProgramLog", ADDRESS, ADDRESS);
        codeSize = library.function("nvrtcGetCUBINSize", ADDRESS, ADDRESS);
        code = library.function("nvrtcGetCUBIN", ADDRESS, ADDRESS);
        destroy = library.function("nvrtcDestroyProgram", ADDRESS);
    }

    /// The file that was loaded.
    String name() {
        return library.name();
    }

    /// Its version, such as "13.0".
    String version() {
        try (var arena = Arena.ofConfined()) {
            var numbers = arena.allocate(JAVA_INT, 2);
            check("nvrtcVersion", NativeLibrary.call(library.function("nvrtcVersion", ADDRESS, ADDRESS),
                    numbers, numbers.asSlice(4)));
            return numbers.getAtIndex(JAVA_INT, 0) + "." + numbers.getAtIndex(JAVA_INT, 1);
        }
    }

    /// The machine code (a cubin) of a source.
    ///
    /// @param headers texts of the files that it includes, by name
    /// @throws IllegalStateException with the compiler's messages
    byte[] compile(String name, String source, Map<String, String> headers, List<String> options) {
        try (var arena = Arena.ofConfined()) {
            var names = List.copyOf(headers.keySet());
            var texts = names.stream().map(headers::get).toList();
            var handle = arena.allocate(ADDRESS);
            check("nvrtcCreateProgram", NativeLibrary.call(create, handle, arena.allocateFrom(source),
                    arena.allocateFrom(name), names.size(), strings(arena, texts), strings(arena, names)));
            try {
                var program = handle.get(ADDRESS, 0);
                int status = (int) NativeLibrary.call(compile, program, options.size(),
                        strings(arena, options));
                if (status != 0) throw new IllegalStateException("NVRTC %s does not compile %s (%d):\n%s"
                        .formatted(library.name(), name, status, log(arena, program)));
                var size = arena.allocate(JAVA_LONG);
                check("nvrtcGetCUBINSize", NativeLibrary.call(codeSize, program, size));
                var bytes = arena.allocate(size.get(JAVA_LONG, 0));
                check("nvrtcGetCUBIN", NativeLibrary.call(code, program, bytes));
                return bytes.toArray(JAVA_BYTE);
            } finally {
                NativeLibrary.call(destroy, handle);
            }
        }
    }

    private String log(Arena arena, MemorySegment program) {
        var size = arena.allocate(JAVA_LONG);
        check("nvrtcGetProgramLogSize", NativeLibrary.call(logSize, program, size));
        var text = arena.allocate(Math.max(1, size.get(JAVA_LONG, 0)));
        check("nvrtcGetProgramLog", NativeLibrary.call(log, program, text));
        return text.getString(0);
    }

    private static MemorySegment strings(Arena arena, List<String> strings) {
        var list = arena.allocate(ADDRESS, Math.max(1, strings.size()));
        for (int i = 0; i < strings.size(); i++)
            list.setAtIndex(ADDRESS, i, arena.allocateFrom(strings.get(i)));
        return list;
    }

    private static void check(String call, Object status) {
        if ((int) status != 0) throw new IllegalStateException(call + ": status " + status);
    }
}
