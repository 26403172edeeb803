package bios.worker.device.cuda;

import bios.worker.device.DType;
import bios.worker.device.Device.Scope;
import bios.worker.device.OutOfDeviceMemory;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
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
    private static final int WARP = 32, GROUP = 16;
    private static final List<Variant> VARIANTS = List.of(
            new Variant("few_rows_8_256", 8, 1, 256, 4, 512),
            new Variant("few_rows_8_128", 8, 1, 128, 4, 512),
            new Variant("few_rows_16_256", 16, 1, 256, 4, 512),
            new Variant("few_rows_16_128", 16, 1, 128, 4, 512),
            new Variant("few_rows_32_256", 32, 2, 256, 4, 512),
            new Variant("few_rows_32_128", 32, 1, 128, 4, 512),
            new Variant("few_rows_64_256", MOST, 2, 256, 4, 512),
            new Variant("few_rows_64_128", MOST, 1, 128, 3, 384));
    /// Rows whose products are compared; all of them, and the first of them.
    private static final int ALL_ROWS = 200;
    private static final int[] COMPARED = {1, 9, 20, MOST};
    private static final int COMPARED_OUTPUTS = 1024, COMPARED_GROUPS = 3;

    /// Tiles of low_rank_rows; its sums are in SHARES parts, of slices of this many terms.
    private static final int LOW_ROWS = 16, LOW_RANKS = 16, LOW_THREADS = 256, SHARES = 8, SLICE = 32;
    private static final int SLICE_BYTES = SLICE * LOW_RANKS * 4 + LOW_ROWS * SLICE * 2;
    private static final int COUNTERS = 4096;

    private record Shape(int out, int in) {}

    /// A kernel for up to `rows` rows.
    ///
    /// @param rowWarps warps that divide the rows of a group of features
    /// @param terms of a stage, of which there are `stages`
    /// @param threads of a block
    private record Variant(String kernel, int rows, int rowWarps, int terms, int stages, int threads) {
        /// Most groups of GROUP features of a block: of its threads, and of what a card has of shared memory.
        int mostGroups(CudaCard card) {
            int features = card.sharedBytesPerBlock() / (stages * terms * DType.BF16.bytes()) - rows;
            return Math.min(threads / WARP / rowWarps, features / GROUP);
        }

        int sharedBytes(int groups) {
            return stages * (groups * GROUP + rows) * terms * DType.BF16.bytes();
        }
    }

    /// A kernel and the groups of features of its blocks.
    private record Blocks(Variant variant, int groups) {
        int tiles(List<Integer> columns) {
            return columns.stream().mapToInt(features -> Math.ceilDiv(features, groups * GROUP)).sum();
        }

        /// What one of so many multiprocessors copies: rows of weights and of x.
        long copies(List<Integer> columns, int multiprocessors) {
            return (long) Math.ceilDiv(tiles(columns), multiprocessors) * (groups * GROUP + variant.rows);
        }
    }

    /// Rows, and the features of the weights that they are multiplied with.
    private record Work(int rows, List<Integer> columns) {}

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
    private final Map<Shape, Boolean> equal = new ConcurrentHashMap<>();
    private final Map<Work, Blocks> chosen = new HashMap<>();
    private final List<Part> waiting = new ArrayList<>(PARTS);
    private CudaTensor x;
    /// Address of counters that are 0 between launches.
    private long counters;
    private Thread thread;
    /// What was multiplied by the last `low_rank_rows`, and the number of launches then.
    private CudaTensor lowRankOf;
    private long lowRankLaunch;

    FewRows(Cuda cuda, CublasLt library) {
        this.cuda = cuda;
        this.library = library;
    }

    /// Whether it computes the library's bits with such weights, which are BF16; compared by [#compare].
    boolean fits(CudaTensor w) {
        return w.dtype() == DType.BF16 && equal.getOrDefault(new Shape(w.rows(), w.columns()), false);
    }

    /// Words for a device's description: the weights whose products differ from the library's.
    String description() {
        String refused = equal.entrySet().stream().filter(shape -> !shape.getValue()).map(shape -> "["
                + shape.getKey().out + ", " + shape.getKey().in + "]").sorted()
                .collect(Collectors.joining(" "));
        return refused.isEmpty() ? "" : ", few rows of " + refused + " by the library";
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
            launch(x, waiting, chosen.computeIfAbsent(new Work(x.rows(), columns(waiting)), this::blocks));
        } finally {
            waiting.clear();
            x = null;
        }
    }

    /// The blocks with which a multiprocessor has least to copy: large ones share the rows that their
    /// features are multiplied with, small ones are spread more evenly.
    private Blocks blocks(Work work) {
        var card = cuda.card();
        return variants(work.rows).flatMap(variant -> IntStream.rangeClosed(1, variant.mostGroups(card))
                .mapToObj(groups -> new Blocks(variant, groups)))
                .min(Comparator.comparingLong(blocks -> blocks.copies(work.columns, card.multiprocessors())))
                .orElseThrow();
    }

    /// The kernels for so many rows whose least blocks the card has room for.
    private Stream<Variant> variants(int rows) {
        int most = VARIANTS.stream().mapToInt(Variant::rows).filter(some -> some >= rows).min().orElseThrow();
        return VARIANTS.stream().filter(v -> v.rows == most && v.mostGroups(cuda.card()) > 0);
    }

    private static List<Integer> columns(List<Part> parts) {
        return parts.stream().map(part -> part.y.columns()).toList();
    }

    private void launch(CudaTensor x, List<Part> parts, Blocks blocks) {
        // behind its low-rank products, for which x was complete, x need not be waited for
        boolean early = x.equals(lowRankOf) && cuda.kernels().launches() == lowRankLaunch;
        var kernel = cuda.kernels().of(blocks.variant.kernel).with(x);
        for (int i = 0; i < PARTS; i++) {
            if (i < parts.size()) {
                var part = parts.get(i);
                kernel.with(part.y).with(part.w).withOptional(part.onto).withOptional(part.bias)
                        .withOptional(part.low).with(part.table).with(part.entries).with(part.from);
            } else {
                for (int j = 0; j < 5; j++) kernel.withOptional(Optional.empty());
                kernel.with(0L).with(0).with(0);
            }
        }
        kernel.with(blocks.groups).with(cuda.products().forwardInBf16() ? 1 : 0).with(early ? 1 : 0)
                .launch(blocks.tiles(columns(parts)), 1, 1, blocks.variant.threads,
                        blocks.variant.sharedBytes(blocks.groups));
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
                    .launch(tiles, ranks, sites.size() * SHARES, LOW_THREADS, shared);
        }
        lowRankOf = x;
        lowRankLaunch = cuda.kernels().launches();
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
            var to = new CudaTensor(onto.address(), type, ALL_ROWS, out, out);
            for (boolean more : new boolean[] {false, true}) {
                library.multiply(theirs, rows, w, false, more ? to : null, shape.out);
                for (int n : COMPARED) {
                    var part = new Part(own.rows(0, n), w, more ? Optional.of(to.rows(0, n))
                            : Optional.empty(), Optional.empty(), Optional.empty(), 0, 0, 0);
                    variants(n).forEach(variant -> {
                        launch(rows.rows(0, n), List.of(part), new Blocks(variant,
                                Math.min(COMPARED_GROUPS, variant.mostGroups(cuda.card()))));
                        different.add(own.rows(0, n), theirs.rows(0, n));
                    });
                }
            }
        }
        return different.read();
    }
}
