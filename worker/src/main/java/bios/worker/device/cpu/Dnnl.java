package bios.worker.device.cpu;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.util.Optional;

/// The part of oneDNN's C API (oneapi/dnnl/dnnl.h of version 3) that products need. Handles are plain
/// addresses. Every thread that creates a primitive calls [#enter] first, which limits OpenMP to that thread.
@SuppressWarnings("restricted")
final class Dnnl {
    static final int BF16 = 2;
    static final int F32 = 3;
    static final int ARG_SRC = 1;
    static final int ARG_DST = 17;
    static final int ARG_WEIGHTS = 33;
    static final int ARG_SCRATCHPAD = 80;

    private static final int CPU = 1;
    private static final int FORMAT_ANY = 1;
    private static final int SCRATCHPAD_USER = 1;
    private static final int QUERY_IMPLEMENTATION = 8;
    private static final int QUERY_WEIGHTS = 131;
    private static final int QUERY_SCRATCHPAD = 136;
    private static final int ISA_AVX512_BF16 = 0xe7;
    private static final String FOLDER = "/org/bytedeco/dnnl/linux-x86_64/";

    /// The largest instruction set that oneDNN may use, as its `dnnl_cpu_isa_t`.
    enum Limit {
        /// All instructions of the processor.
        NONE(0),
        SSE41(0x1), AVX2(0x7), AVX512(0x27), AVX512_BF16(ISA_AVX512_BF16);

        private final int isa;

        Limit(int isa) {
            this.isa = isa;
        }
    }

    private static final class Loaded {
        static final Optional<SymbolLookup> LIBRARY = load();

        private static Optional<SymbolLookup> load() {
            if (!System.getProperty("os.name").equals("Linux")
                    || !System.getProperty("os.arch").equals("amd64")) {
                return Optional.empty();
            }
            var gomp = NativeLibraries.unpack(FOLDER + "libgomp.so.1");
            var dnnl = NativeLibraries.unpack(FOLDER + "libdnnl.so.3");
            if (gomp == null || dnnl == null) return Optional.empty();
            try {
                // libdnnl finds libgomp by its soname, because it is loaded already.
                SymbolLookup.libraryLookup(gomp, Arena.global());
                return Optional.of(SymbolLookup.libraryLookup(dnnl, Arena.global()));
            } catch (IllegalArgumentException e) {
                return Optional.empty();    // another C library than glibc, or too old a one
            }
        }
    }

    private static Dnnl instance;
    private static Limit limitOfInstance;

    /// Whether this machine can load the library.
    static boolean loads() {
        return Loaded.LIBRARY.isPresent();
    }

    /// The library with a limit; empty if it does not load. oneDNN fixes its limit at its first use.
    ///
    /// @throws IllegalArgumentException if this process already uses it with another limit
    static synchronized Optional<Dnnl> limited(Limit limit) {
        if (instance == null) {
            instance = Loaded.LIBRARY.map(library -> new Dnnl(library, limit)).orElse(null);
            limitOfInstance = limit;
        }
        if (instance != null && limitOfInstance != limit)
            throw new IllegalArgumentException("oneDNN takes one set of instructions per process, and this"
                    + " process uses it on " + instance.instructionSet() + " already");
        return Optional.ofNullable(instance);
    }

    /// The library with the limit that this process already uses, else without a limit; empty if it does not
    /// load.
    static synchronized Optional<Dnnl> loaded() {
        return limited(instance == null ? Limit.NONE : limitOfInstance);
    }

    private final ThreadLocal<MemorySegment> streams = ThreadLocal.withInitial(this::begin);
    private final SymbolLookup library;
    private final MethodHandle setThreads;
    private final MethodHandle execute;
    private final MethodHandle setHandle;
    private final MethodHandle memoryCreate;
    private final MethodHandle memoryDestroy;
    private final MethodHandle descriptorStrided;
    private final MethodHandle descriptorTagged;
    private final MethodHandle descriptorClone;
    private final MethodHandle descriptorDestroy;
    private final MethodHandle descriptorSize;
    private final MethodHandle matmul;
    private final MethodHandle reorder;
    private final MethodHandle queryDescriptor;
    private final MethodHandle query;
    private final MethodHandle primitiveCreate;
    private final MethodHandle primitiveDestroy;
    private final MethodHandle planDestroy;
    private final MemorySegment engine;
    private final MethodHandle streamCreate;
    private final MemorySegment plainAttribute;
    private final MemorySegment sumAttribute;
    private final int isa;

    private Dnnl(SymbolLookup library, Limit limit) {
        this.library = library;
        if (limit != Limit.NONE)
            check("dnnl_set_max_cpu_isa", call(function("dnnl_set_max_cpu_isa", JAVA_INT), limit.isa));
        // Looked up through libdnnl, because the process may contain another OpenMP library too.
        setThreads = Linker.nativeLinker().downcallHandle(library.findOrThrow("omp_set_num_threads"),
                FunctionDescriptor.ofVoid(JAVA_INT));
        execute = function("dnnl_primitive_execute", ADDRESS, ADDRESS, JAVA_INT, ADDRESS);
        setHandle = function("dnnl_memory_set_data_handle", ADDRESS, ADDRESS);
        memoryCreate = function("dnnl_memory_create", ADDRESS, ADDRESS, ADDRESS, ADDRESS);
        memoryDestroy = function("dnnl_memory_destroy", ADDRESS);
        descriptorStrided = function("dnnl_memory_desc_create_with_strides", ADDRESS, JAVA_INT, ADDRESS,
                JAVA_INT, ADDRESS);
        descriptorTagged = function("dnnl_memory_desc_create_with_tag", ADDRESS, JAVA_INT, ADDRESS, JAVA_INT,
                JAVA_INT);
        descriptorClone = function("dnnl_memory_desc_clone", ADDRESS, ADDRESS);
        descriptorDestroy = function("dnnl_memory_desc_destroy", ADDRESS);
        descriptorSize = returning("dnnl_memory_desc_get_size", JAVA_LONG, ADDRESS);
        matmul = function("dnnl_matmul_primitive_desc_create", ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS,
                ADDRESS, ADDRESS);
        reorder = function("dnnl_reorder_primitive_desc_create", ADDRESS, ADDRESS, ADDRESS, ADDRESS,
                ADDRESS, ADDRESS);
        queryDescriptor = returning("dnnl_primitive_desc_query_md", ADDRESS, ADDRESS, JAVA_INT, JAVA_INT);
        query = function("dnnl_primitive_desc_query", ADDRESS, JAVA_INT, JAVA_INT, ADDRESS);
        primitiveCreate = function("dnnl_primitive_create", ADDRESS, ADDRESS);
        primitiveDestroy = function("dnnl_primitive_destroy", ADDRESS);
        planDestroy = function("dnnl_primitive_desc_destroy", ADDRESS);
        streamCreate = function("dnnl_stream_create", ADDRESS, ADDRESS, JAVA_INT);
        call(setThreads, 1);
        engine = made("dnnl_engine_create", function("dnnl_engine_create", ADDRESS, JAVA_INT, JAVA_LONG),
                CPU, 0L);
        plainAttribute = attribute(false);
        sumAttribute = attribute(true);
        isa = (int) call(returning("dnnl_get_effective_cpu_isa", JAVA_INT));
    }

    private MethodHandle function(String name, MemoryLayout... arguments) {
        return returning(name, JAVA_INT, arguments);
    }

    private MethodHandle returning(String name, MemoryLayout result, MemoryLayout... arguments) {
        return Linker.nativeLinker()
                .downcallHandle(library.findOrThrow(name), FunctionDescriptor.of(result, arguments));
    }

    private MemorySegment attribute(boolean sum) {
        var attribute = made("dnnl_primitive_attr_create", function("dnnl_primitive_attr_create", ADDRESS));
        check("dnnl_primitive_attr_set_scratchpad_mode",
                call(function("dnnl_primitive_attr_set_scratchpad_mode", ADDRESS, JAVA_INT), attribute,
                        SCRATCHPAD_USER));
        if (!sum) return attribute;
        var operations = made("dnnl_post_ops_create", function("dnnl_post_ops_create", ADDRESS));
        check("dnnl_post_ops_append_sum", call(function("dnnl_post_ops_append_sum", ADDRESS, JAVA_FLOAT,
                JAVA_INT, JAVA_INT), operations, 1f, 0, 0));
        check("dnnl_primitive_attr_set_post_ops",
                call(function("dnnl_primitive_attr_set_post_ops", ADDRESS, ADDRESS), attribute, operations));
        return attribute;
    }

    /// Limits OpenMP to the calling thread, because a team of threads is slow beside other runnable threads.
    /// Returns the thread's stream.
    MemorySegment enter() {
        return streams.get();
    }

    private MemorySegment begin() {
        call(setThreads, 1);
        return made("dnnl_stream_create", streamCreate, engine, 1);
    }

    /// Whether the hardware multiplies bf16.
    boolean multipliesBf16() {
        return (isa & ISA_AVX512_BF16) == ISA_AVX512_BF16;
    }

    /// The instruction set in use.
    String instructionSet() {
        if ((isa & 0xfef) == 0xfef) return "AMX";
        if (multipliesBf16()) return "AVX-512 bf16";
        if ((isa & 0x27) == 0x27) return "AVX-512";
        return (isa & 0x7) == 0x7 ? "AVX2" : "SSE";
    }

    /// A descriptor of a matrix `[rows, columns]` with these strides in elements.
    MemorySegment strided(int type, long rows, long columns, long rowStride, long columnStride) {
        try (var arena = Arena.ofConfined()) {
            return made("dnnl_memory_desc_create_with_strides", descriptorStrided, 2,
                    arena.allocateFrom(JAVA_LONG, rows, columns), type,
                    arena.allocateFrom(JAVA_LONG, rowStride, columnStride));
        }
    }

    /// A descriptor of a matrix `[rows, columns]` in the layout that a product chooses.
    MemorySegment any(int type, long rows, long columns) {
        try (var arena = Arena.ofConfined()) {
            return made("dnnl_memory_desc_create_with_tag", descriptorTagged, 2,
                    arena.allocateFrom(JAVA_LONG, rows, columns), type, FORMAT_ANY);
        }
    }

    /// Bytes of a matrix with this descriptor.
    long size(MemorySegment descriptor) {
        return (long) call(descriptorSize, descriptor);
    }

    MemorySegment copy(MemorySegment descriptor) {
        return made("dnnl_memory_desc_clone", descriptorClone, descriptor);
    }

    void destroyDescriptor(MemorySegment descriptor) {
        check("dnnl_memory_desc_destroy", call(descriptorDestroy, descriptor));
    }

    /// dst ← (or +=) src·weights.
    Primitive matmul(MemorySegment src, MemorySegment weights, MemorySegment dst, boolean add) {
        return new Primitive(made("dnnl_matmul_primitive_desc_create", matmul, engine, src, weights,
                MemorySegment.NULL, dst, add ? sumAttribute : plainAttribute));
    }

    /// Copies a matrix from one form to another.
    Primitive reorder(MemorySegment from, MemorySegment to) {
        return new Primitive(made("dnnl_reorder_primitive_desc_create", reorder, from, engine, to, engine,
                plainAttribute));
    }

    /// A memory object without data yet.
    MemorySegment memory(MemorySegment descriptor) {
        return made("dnnl_memory_create", memoryCreate, descriptor, engine, MemorySegment.NULL);
    }

    void destroyMemory(MemorySegment memory) {
        check("dnnl_memory_destroy", call(memoryDestroy, memory));
    }

    void point(MemorySegment memory, MemorySegment data) {
        try {
            int status = (int) setHandle.invokeExact(memory, data);
            if (status != 0) throw new IllegalStateException("dnnl_memory_set_data_handle: status " + status);
        } catch (RuntimeException | Error e) {
            throw e;
        } catch (Throwable t) {
            throw new IllegalStateException(t);
        }
    }

    /// A compiled product or reorder; safe to run on several threads, each with its own scratchpad.
    final class Primitive implements AutoCloseable {
        private final MemorySegment plan;
        private final MemorySegment primitive;

        private Primitive(MemorySegment plan) {
            this.plan = plan;
            primitive = made("dnnl_primitive_create", primitiveCreate, plan);
        }

        /// A copy of the descriptor that the weights must have.
        MemorySegment weights() {
            return copy((MemorySegment) call(queryDescriptor, plan, QUERY_WEIGHTS, 0));
        }

        /// The description of its scratchpad; owned by the primitive.
        MemorySegment scratchpad() {
            return (MemorySegment) call(queryDescriptor, plan, QUERY_SCRATCHPAD, 0);
        }

        /// The name of oneDNN's implementation.
        String implementation() {
            try (var arena = Arena.ofConfined()) {
                var result = arena.allocate(ADDRESS);
                check("dnnl_primitive_desc_query", call(query, plan, QUERY_IMPLEMENTATION, 0, result));
                return result.get(ADDRESS, 0).reinterpret(256).getString(0);
            }
        }

        /// Runs on the calling thread. `arguments` contains `count` pairs of (argument, memory).
        void execute(int count, MemorySegment arguments) {
            try {
                int status = (int) Dnnl.this.execute.invokeExact(primitive, enter(), count, arguments);
                if (status != 0) throw new IllegalStateException("dnnl_primitive_execute: status " + status);
            } catch (RuntimeException | Error e) {
                throw e;
            } catch (Throwable t) {
                throw new IllegalStateException(t);
            }
        }

        @Override public void close() {
            check("dnnl_primitive_destroy", call(primitiveDestroy, primitive));
            check("dnnl_primitive_desc_destroy", call(planDestroy, plan));
        }
    }

    /// Calls a creating function; returns the handle that it writes to its first argument.
    private static MemorySegment made(String name, MethodHandle function, Object... rest) {
        try (var arena = Arena.ofConfined()) {
            var result = arena.allocate(ADDRESS);
            Object[] arguments = new Object[rest.length + 1];
            arguments[0] = result;
            System.arraycopy(rest, 0, arguments, 1, rest.length);
            check(name, call(function, arguments));
            return result.get(ADDRESS, 0);
        }
    }

    private static void check(String name, Object status) {
        if ((int) status != 0) throw new IllegalStateException(name + ": status " + status);
    }

    private static Object call(MethodHandle function, Object... arguments) {
        try {
            return function.invokeWithArguments(arguments);
        } catch (RuntimeException | Error e) {
            throw e;
        } catch (Throwable t) {
            throw new IllegalStateException(t);
        }
    }
}
