package bios.worker.device.cuda;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.device.Device.Scope;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.Slot;
import bios.worker.device.Slots;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import java.util.List;
import java.util.Optional;

/// Products of activations with frozen weights and adapters. BF16 results and gradients of inputs are
/// rounded twice: bias, residual and the corrections of all adapters are added up and written first, and the
/// product with the weight is added to them, so that no fp32 product goes through the memory. The product of
/// an F32 result, and of a BF16 result of forward if the settings say so, is computed in fp32 over all rows;
/// one more kernel adds the rest, and rounds a BF16 result once. Adapters' own products are one launch for
/// all slots of a pass.
///
/// What forward's products are added to is never the result itself: in place, the library rounds a BF16
/// product before it adds, which the kernels for few rows do not. Gradients are added in place.
///
/// Products of bf16 weights are cuBLASLt's; those of fp32 weights, of fp32 activations as they are, and of
/// shapes that do not fit tensor cores are a kernel of products.cu.
final class CudaProducts implements AutoCloseable {
    /// Rows of a tile of products.cu, and ranks of one.
    private static final int TILE = 64;
    private static final int RANKS = 16;
    /// Terms that a warp of `low_rank_mma` adds at a time; rows of a tile there.
    private static final int CORE_SLICE = 32;
    private static final int CORE_TILE = 32;
    private static final int BLOCK = 256;
    /// Shared memory of `low_rank_mma`: three slices of rows and of a factor for each of 8 warps.
    private static final int LOW_SHARED = 8 * 3 * (CORE_TILE * CORE_SLICE * 2
            + (CORE_SLICE * RANKS + 24) * 4);
    /// Rows of a slot whose sums are a block's in `adapter_gradient_mma`, and its shared memory: three slices
    /// of 16 rows of both operands for each of 8 warps.
    private static final int PART_ROWS = 1024;
    private static final int GRADIENT_SHARED = 8 * 3 * (16 * TILE * 2 + (16 * RANKS + 7 * 8) * 4);
    private static final int LEAST_COUNTERS = 1 << 14;
    /// Columns of a tile of `finish_product_mma`, and threads of its blocks.
    private static final int FINISH_COLUMNS = 128;
    private static final int FINISH_BLOCK = 128;
    private static final int ROW_COLUMNS = 4 * BLOCK;
    /// Sites of one launch of `low_rank`.
    private static final int SITES = 3;
    /// Most bytes of a product that waits for its corrections: about what the card's cache takes.
    private static final long ROOM_BYTES = 48L << 20;
    /// Most bytes of the tensor to which the library adds a product before it rounds the sum. It is larger
    /// than any cache anyway, and each piece of a product leaves multiprocessors idle at its end.
    private static final long ADDED_BYTES = 128L << 20;
    private static final int LEAST_ROWS = 256;
    /// Both dimensions of a weight that tensor cores multiply are multiples of this.
    private static final int MULTIPLE = 8;

    private final Cuda cuda;
    private final CudaTransfers transfers;
    private final WeightLoader loader;
    private final CublasLt library;
    private final FewRows fewRows;
    /// Counters of `adapter_gradient_mma`, which are 0 between launches; null before the first slot of parts.
    private CudaTensor counters;

    CudaProducts(Cuda cuda, CudaTransfers transfers, WeightLoader loader) {
        this.cuda = cuda;
        this.transfers = transfers;
        this.loader = loader;
        library = new CublasLt(cuda);
        fewRows = new FewRows(cuda, library, (lows, x, slots, sites) -> lowRank(lows, x, slots, sites,
                false));
    }

    /// Launches the projections that wait for others of the same rows.
    void flush() {
        fewRows.flush();
    }

    /// Attention reads this many bytes of pages.
    void reads(long bytes) {
        fewRows.reads(bytes);
    }

    /// Words for [bios.worker.device.Device#description].
    String description() {
        return library.version() + ", activations " + cuda.activations().description()
                + (cuda.products().forwardInBf16() ? "" : ", fp32 results of forward")
                + fewRows.description();
    }

    Weight packWeight(FrozenMatrix matrix) {
        var weight = new CudaWeight(loader.load(matrix));
        if (onTensorCores(weight, false)) fewRows.compare(weight.matrix());
        return weight;
    }

    long packedBytes(FrozenMatrix matrix) {
        return WeightLoader.bytes(matrix);
    }

    Slots slots(Scope scope, List<Slot> slots) {
        return CudaSlots.of(slots, transfers, scope);
    }

    private Kernels.Kernel kernel(String name) {
        return cuda.kernels().of(name);
    }

    private static CudaTensor floats(Tensor tensor) {
        return CudaTensor.of(tensor).floats();
    }

    // ---- adapters ----

    void lowRank(List<Tensor> lows, Tensor input, Slots given, List<Integer> sites) {
        require(lows.size() == sites.size(), "%d results for %d sites", lows.size(), sites.size());
        var x = floats(input);
        var slots = CudaSlots.of(given);
        for (int i = 0; i < lows.size(); i++)
            require(lows.get(i).rows() == x.rows() && lows.get(i).columns() >= slots.rank(sites.get(i)),
                    "[%d, %d] for %d rows of rank %d", lows.get(i).rows(), lows.get(i).columns(), x.rows(),
                    slots.rank(sites.get(i)));
        for (int i = 0; i < lows.size(); i += SITES) {
            var some = sites.subList(i, Math.min(lows.size(), i + SITES));
            var results = lows.subList(i, Math.min(lows.size(), i + SITES)).stream()
                    .map(CudaProducts::floats).toList();
            int rank = some.stream().mapToInt(slots::rank).max().orElse(0);
            if (!rowsOfPieces(x, CORE_SLICE) || !fewRows.lowRank(results, x, slots, some, rank))
                lowRank(results, x, slots, some, false);
        }
    }

    /// lows ← s·x·A of up to SITES sites; s·x·Bᵀ if `backward`.
    private void lowRank(List<? extends Tensor> lows, CudaTensor x, CudaSlots slots, List<Integer> sites,
            boolean backward) {
        int rank = 0;
        for (int site : sites) rank = Math.max(rank, slots.rank(site));
        boolean cores = rowsOfPieces(x, CORE_SLICE);
        var kernel = kernel(cores ? "low_rank_mma" : "low_rank").with(x);
        for (int i = 0; i < SITES; i++) kernel.with(floats(lows.get(Math.min(i, lows.size() - 1))));
        for (int i = 0; i < SITES; i++) kernel.with(slots.table(sites.get(Math.min(i, sites.size() - 1))));
        kernel.with(slots.entries()).with(slots.from()).with(backward ? 1 : 0).launch(slots.tiles(x.rows(),
                cores ? CORE_TILE : TILE, false), Math.ceilDiv(rank, RANKS), sites.size(), BLOCK,
                cores ? LOW_SHARED : 0);
    }

    // ---- projections ----

    void project(Tensor result, Tensor input, Weight weight, Optional<Tensor> bias, Optional<Tensor> onto,
            Slots given, int site, Optional<Tensor> low) {
        var w = CudaWeight.of(weight);
        var y = floats(result);
        var x = floats(input);
        require(x.columns() == w.in() && y.columns() == w.out() && y.rows() == x.rows(),
                "[%d, %d] from [%d, %d] by [%d, %d]", y.rows(), y.columns(), x.rows(), x.columns(), w.out(),
                w.in());
        bias.ifPresent(b -> require(b.rows() == 1 && b.columns() == w.out(), "a bias of %d", b.columns()));
        onto.ifPresent(o -> CudaTensor.sameShape(y, o));
        var slots = CudaSlots.of(given);
        var lows = low.filter(_ -> slots.rank(site) > 0).map(CudaProducts::floats);
        boolean cores = x.dtype() == DType.BF16 && lows.isPresent() && lows.get().dtype() == DType.BF16;
        var parts = new Parts(bias.map(CudaProducts::floats), onto.map(CudaProducts::floats), slots, site,
                lows, cores);
        if (few(y, x, w, parts)) {
            fewRows.add(x, new FewRows.Part(y, w.matrix(), parts.onto, parts.bias, parts.low,
                    lows.isPresent() ? slots.table(site) : 0, lows.isPresent() ? slots.entries() : 0,
                    slots.from()));
            return;
        }
        flush();
        try (var scope = cuda.memory().scope()) {
            project(y, x, w, false, parts, new Room(scope, y, w, x, false, parts));
        }
    }

    /// Whether the kernels for few rows compute a projection: they round a BF16 result as the library does,
    /// where that computes it.
    private boolean few(CudaTensor y, CudaTensor x, CudaWeight w, Parts parts) {
        return x.rows() > 0 && x.rows() <= FewRows.MOST && rowsOfPieces(x, MULTIPLE)
                && (y.dtype() == DType.F32 || !cuda.products().forwardInBf16() || aligned(y))
                && (parts.cores || parts.low.isEmpty()) && fewRows.fits(w.matrix());
    }

    void projectBack(Optional<Tensor> result, boolean add, Tensor dyGiven, Tensor xGiven, Weight weight,
            Slots given, int site, Optional<Tensor> low) {
        var w = CudaWeight.of(weight);
        var dy = floats(dyGiven);
        var slots = CudaSlots.of(given);
        var dx = result.map(CudaProducts::floats);
        require(dy.columns() == w.out(), "[%d, %d] for %d outputs", dy.rows(), dy.columns(), w.out());
        dx.ifPresent(t -> require(t.rows() == dy.rows() && t.columns() == w.in(), "[%d, %d] for %d inputs",
                t.rows(), t.columns(), w.in()));
        var lows = low.filter(_ -> slots.rank(site) > 0).map(CudaProducts::floats);
        try (var scope = cuda.memory().scope()) {
            // Allocates all scratch before the first sum, so that no gradient has changed if memory runs out.
            var dlow = lows.map(_ -> cuda.memory().scratch(scope, DType.F32, dy.rows(), slots.rank(site)));
            boolean cores = dy.dtype() == DType.BF16 && lows.isPresent() && lows.get().dtype() == DType.BF16;
            var parts = new Parts(Optional.empty(), add ? dx : Optional.empty(), slots, site, dlow, cores);
            var room = dx.map(t -> new Room(scope, t, w, dy, true, parts));
            var sums = lows.flatMap(_ -> sums(scope, slots, site, dy.rows(), Math.max(w.in(), w.out())));
            if (lows.isPresent())
                gradients(dlow.orElseThrow(), dy, floats(xGiven), lows.get(), slots, site, sums);
            dx.ifPresent(t -> project(t, dy, w, true, parts, room.orElseThrow()));
        }
    }

    /// Scratch memory for the sums of the parts of long slots, none if every slot is one part.
    private Optional<CudaTensor> sums(Scope scope, CudaSlots slots, int site, int rows, int features) {
        if (slots.slots().stream().noneMatch(slot -> slot.count() > PART_ROWS)) return Optional.empty();
        int blocks = slots.tiles(rows, PART_ROWS, false) * Math.ceilDiv(features, TILE)
                * Math.ceilDiv(slots.rank(site), RANKS);
        if (counters == null || counters.columns() < blocks) {
            if (counters != null) cuda.memory().free(counters);
            counters = null;
            counters = cuda.memory().tensor(DType.I32, 1, Math.max(blocks, LEAST_COUNTERS));
        }
        return Optional.of(cuda.memory().scratch(scope, DType.F32, blocks, TILE * RANKS));
    }

    /// dlow ← s·dy·Bᵀ, dB += lowᵀ·dy, dA += xᵀ·dlow, of every slot.
    private void gradients(CudaTensor dlow, CudaTensor dy, CudaTensor x, CudaTensor low, CudaSlots slots,
            int site, Optional<CudaTensor> sums) {
        require(x.rows() == dy.rows() && low.rows() == dy.rows(), "%d and %d rows for %d", x.rows(),
                low.rows(), dy.rows());
        slots.requireGradients(site);
        lowRank(List.of(dlow), dy, slots, List.of(site), true);
        gradient(x, dlow, false, slots, site, sums);
        gradient(dy, low, true, slots, site, sums);
    }

    /// dA += wideᵀ·thin, or dB += thinᵀ·wide if `second`.
    private void gradient(CudaTensor wide, CudaTensor thin, boolean second, CudaSlots slots, int site,
            Optional<CudaTensor> sums) {
        boolean cores = rowsOfPieces(wide, MULTIPLE);
        var kernel = kernel(cores ? "adapter_gradient_mma" : "adapter_gradient").with(wide).with(thin)
                .with(second ? 1 : 0).with(slots.table(site)).with(slots.entries()).with(slots.from());
        if (cores) kernel.with(sums.map(CudaTensor::address).orElse(0L)).with(sums.isPresent()
                ? counters.address() : 0L);
        kernel.launch(Math.ceilDiv(wide.columns(), TILE), cores ? slots.tiles(wide.rows(), PART_ROWS, false)
                : slots.entries(), Math.ceilDiv(slots.rank(site), RANKS), BLOCK, cores ? GRADIENT_SHARED : 0);
    }

    /// Whether rows are BF16, of a multiple of this many elements, and begin at whole 16-byte pieces.
    private static boolean rowsOfPieces(CudaTensor t, int multiple) {
        return t.dtype() == DType.BF16 && t.columns() % multiple == 0 && aligned(t);
    }

    /// What is added to a product.
    ///
    /// @param low the factor of the corrections; present if a slot has one
    /// @param cores whether corrections are computed on tensor cores
    private record Parts(Optional<CudaTensor> bias, Optional<CudaTensor> onto, CudaSlots slots, int site,
            Optional<CudaTensor> low, boolean cores) {
        boolean more() {
            return bias.isPresent() || low.isPresent();
        }

        /// Whether a product of the library that is rounded to bf16 needs what is added to it in a tensor of
        /// its own.
        boolean addedUp() {
            return more() || onto.filter(t -> t.dtype() != DType.BF16 || !aligned(t)).isPresent();
        }

        Parts rows(int from, int count) {
            return new Parts(bias, onto.map(t -> t.rows(from, count)), slots.rows(from, count), site,
                    low.map(t -> t.rows(from, count)), cores);
        }
    }

    private static boolean aligned(CudaTensor t) {
        return t.address() % CublasLt.ALIGNMENT == 0
                && (long) t.stride() * t.dtype().bytes() % CublasLt.ALIGNMENT == 0;
    }

    private boolean onTensorCores(CudaWeight w, boolean backward) {
        return w.matrix().dtype() == DType.BF16 && w.in() % MULTIPLE == 0 && w.out() % MULTIPLE == 0
                && library.multiplies(w.matrix(), backward, DType.F32);
    }

    /// A number that neither one nor two bf16 numbers represent.
    private static final float PROBE = 1 + 0x1p-23f;

    /// How a product is computed, and its scratch memory, for this many rows at a time.
    private final class Room {
        final boolean tensorCores;
        /// Whether x is multiplied as the sum of two bf16 numbers.
        final boolean split;
        final int rows;
        /// Whether the library adds the product to what else there is, and rounds the sum to bf16.
        final boolean rounds;
        /// What it is added to then: the result itself in backward; empty if that is the residual or nothing.
        final Optional<CudaTensor> added;
        /// The product in fp32; empty if it is written to the result itself.
        final Optional<CudaTensor> product;
        /// What is multiplied in place of x; empty if x itself is.
        final Optional<CudaTensor> high;
        final Optional<CudaTensor> low;

        Room(Scope scope, CudaTensor y, CudaWeight w, CudaTensor x, boolean backward, Parts parts) {
            boolean exact = cuda.activations().operand(PROBE, w.out(), w.in()) == PROBE;
            boolean asItIs = w.matrix().dtype() == DType.F32 || x.dtype() == DType.BF16 || exact;
            tensorCores = (x.dtype() == DType.BF16 || !exact) && onTensorCores(w, backward);
            split = !asItIs && cuda.activations().split(w.out(), w.in());
            rounds = (backward || cuda.products().forwardInBf16()) && y.dtype() == DType.BF16
                    && x.dtype() == DType.BF16 && tensorCores && aligned(y)
                    && library.multiplies(w.matrix(), backward, DType.BF16);
            boolean direct = rounds || y.dtype() == DType.F32 && (!tensorCores || aligned(y));
            boolean copied = !asItIs || tensorCores && !aligned(x);
            boolean adds = rounds && !backward && parts.addedUp();
            long bytes = (long) y.columns() * (adds ? DType.BF16 : DType.F32).bytes();
            rows = direct && !copied && !adds ? y.rows()
                    : rowsOfPiece(y.rows(), (adds ? ADDED_BYTES : ROOM_BYTES) / bytes);
            product = direct ? Optional.empty() : Optional.of(scratch(scope, DType.F32, y.columns()));
            added = adds ? Optional.of(scratch(scope, DType.BF16, y.columns()))
                    : Optional.of(y).filter(_ -> rounds && backward && parts.addedUp());
            var dtype = tensorCores ? DType.BF16 : DType.F32;
            high = copied ? Optional.of(scratch(scope, dtype, x.columns())) : Optional.empty();
            low = tensorCores && split ? Optional.of(scratch(scope, dtype, x.columns())) : Optional.empty();
            if (tensorCores) library.prepare();
        }

        /// Rows of a piece if `rows` are cut into equal pieces of whole tiles, of at most `most` rows each.
        private static int rowsOfPiece(int rows, long most) {
            int pieces = Math.ceilDiv(rows, (int) Math.max(LEAST_ROWS, most / TILE * TILE));
            return pieces <= 1 ? rows : Math.ceilDiv(Math.ceilDiv(rows, pieces), TILE) * TILE;
        }

        private CudaTensor scratch(Scope scope, DType dtype, int columns) {
            return cuda.memory().scratch(scope, dtype, rows, columns);
        }
    }

    private void project(CudaTensor y, CudaTensor x, CudaWeight w, boolean backward, Parts parts, Room room) {
        for (int from = 0; from < y.rows(); from += Math.max(1, room.rows)) {
            int count = Math.min(room.rows, y.rows() - from);
            boolean whole = count == y.rows();
            var to = y.rows(from, count);
            var own = whole ? parts : parts.rows(from, count);
            if (room.rounds) {
                var added = room.added.map(t -> backward ? to : t.rows(0, count));
                added.ifPresent(t -> finish(t, Optional.empty(), own.onto, own, backward));
                multiply(to, x.rows(from, count), w, backward, added.or(() -> own.onto), room);
                continue;
            }
            var product = room.product.map(t -> t.rows(0, count)).orElse(to);
            // the residual is added by the product if it is in fp32 as well
            boolean onto = own.onto.isPresent() && room.product.isEmpty()
                    && own.onto.get().dtype() == DType.F32 && (!room.tensorCores || aligned(own.onto.get()));
            multiply(product, x.rows(from, count), w, backward, onto ? own.onto : Optional.empty(), room);
            if (own.more() || room.product.isPresent() || own.onto.isPresent() && !onto)
                finish(to, Optional.of(product), onto ? Optional.empty() : own.onto, own,
                        backward);
        }
    }

    private void multiply(CudaTensor to, CudaTensor x, CudaWeight w, boolean backward,
            Optional<CudaTensor> onto, Room room) {
        var operand = room.high.map(t -> t.rows(0, x.rows())).orElse(x);
        if (!room.tensorCores) {
            if (room.high.isPresent()) kernel("operand_rows").with(operand).with(x).with(room.split ? 1 : 0)
                    .launch(x.rows(), Math.ceilDiv(x.columns(), ROW_COLUMNS), 1, BLOCK, 0);
            kernel("product").with(to).with(operand).with(w.matrix()).withOptional(onto)
                    .with(backward ? 1 : 0).launch(Math.ceilDiv(to.columns(), TILE), Math.ceilDiv(to.rows(),
                            TILE), 1, BLOCK, 0);
            return;
        }
        var rest = room.low.map(t -> t.rows(0, x.rows()));
        if (room.high.isPresent()) kernel("split_rows").with(operand).withOptional(rest).with(x)
                .launch(x.rows(), Math.ceilDiv(x.columns(), ROW_COLUMNS), 1, BLOCK, 0);
        library.multiply(to, operand, w.matrix(), backward, onto.orElse(null));
        rest.ifPresent(t -> library.multiply(to, t, w.matrix(), backward, to));
    }

    /// y ← product + onto + bias + low·B, or low·Aᵀ.
    private void finish(CudaTensor y, Optional<CudaTensor> product, Optional<CudaTensor> onto, Parts parts,
            boolean backward) {
        // without corrections, slots are rows like all others
        boolean corrected = parts.low.isPresent();
        var slots = parts.slots;
        int tiles = corrected ? slots.tiles(y.rows(), TILE, true) : Math.ceilDiv(y.rows(), TILE);
        kernel(parts.cores ? "finish_product_mma" : "finish_product").with(y).withOptional(product)
                .withOptional(onto).withOptional(parts.bias).withOptional(parts.low)
                .with(corrected ? slots.table(parts.site) : 0L).with(corrected ? slots.entries() : 0)
                .with(corrected ? slots.from() : 0).with(backward ? 1 : 0)
                .launch(Math.ceilDiv(y.columns(), parts.cores ? FINISH_COLUMNS : TILE), tiles, 1,
                        parts.cores ? FINISH_BLOCK : BLOCK, 0);
    }

    @Override public void close() {
        library.close();
    }
}
