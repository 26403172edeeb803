package bios.worker.device.cuda;

import bios.worker.device.CudaSettings.SharedRows;
import bios.worker.device.DType;
import bios.worker.device.Device.Scope;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.cuda.WeightPrefetches.Ahead;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Projections of few rows, as decoding has them, by kernels that read a weight once at the speed of the
/// memory: few_rows.cuh. Projections of the same rows that follow each other are one launch, so one waits
/// here until another verb is called. The low-rank products of the same rows are part of the launch too:
/// warps without features compute them during the projection, and the corrections wait for them.
///
/// A row's bits must not depend on how many rows there are. The library adds the terms of a sum, if it does
/// not split it, in steps of 16 from the first to the last, and so do the kernels; but it promises nothing.
/// So the card multiplies random operands in both ways when a weight is loaded, and the kernels are used for
/// weights of this shape only if all bits are equal.
final class FewRows {
    /// Most rows.
    static final int MOST = FewRowsKernel.MOST;
    private static final Logger log = LoggerFactory.getLogger(FewRows.class);
    private static final int PARTS = 3;
    /// Trials of each size of blocks. Between two of them as many bytes are read as this many times the cache
    /// has, so that neither finds its weight there.
    private static final int TRIALS = 3, CACHES = 4;
    /// Free memory that trials leave, as a part of all of a device.
    private static final int SPARED = 16;
    /// Rows whose products are compared; all of them, and the first of them.
    private static final int ALL_ROWS = 200;
    private static final int[] COMPARED = {1, 9, 20, 41, MOST};
    private static final int COMPARED_OUTPUTS = 1024, COMPARED_GROUPS = 3;

    /// Tiles of low_rank_rows; its sums are in SHARES parts, of slices of this many terms.
    private static final int LOW_ROWS = 16, LOW_RANKS = 16, LOW_THREADS = 256, SHARES = 8, SLICE = 32;
    private static final int SLICE_BYTES = SLICE * LOW_RANKS * 4 + LOW_ROWS * SLICE * 2;
    private static final int COUNTERS = 4096, FIRST_COUNTER = 4;

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

    /// Low-rank products of an x.
    ///
    /// @param tiles of rows of slots
    /// @param ranks tiles of ranks
    /// @param scope of the memory at `partial` for the shares of all sums, which is taken before anything
    ///     waits
    private record Lows(List<CudaTensor> lows, CudaTensor x, CudaSlots slots, List<Integer> sites, int tiles,
            int ranks, Scope scope, long partial) {
        int items() {
            return tiles * ranks * sites.size() * SHARES;
        }
    }

    /// Computes low-rank products for which the kernels for few rows have no room: lows ← s·x·A.
    interface LowRanks {
        void compute(List<CudaTensor> lows, CudaTensor x, CudaSlots slots, List<Integer> sites);
    }

    private final Cuda cuda;
    private final CublasLt library;
    private final LowRanks others;
    private final Map<Shape, Boolean> equal = new ConcurrentHashMap<>();
    /// Shapes of weights whose products have the library's bits too if blocks share rows.
    private final Set<Shape> shared = ConcurrentHashMap.newKeySet();
    private final Map<FewRowsBlocks.Work, List<FewRowsBlocks>> worthTrying = new HashMap<>();
    private final Map<FewRowsBlocks.Work, FewRowsBlocks> chosen = new HashMap<>();
    private final List<Part> waiting = new ArrayList<>(PARTS);
    private CudaTensor x;
    /// The low-rank products that the next launch computes; null if there are none.
    private Lows lows;
    private final WeightPrefetches prefetches;
    /// Address of counters that are 0 between launches.
    private final long counters;
    private Thread thread;
    /// What was multiplied by the last `low_rank_rows`, and the number of launches then.
    private CudaTensor lowRankOf;
    private long lowRankLaunch;

    FewRows(Cuda cuda, CublasLt library, LowRanks others) {
        this.cuda = cuda;
        this.library = library;
        this.others = others;
        prefetches = new WeightPrefetches(cuda.card(), cuda.products().prefetches()
                && cuda.kernels().early());
        counters = cuda.memory().tensor(DType.I32, 1, COUNTERS).address();
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
        if (!waiting.isEmpty() && !joins || lows != null && !lows.x.equals(rows)) flush();
        x = rows;
        thread = Thread.currentThread();
        waiting.add(part);
    }

    /// Launches what waits. Other threads than the one of the verbs use nothing that waits.
    void flush() {
        if (waiting.isEmpty() && lows == null || thread != Thread.currentThread()) return;
        var parts = List.copyOf(waiting);
        var before = Optional.ofNullable(lows);
        var rows = x;
        waiting.clear();
        lows = null;
        x = null;
        try {
            if (parts.isEmpty()) {
                lowRank(before.orElseThrow());
            } else {
                var work = new FewRowsBlocks.Work(FewRowsKernel.rowsFor(rows.rows()), rows.columns(),
                        columns(parts));
                var blocks = blocks(work, parts);
                launch(rows, parts, before, blocks, prefetches.of(work, parts.stream().map(part -> part.w)
                        .toList(), blocks));
            }
        } finally {
            before.ifPresent(some -> some.scope.close());
        }
    }

    /// Attention reads this many bytes of pages.
    void reads(long bytes) {
        prefetches.reads(bytes);
    }

    /// The blocks for a product. Those of a large one are found by trying, the first time that it is
    /// executed; all have the same bits.
    private FewRowsBlocks blocks(FewRowsBlocks.Work work, List<Part> parts) {
        var known = chosen.get(work);
        if (known != null) return known;
        var sharing = parts.stream().allMatch(part -> shared.contains(new Shape(part.w.rows(),
                part.w.columns()))) ? cuda.products().sharedRows() : SharedRows.OFF;
        var some = worthTrying.computeIfAbsent(work, given -> FewRowsBlocks.worthTrying(given, cuda.card(),
                sharing));
        if (work.weightBytes() < cuda.products().triedBytes() || some.size() == 1) {
            chosen.put(work, some.getFirst());
        } else if (!cuda.computing().capturing() && !cuda.memory().keeps()) {
            fastest(work, parts, some).ifPresent(best -> chosen.put(work, best));
        }
        return chosen.getOrDefault(work, some.getFirst());
    }

    /// Those with which the product of random rows takes least time on the card; none if there is no memory
    /// to try.
    private Optional<FewRowsBlocks> fastest(FewRowsBlocks.Work work, List<Part> parts,
            List<FewRowsBlocks> some) {
        var memory = cuda.memory();
        int words = CACHES * (cuda.card().cacheBytes() / DType.F32.bytes()) / 2;
        long bytes = 2L * words * DType.F32.bytes() + (long) work.rows() * (work.in()
                + 2L * work.columns().stream().mapToInt(Integer::intValue).sum()) * DType.BF16.bytes();
        if (memory.limit() - memory.inUse() < bytes + memory.limit() / SPARED) return Optional.empty();
        try (var scope = memory.scope()) {
            var different = new DifferentBits(cuda, scope);
            var x = different.scatter(memory.scratch(scope, DType.BF16, work.rows(), work.in()));
            var own = parts.stream().map(part -> new Part(memory.scratch(scope, part.y.dtype(), work.rows(),
                    part.y.columns()), part.w, Optional.empty(), Optional.empty(), Optional.empty(), 0, 0,
                    0)).toList();
            var one = memory.scratch(scope, DType.F32, 1, words);
            var other = memory.scratch(scope, DType.F32, 1, words);
            for (var tensor : List.of(one, other))
                cuda.driver().zero(tensor.address(), (long) words * DType.F32.bytes(), cuda.compute());
            var times = new ArrayList<Float>();
            for (var blocks : some) {
                float least = Float.MAX_VALUE;
                for (int i = 0; i < TRIALS; i++) {
                    different.add(one, other);
                    least = Math.min(least, milliseconds(() -> launch(x, own, Optional.empty(), blocks,
                            Ahead.NONE)));
                }
                times.add(least);
            }
            int best = times.indexOf(Collections.min(times));
            log.info("up to {} rows by {} features of {} terms: {} in {} ms; by default {} in {} ms",
                    work.rows(), work.columns(), work.in(), some.get(best), times.get(best), some.getFirst(),
                    times.getFirst());
            return Optional.of(some.get(best));
        } catch (OutOfDeviceMemory full) {
            return Optional.empty();
        }
    }

    /// The time that the card takes for what `work` launches.
    private float milliseconds(Runnable work) {
        var driver = cuda.driver();
        var from = driver.timedEvent();
        var to = driver.timedEvent();
        try {
            driver.record(from, cuda.compute());
            work.run();
            driver.record(to, cuda.compute());
            driver.await(cuda.compute());
            return driver.milliseconds(from, to);
        } finally {
            driver.destroy(from);
            driver.destroy(to);
        }
    }

    private static List<Integer> columns(List<Part> parts) {
        return parts.stream().map(part -> part.y.columns()).toList();
    }

    private void launch(CudaTensor x, List<Part> parts, Optional<Lows> lows, FewRowsBlocks blocks,
            Ahead ahead) {
        // behind its low-rank products, for which x was complete, x need not be waited for
        boolean early = lows.isEmpty() && x.equals(lowRankOf) && cuda.kernels().launches() == lowRankLaunch;
        var kernel = cuda.kernels().of(blocks.kernel().name()).with(x);
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
        if (lows.isPresent()) {
            var some = lows.get();
            addSites(kernel, some);
            kernel.with(some.partial).with(counters).with(some.slots.entries()).with(some.slots.from())
                    .with(some.sites.size()).with(some.tiles).with(some.ranks).with(0);
        } else {
            for (int i = 0; i < PARTS; i++) kernel.withOptional(Optional.empty());
            for (int i = 0; i < PARTS + 2; i++) kernel.with(0L);
            for (int i = 0; i < 6; i++) kernel.with(0);
        }
        int tiles = blocks.tiles(columns(parts));
        int items = lows.map(Lows::items).orElse(0);
        kernel.withOptional(ahead.next()).with(ahead.bytes()).with(ahead.slices()).with(blocks.groups())
                .with(cuda.products().forwardInBf16() ? 1 : 0).with(early ? 1 : 0)
                .launch(tiles, 1, 1, blocks.threads(items, tiles, cuda.card()), blocks.sharedBytes());
    }

    // ---- low-rank products ----

    /// lows ← s·x·A of up to PARTS sites with the bits of `low_rank_mma`, now or before the next other verb;
    /// false if the kernels for few rows do not fit.
    boolean lowRank(List<CudaTensor> results, CudaTensor x, CudaSlots slots, List<Integer> sites, int rank) {
        flush();
        if (x.rows() > MOST || rank == 0 || !sites.stream().allMatch(slots::widePieces)) return false;
        int tiles = slots.tiles(x.rows(), LOW_ROWS, false);
        int ranks = Math.ceilDiv(rank, LOW_RANKS);
        int sums = tiles * ranks * sites.size();
        if (sums > COUNTERS - FIRST_COUNTER) return false;
        var scope = cuda.memory().scope();
        try {
            long partial = cuda.memory().scratch(scope, 4L * sums * SHARES * LOW_ROWS * LOW_RANKS);
            lows = new Lows(results, x, slots, sites, tiles, ranks, scope, partial);
        } finally {
            if (lows == null) scope.close();
        }
        thread = Thread.currentThread();
        if (!cuda.products().lowRankBeside()) flush();
        return true;
    }

    /// In a launch of their own.
    private void lowRank(Lows all) {
        int shared = Math.ceilDiv(all.x.columns(), SHARES * SLICE) * SLICE_BYTES;
        if (shared > cuda.card().sharedBytesPerBlock()) {
            others.compute(all.lows, all.x, all.slots, all.sites);
            return;
        }
        var kernel = cuda.kernels().of("low_rank_rows").with(all.x);
        addSites(kernel, all);
        kernel.with(all.slots.entries()).with(all.slots.from()).with(all.partial)
                .with(counters + FIRST_COUNTER * DType.I32.bytes())
                .launch(all.tiles, all.ranks, all.sites.size() * SHARES, LOW_THREADS, shared);
        lowRankOf = all.x;
        lowRankLaunch = cuda.kernels().launches();
    }

    private static void addSites(Kernels.Kernel kernel, Lows all) {
        int last = all.sites.size() - 1;
        for (int i = 0; i < PARTS; i++) kernel.with(all.lows.get(Math.min(i, last)));
        for (int i = 0; i < PARTS; i++) kernel.with(all.slots.table(all.sites.get(Math.min(i, last))));
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
        try {
            long different = different(shape, false);
            equal.put(shape, different == 0);
            if (different > 0) log.warn("{} adds the terms of products of [{}, {}] in another order than "
                    + "the kernels for few rows ({} different results): decoding uses the library, which "
                    + "is slower", library.version(), shape.out, shape.in, different);
            else if (cuda.products().sharedRows() != SharedRows.OFF) compareShared(shape);
        } catch (OutOfDeviceMemory full) {
            log.warn("no memory to compare products of [{}, {}]: {}", shape.out, shape.in,
                    full.getMessage());
        }
    }

    private void compareShared(Shape shape) {
        try {
            long different = different(shape, true);
            if (different == 0) shared.add(shape);
            else log.warn("products of [{}, {}] whose blocks share rows have other bits ({} different "
                    + "results): every block copies all rows", shape.out, shape.in, different);
        } catch (IllegalStateException refused) {
            // a part of a card may have no room for a cluster
            log.warn("products of [{}, {}]: every block copies all rows: {}", shape.out, shape.in,
                    refused.getMessage());
        }
    }

    /// The results that differ, of the kernels whose blocks share rows or of the others.
    private long different(Shape shape, boolean shared) {
        int[] some = Arrays.stream(COMPARED).filter(n -> kernels(n, shape.in, shared).findAny().isPresent())
                .toArray();
        if (some.length == 0) return 0;
        try (var scope = cuda.memory().scope()) {
            return different(shape, shared, some, scope);
        }
    }

    private long different(Shape shape, boolean shared, int[] some, Scope scope) {
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
                for (int n : some) {
                    var part = new Part(own.rows(0, n), w, more ? Optional.of(to.rows(0, n))
                            : Optional.empty(), Optional.empty(), Optional.empty(), 0, 0, 0);
                    kernels(n, shape.in, shared).forEach(kernel -> {
                        int groups = Math.min(COMPARED_GROUPS * kernel.warpGroups(),
                                kernel.mostGroups(cuda.card()));
                        launch(rows.rows(0, n), List.of(part), Optional.empty(), new FewRowsBlocks(kernel,
                                groups), Ahead.NONE);
                        different.add(own.rows(0, n), theirs.rows(0, n));
                    });
                }
            }
        }
        return different.read();
    }

    private Stream<FewRowsKernel> kernels(int rows, int in, boolean shared) {
        return FewRowsKernel.of(rows, in, cuda.card(), shared).filter(kernel -> kernel.sharesRows()
                == shared);
    }
}
