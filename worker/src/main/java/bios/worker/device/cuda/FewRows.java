package bios.worker.device.cuda;

import bios.worker.device.DType;
import bios.worker.device.Device.Scope;
import bios.worker.device.OutOfDeviceMemory;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Projections of few rows, as decoding has them, by kernels that read a weight once at the speed of the
/// memory: few_rows.cu. Projections of the same rows that follow each other are one launch, so one waits
/// here until another verb is called.
///
/// A row's bits must not depend on how many rows there are. The library adds the terms of a sum, if it does
/// not split it, in steps of 16 from the first to the last, and so do the kernels; but it promises nothing.
/// So the card multiplies random operands in both ways when a weight is loaded, and the kernels are used for
/// weights of this shape only if all bits are equal.
final class FewRows {
    /// Most rows.
    static final int MOST = 64;
    private static final Logger log = LoggerFactory.getLogger(FewRows.class);
    private static final int PARTS = 3;
    private static final int ROW_BYTES = 256;
    private static final int WARP = 32, WARP_FEATURES = 16, LEAST_WARPS = 2, MOST_WARPS = 8;
    /// Rows whose products are compared; all of them, and the first of them.
    private static final int ALL_ROWS = 200;
    private static final int[] COMPARED = {1, 9, 20, MOST};
    private static final int COMPARED_OUTPUTS = 1024;

    /// Tiles of low_rank_rows; its sums are in SHARES parts, of slices of this many terms.
    private static final int LOW_ROWS = 16, LOW_RANKS = 16, LOW_BLOCK = 64, SHARES = 8, SLICE = 32;
    private static final int SLICE_BYTES = SLICE * LOW_RANKS * 4 + LOW_ROWS * SLICE * 2;
    private static final int COUNTERS = 4096;

    private record Shape(int out, int in) {}

    /// A projection: y ← x·wᵀ + onto + bias + low·b. What is added to the product of a BF16 y is rounded
    /// first, unless the settings say that the product is fp32.
    ///
    /// @param table address of the slots' entries, of which there are `entries`
    /// @param from row of the pass that is row 0
    record Part(CudaTensor y, CudaTensor w, Optional<CudaTensor> onto, Optional<CudaTensor> bias,
            Optional<CudaTensor> low, long table, int entries, int from) {
        boolean overlaps(Part other) {
            return y.address() < other.y.address() + other.y.span()
                    && other.y.address() < y.address() + y.span();
        }
    }

    private final Cuda cuda;
    private final CublasLt library;
    private final Map<Shape, Boolean> equal = new HashMap<>();
    private final List<Part> waiting = new ArrayList<>(PARTS);
    private CudaTensor x;
    /// Address of counters that are 0 between launches.
    private long counters;
    private Thread thread;

    FewRows(Cuda cuda, CublasLt library) {
        this.cuda = cuda;
        this.library = library;
    }

    /// Whether it computes the library's bits with such weights; compared by [#compare].
    boolean fits(CudaTensor w) {
        return equal.getOrDefault(new Shape(w.rows(), w.columns()), false);
    }

    /// Projects rows, now or before the next other verb.
    void add(CudaTensor rows, Part part) {
        boolean joins = rows.equals(x) && waiting.size() < PARTS && part.onto.isEmpty()
                && waiting.stream().noneMatch(part::overlaps);
        if (!joins) flush();
        x = rows;
        thread = Thread.currentThread();
        waiting.add(part);
    }

    /// Launches what waits. Other threads than the one of the verbs use nothing that waits.
    void flush() {
        if (waiting.isEmpty() || thread != Thread.currentThread()) return;
        try {
            launch(x, waiting, warps(x.rows(), features(waiting)));
        } finally {
            waiting.clear();
            x = null;
        }
    }

    private static int features(List<Part> parts) {
        return parts.stream().mapToInt(part -> part.y.columns()).sum();
    }

    /// Groups of 16 features of a block: more of them share the rows that they are multiplied with, fewer are
    /// spread more evenly.
    private int warps(int rows, int features) {
        int warps = mostWarps(rows);
        while (warps > LEAST_WARPS && features < warps * WARP_FEATURES * cuda.card().multiprocessors())
            warps /= 2;
        return warps;
    }

    /// Most groups of features of a block for whose stages the card has shared memory.
    private int mostWarps(int rows) {
        int warps = rows > 16 ? MOST_WARPS : LEAST_WARPS;
        while (warps > LEAST_WARPS && sharedBytes(padded(rows), warps) > cuda.card().sharedBytesPerBlock())
            warps /= 2;
        return warps;
    }

    /// Rows that the kernel for this many rows multiplies.
    private static int padded(int rows) {
        return rows <= 8 ? 8 : rows <= 16 ? 16 : rows <= 32 ? 32 : MOST;
    }

    /// Groups of rows of a block: of more than 16 rows, each of its warps has a group of features and one of
    /// rows, and there are MOST_WARPS of them.
    private static int rowWarps(int padded, int warps) {
        return padded <= 16 ? 1 : MOST_WARPS / warps;
    }

    private static int sharedBytes(int padded, int warps) {
        return (padded <= 16 ? 5 : 4) * (warps * WARP_FEATURES + padded) * ROW_BYTES;
    }

    private void launch(CudaTensor x, List<Part> parts, int warps) {
        int rows = padded(x.rows());
        int features = warps * WARP_FEATURES;
        int rowWarps = rowWarps(rows, warps);
        var kernel = cuda.kernels().of(switch (rows) {
            case 32 -> "few_rows_32_" + rowWarps;
            case MOST -> "few_rows_64_" + rowWarps;
            default -> "few_rows_" + rows;
        }).with(x);
        int tiles = 0;
        for (int i = 0; i < PARTS; i++) {
            if (i < parts.size()) {
                var part = parts.get(i);
                kernel.with(part.y).with(part.w).withOptional(part.onto).withOptional(part.bias)
                        .withOptional(part.low).with(part.table).with(part.entries).with(part.from);
                tiles += Math.ceilDiv(part.y.columns(), features);
            } else for (int j = 0; j < 5; j++) kernel.withOptional(Optional.empty());
            if (i >= parts.size()) kernel.with(0L).with(0).with(0);
        }
        kernel.with(cuda.products().forwardInBf16() ? 1 : 0)
                .launch(tiles, 1, 1, warps * rowWarps * WARP, sharedBytes(rows, warps));
    }

    // ---- low-rank products ----

    /// lows ← s·x·A of up to PARTS sites with the bits of `low_rank_mma`; false if the kernel for few rows
    /// does not fit.
    boolean lowRank(List<CudaTensor> lows, CudaTensor x, CudaSlots slots, List<Integer> sites, int rank) {
        int shared = Math.ceilDiv(x.columns(), SHARES * SLICE) * SLICE_BYTES;
        if (x.rows() > MOST || rank == 0 || shared > cuda.card().sharedBytesPerBlock()
                || !sites.stream().allMatch(slots::widePieces)) return false;
        int tiles = slots.tiles(x.rows(), LOW_ROWS, false);
        int ranks = Math.ceilDiv(rank, LOW_RANKS);
        int sums = tiles * ranks * sites.size();
        if (sums > COUNTERS) return false;
        if (counters == 0) counters = cuda.memory().tensor(DType.I32, 1, COUNTERS).address();
        try (var scope = cuda.memory().scope()) {
            long partial = cuda.memory().scratch(scope, 4L * sums * SHARES * LOW_ROWS * LOW_RANKS);
            var kernel = cuda.kernels().of("low_rank_rows").with(x);
            for (int i = 0; i < PARTS; i++) kernel.with(lows.get(Math.min(i, lows.size() - 1)));
            for (int i = 0; i < PARTS; i++)
                kernel.with(slots.table(sites.get(Math.min(i, sites.size() - 1))));
            kernel.with(slots.entries()).with(slots.from()).with(partial).with(counters)
                    .launch(tiles, ranks, sites.size() * SHARES, LOW_BLOCK, shared);
        }
        return true;
    }

    // ---- comparison with the library ----

    /// Compares the bits of both ways for the shape of a weight, once. Without memory for it, the library
    /// multiplies: the bits are the same.
    void compare(CudaTensor w) {
        var shape = new Shape(w.rows(), w.columns());
        if (!cuda.products().fewRows() || equal.containsKey(shape)
                || cuda.products().forwardInBf16() && !library.multiplies(w, false, DType.BF16)) return;
        library.lendWorkspace(() -> compare(shape));
    }

    private void compare(Shape shape) {
        try (var scope = cuda.memory().scope()) {
            long different = different(shape, scope);
            equal.put(shape, different == 0);
            if (different > 0) log.warn("{} adds the terms of products of [{}, {}] in another order than "
                    + "the kernels for few rows ({} different results): decoding uses the library, which "
                    + "is slower", library.version(), shape.out, shape.in, different);
        } catch (OutOfDeviceMemory full) {
            log.warn("no memory to compare products of [{}, {}]: {}", shape.out, shape.in,
                    full.getMessage());
        }
    }

    private long different(Shape shape, Scope scope) {
        int out = Math.min(shape.out, COMPARED_OUTPUTS);
        var memory = cuda.memory();
        var different = new DifferentBits(cuda, scope);
        var w = different.scatter(memory.scratch(scope, DType.BF16, out, shape.in));
        var rows = different.scatter(memory.scratch(scope, DType.BF16, ALL_ROWS, shape.in));
        boolean bothTypes = cuda.products().forwardInBf16();
        for (var type : bothTypes ? List.of(DType.F32, DType.BF16) : List.of(DType.F32)) {
            var theirs = memory.scratch(scope, type, ALL_ROWS, out);
            var onto = different.scatter(memory.scratch(scope, DType.BF16, ALL_ROWS, out * type.bytes()
                    / DType.BF16.bytes()));
            var own = memory.scratch(scope, type, MOST, out);
            for (boolean more : new boolean[] {false, true}) {
                var to = new CudaTensor(onto.address(), type, ALL_ROWS, out, out);
                library.multiply(theirs, rows, w, false, more ? to : null, shape.out);
                for (int n : COMPARED) {
                    var part = new Part(own.rows(0, n), w, more ? Optional.of(to.rows(0, n))
                            : Optional.empty(), Optional.empty(), Optional.empty(), 0, 0, 0);
                    for (int warps = LEAST_WARPS; warps <= mostWarps(n); warps *= 2) {
                        launch(rows.rows(0, n), List.of(part), warps);
                        different.add(own.rows(0, n), theirs.rows(0, n));
                    }
                }
            }
        }
        return different.read();
    }
}
