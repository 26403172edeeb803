package bios.worker.device.cuda;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import bios.worker.device.DType;
import bios.worker.device.DeviceLost;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// NVIDIA's library of matrix products: bf16 operands on tensor cores, sums in fp32, results in
/// fp32 or bf16.
///
/// The algorithm of a product is chosen once for a shape of weight and a direction, without splitting sums,
/// and used for any number of rows: so the bits of a row do not depend on the rows beside it.
///
/// The library's matrices are column-major. A row-major y `[rows, out]` is its yᵀ `[out, rows]`: forward it
/// computes yᵀ = W·xᵀ, where W `[out, in]` is the transpose of what the library sees; backward dxᵀ = Wᵀ·dyᵀ.
final class CublasLt implements AutoCloseable {
    /// Every row of an operand begins at a multiple of this many bytes.
    static final int ALIGNMENT = 16;
    private static final Logger log = LoggerFactory.getLogger(CublasLt.class);
    private static final List<String> NAMES = List.of("libcublasLt.so.13", "libcublasLt.so.12");
    private static final int COMPUTE_32F = 68, REAL_32F = 0, REAL_16BF = 14;
    private static final int TRANSPOSE_A = 3;
    private static final int WORKSPACE_PREFERENCE = 1, REDUCTION_PREFERENCE = 3;
    /// The preferences of the least alignment of each of the four matrices.
    private static final int FIRST_ALIGNMENT = 5, LAST_ALIGNMENT = 8;
    private static final int SPLIT_CONFIG = 2, REDUCTION_CONFIG = 3;
    private static final int ALGORITHM_BYTES = 64, HEURISTIC_BYTES = 96, STATE = 72;
    private static final int MAPPING_ERROR = 11, EXECUTION_FAILED = 13;
    private static final long WORKSPACE_BYTES = 32L << 20;
    /// Numbers of rows that an algorithm must accept.
    private static final int[] OTHER_ROWS = {1, 7, 64, 1000};
    private static final int CANDIDATES = 32;
    private static final int MOST_LAYOUTS = 8192;

    /// @param result the element type of results
    private record Shape(int out, int in, boolean backward, int result) {}

    private record LayoutKey(int type, int rows, int columns, int stride) {}

    private final Cuda cuda;
    private final NativeLibrary library;
    private final MethodHandle multiply;
    private final Arena arena = Arena.ofShared();
    private final MemorySegment handle;
    private final MemorySegment forward;
    private final MemorySegment backward;
    private final MemorySegment one = arena.allocate(JAVA_FLOAT);
    private final MemorySegment zero = arena.allocate(JAVA_FLOAT);
    private final Map<Shape, Optional<MemorySegment>> algorithms = new HashMap<>();
    private final Map<LayoutKey, MemorySegment> layouts = new HashMap<>();
    private long workspace;

    /// @throws IllegalStateException if the library is not found
    CublasLt(Cuda cuda) {
        this.cuda = cuda;
        library = NativeLibrary.of(NAMES, List.of(), cuda.libraries(),
                "NVIDIA's matrix products (package libcublas-13-0 or 12-x, or nvidia-cublas)");
        multiply = library.function("cublasLtMatmul", ADDRESS, ADDRESS, ADDRESS, JAVA_LONG, ADDRESS,
                JAVA_LONG, ADDRESS, ADDRESS, JAVA_LONG, ADDRESS, JAVA_LONG, ADDRESS, ADDRESS, JAVA_LONG,
                JAVA_LONG, JAVA_LONG);
        cuda.driver().use();
        handle = create("cublasLtCreate");
        forward = description(true);
        backward = description(false);
        one.set(JAVA_FLOAT, 0, 1);
    }

    /// The file and its version.
    String version() {
        var version = (long) NativeLibrary.call(library.returning("cublasLtGetVersion", JAVA_LONG));
        return "cuBLASLt " + version;
    }

    /// to ← onto + x·wᵀ, or + x·w if `backward`. x and w are BF16, `to` is F32 or BF16, rounded once; every
    /// row begins at a multiple of [#ALIGNMENT] bytes.
    ///
    /// @param onto of the type and shape of `to` and possibly itself; null for none
    void multiply(CudaTensor to, CudaTensor x, CudaTensor w, boolean backward, CudaTensor onto) {
        multiply(to, x, w, backward, onto, w.rows());
    }

    /// The same by the algorithm for weights of `out` rows.
    void multiply(CudaTensor to, CudaTensor x, CudaTensor w, boolean backward, CudaTensor onto, int out) {
        multiply(to, x, w, backward, onto, algorithm(new Shape(out, w.columns(), backward,
                type(to.dtype()))).orElseThrow());
    }

    private void multiply(CudaTensor to, CudaTensor x, CudaTensor w, boolean backward, CudaTensor onto,
            MemorySegment algorithm) {
        if (to.rows() == 0) return;
        if (layouts.size() > MOST_LAYOUTS) dropLayouts();
        var c = onto == null ? to : onto;
        // invokeExact takes the type of a conditional expression as Object: these two need names.
        MemorySegment operation = backward ? this.backward : forward;
        MemorySegment beta = onto == null ? zero : one;
        cuda.driver().use();
        try {
            check("cublasLtMatmul", (int) multiply.invokeExact(handle, operation, one, w.address(),
                    layout(w), x.address(), layout(x), beta, c.address(), layout(c), to.address(), layout(to),
                    algorithm, workspace(), WORKSPACE_BYTES, cuda.compute().handle()));
        } catch (RuntimeException | Error e) {
            throw e;
        } catch (Throwable t) {
            throw new IllegalStateException(t);
        }
    }

    private long workspace() {
        if (workspace == 0) workspace = cuda.memory().allocate(WORKSPACE_BYTES);
        return workspace;
    }

    /// Allocates what the next product needs, so that it cannot run out of memory.
    void prepare() {
        workspace();
    }

    /// Runs `work`, and frees the workspace of the products in it unless there was one before, so that the
    /// memory that loading a weight takes does not include it.
    void lendWorkspace(Runnable work) {
        boolean lent = workspace == 0;
        try {
            work.run();
        } finally {
            if (lent && workspace != 0) {
                cuda.memory().release(workspace);
                workspace = 0;
            }
        }
    }

    // ---- algorithms ----

    /// Whether it has an algorithm for a weight, a direction and results of an element type.
    boolean multiplies(CudaTensor w, boolean backward, DType result) {
        return algorithm(new Shape(w.rows(), w.columns(), backward, type(result))).isPresent();
    }

    private static int type(DType dtype) {
        return dtype == DType.BF16 ? REAL_16BF : REAL_32F;
    }

    private Optional<MemorySegment> algorithm(Shape shape) {
        var known = algorithms.get(shape);
        if (known != null) return known;
        var chosen = choose(shape);
        algorithms.put(shape, chosen);
        if (chosen.isEmpty()) log.warn("{} has no product with a weight [{}, {}]{} for any number of rows: a "
                + "slow kernel is used", version(), shape.out, shape.in, shape.backward ? " backward" : "");
        return chosen;
    }

    /// The first algorithm for the number of rows of the settings that takes any number of them and splits no
    /// sum.
    private Optional<MemorySegment> choose(Shape shape) {
        int in = shape.backward ? shape.out : shape.in;
        int out = shape.backward ? shape.in : shape.out;
        int rows = cuda.products().algorithmRows();
        var operation = shape.backward ? backward : forward;
        var w = new CudaTensor(0, DType.BF16, shape.out, shape.in, shape.in);
        try (var local = Arena.ofConfined()) {
            var preference = preference(local);
            var results = local.allocate((long) HEURISTIC_BYTES * CANDIDATES, 16);
            var found = local.allocate(JAVA_INT);
            var x = layout(REAL_16BF, in, rows, in);
            var y = layout(shape.result, out, rows, out);
            check("cublasLtMatmulAlgoGetHeuristic", (int) NativeLibrary.call(library.function(
                    "cublasLtMatmulAlgoGetHeuristic", ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS,
                    ADDRESS, JAVA_INT, ADDRESS, ADDRESS), handle, operation, layout(w), x, y, y, preference,
                    CANDIDATES, results, found));
            destroy("cublasLtMatmulPreferenceDestroy", preference);
            for (int i = 0; i < found.get(JAVA_INT, 0); i++) {
                var result = results.asSlice((long) HEURISTIC_BYTES * i, HEURISTIC_BYTES);
                var algorithm = result.asSlice(0, ALGORITHM_BYTES);
                if (result.get(JAVA_INT, STATE) == 0 && config(algorithm, SPLIT_CONFIG) <= 1
                        && config(algorithm, REDUCTION_CONFIG) == 0
                        && takesAnyRows(algorithm, operation, layout(w), in, out, shape.result))
                    return Optional.of(arena.allocate(ALGORITHM_BYTES, 16).copyFrom(algorithm));
            }
            return Optional.empty();
        }
    }

    /// Algorithms that split no sum, for rows that begin at multiples of [#ALIGNMENT] bytes.
    private MemorySegment preference(Arena local) {
        var preference = create("cublasLtMatmulPreferenceCreate");
        set("cublasLtMatmulPreferenceSetAttribute", preference, WORKSPACE_PREFERENCE, JAVA_LONG,
                local.allocateFrom(JAVA_LONG, WORKSPACE_BYTES));
        set("cublasLtMatmulPreferenceSetAttribute", preference, REDUCTION_PREFERENCE, JAVA_INT,
                local.allocateFrom(JAVA_INT, 0));
        for (int i = FIRST_ALIGNMENT; i <= LAST_ALIGNMENT; i++)
            set("cublasLtMatmulPreferenceSetAttribute", preference, i, JAVA_INT, local.allocateFrom(JAVA_INT,
                    ALIGNMENT));
        return preference;
    }

    private int config(MemorySegment algorithm, int what) {
        try (var local = Arena.ofConfined()) {
            var value = local.allocate(JAVA_INT);
            var written = local.allocate(JAVA_LONG);
            check("cublasLtMatmulAlgoConfigGetAttribute", (int) NativeLibrary.call(library.function(
                    "cublasLtMatmulAlgoConfigGetAttribute", ADDRESS, JAVA_INT, ADDRESS, JAVA_LONG, ADDRESS),
                    algorithm, what, value, JAVA_INT.byteSize(), written));
            return value.get(JAVA_INT, 0);
        }
    }

    private boolean takesAnyRows(MemorySegment algorithm, MemorySegment operation, MemorySegment w, int in,
            int out, int result) {
        try (var local = Arena.ofConfined()) {
            var checked = local.allocate(HEURISTIC_BYTES, 16);
            for (int rows : OTHER_ROWS) {
                var x = layout(REAL_16BF, in, rows, in);
                var y = layout(result, out, rows, out);
                int status = (int) NativeLibrary.call(library.function("cublasLtMatmulAlgoCheck", ADDRESS,
                        ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS), handle, operation, w,
                        x, y, y, algorithm, checked);
                if (status != 0) return false;
            }
            return true;
        }
    }

    // ---- the library's objects ----

    private MemorySegment description(boolean transposed) {
        try (var local = Arena.ofConfined()) {
            var made = local.allocate(ADDRESS);
            check("cublasLtMatmulDescCreate", (int) NativeLibrary.call(library.function(
                    "cublasLtMatmulDescCreate", ADDRESS, JAVA_INT, JAVA_INT), made, COMPUTE_32F, REAL_32F));
            var description = made.get(ADDRESS, 0);
            set("cublasLtMatmulDescSetAttribute", description, TRANSPOSE_A, JAVA_INT,
                    local.allocateFrom(JAVA_INT, transposed ? 1 : 0));
            return description;
        }
    }

    private void set(String function, MemorySegment object, int what, ValueLayout layout,
            MemorySegment value) {
        check(function, (int) NativeLibrary.call(library.function(function, ADDRESS, JAVA_INT, ADDRESS,
                JAVA_LONG), object, what, value, layout.byteSize()));
    }

    /// A row-major matrix as the library sees it: its transpose.
    private MemorySegment layout(CudaTensor t) {
        return layout(type(t.dtype()), t.columns(), t.rows(),
                Math.max(t.stride(), t.columns()));
    }

    private MemorySegment layout(int type, int rows, int columns, int stride) {
        var key = new LayoutKey(type, rows, columns, stride);
        var known = layouts.get(key);
        if (known != null) return known;
        try (var local = Arena.ofConfined()) {
            var made = local.allocate(ADDRESS);
            check("cublasLtMatrixLayoutCreate", (int) NativeLibrary.call(library.function(
                    "cublasLtMatrixLayoutCreate", ADDRESS, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG), made,
                    type, (long) rows, (long) columns, (long) stride));
            var layout = made.get(ADDRESS, 0);
            layouts.put(key, layout);
            return layout;
        }
    }

    private void dropLayouts() {
        layouts.values().forEach(layout -> destroy("cublasLtMatrixLayoutDestroy", layout));
        layouts.clear();
    }

    private MemorySegment create(String function) {
        try (var local = Arena.ofConfined()) {
            var made = local.allocate(ADDRESS);
            check(function, (int) NativeLibrary.call(library.function(function, ADDRESS), made));
            return made.get(ADDRESS, 0);
        }
    }

    private void destroy(String function, MemorySegment object) {
        NativeLibrary.call(library.function(function, ADDRESS), object);
    }

    private static void check(String call, int status) {
        switch (status) {
            case 0 -> {}
            case EXECUTION_FAILED, MAPPING_ERROR -> throw new DeviceLost(call + ": status " + status);
            default -> throw new IllegalStateException(call + ": status " + status);
        }
    }

    @Override public void close() {
        dropLayouts();
        destroy("cublasLtMatmulDescDestroy", forward);
        destroy("cublasLtMatmulDescDestroy", backward);
        destroy("cublasLtDestroy", handle);
        arena.close();
    }
}
