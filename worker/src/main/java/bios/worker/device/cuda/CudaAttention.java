package bios.worker.device.cuda;

import static bios.protocol.Require.require;

import bios.worker.device.AttentionShape;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.Device.Scope;
import bios.worker.device.HeadInputs;
import bios.worker.device.KeyValues;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.PagePool;
import bios.worker.device.Sequence;
import bios.worker.device.Sequences;
import bios.worker.device.Tensor;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Attention over packed sequences and over pages. A query is a position and a head; tiles are of queries
/// whose heads share a key head.
final class CudaAttention {
    private static final int BLOCK = 256;
    private static final int APPEND_BLOCK = 128;
    private static final int WARP = 32;
    /// Elements of heads that `prepare_heads` takes are a multiple of this: each half is whole vectors.
    private static final int PAIRS = 16;
    /// Tiles of attention.cu.
    private static final int QUERIES = 32;
    private static final int KEYS = 32;
    private static final int MOST_HEAD_DIM = 256;
    private static final int DELTAS = 8;
    /// Threads and tiles of attention_mma.cu; rows of shared memory of its gradients.
    private static final int MMA_BLOCK = 128;
    private static final int MMA_QUERIES = 64;
    private static final int STREAMED = 32;
    private static final int QUERIES_ROWS = 6 * 64, KEYS_ROWS = 4 * 64;
    /// Queries of a tile, rows that are resident in gradients, and rows of a stage in attention_wgmma.cu, and
    /// the alignment of its shared memory.
    private static final int WIDE_QUERIES = 192, RESIDENT = 128, WIDE_STREAMED = 64, PIECES_ALIGNMENT = 1024;
    private static final Logger log = LoggerFactory.getLogger(CudaAttention.class);
    /// A sequence of several tiles and blocks of keys, whose scores are about 1: of it the kernels are
    /// compared. Results are rounded to bf16, which hides all but few of the differences of their sums, so
    /// there are many.
    private static final int COMPARED_POSITIONS = 150;
    private static final int COMPARED_HEADS = 16, COMPARED_KEY_HEADS = 4;
    private static final float COMPARED_SCALE = 1 / 256f;

    /// The kernels of BF16 operands. All give a query the same bits.
    ///
    /// @param of64 for heads of 64 elements
    /// @param of128 for heads of 128 elements
    /// @param queries of a tile
    /// @param block threads
    /// @param rows of shared memory
    /// @param more bytes of shared memory
    private record Form(String of64, String of128, int queries, int block, int rows, int more) {
        static final Form FEW_QUERIES = new Form("attention_mma_64", "attention_mma_128", MMA_QUERIES,
                MMA_BLOCK, 5 * 64, 0);
        static final Form MANY_QUERIES = new Form("attention_mma_wide_64", "attention_mma_wide_128",
                2 * MMA_QUERIES, MMA_BLOCK, 6 * 64, 0);
        static final Form WARPGROUPS = new Form("attention_wgmma_64", "attention_wgmma_128", WIDE_QUERIES,
                2 * WIDE_QUERIES, WIDE_QUERIES + 7 * WIDE_STREAMED, PIECES_ALIGNMENT);
    }

    private final Cuda cuda;
    private final CudaTransfers transfers;
    /// By the elements of a head, whether the kernel of warpgroups gives the bits of the others on this card.
    private final Map<Integer, Boolean> sameBits = new HashMap<>();
    private boolean shortageTold;

    CudaAttention(Cuda cuda, CudaTransfers transfers) {
        this.cuda = cuda;
        this.transfers = transfers;
    }

    PagePool pagePool(PagePool.Format format, int limit) {
        return new CudaPages(cuda, format, limit);
    }

    Sequences sequences(Scope scope, List<Sequence> sequences) {
        return new CudaSequences(sequences, transfers, scope);
    }

    private Kernels.Kernel kernel(String name) {
        return cuda.kernels().of(name);
    }

    private static CudaTensor floats(Tensor tensor) {
        return CudaTensor.of(tensor).floats();
    }

    /// Norms, rotations and pages by one kernel, with the bits of theirs.
    ///
    /// @return whether it has done so; heads of other lengths need theirs
    boolean prepareHeads(HeadInputs inputs) {
        int headDim = inputs.headDim();
        if (headDim % PAIRS != 0 || headDim > MOST_HEAD_DIM) return false;
        var queries = inputs.queries();
        var keys = inputs.keys();
        var rotation = inputs.rotation();
        int rows = queries.to().rows();
        var pages = inputs.pages();
        pages.ifPresent(to -> requirePages(to, keys.to()));
        int heads = (queries.to().columns() + keys.to().columns() * (pages.isPresent() ? 2 : 1)) / headDim;
        var kernel = kernel("prepare_heads");
        inputs.parts().forEach(part -> with(kernel, part));
        kernel.withOptional(pages.map(to -> floats(to.values())))
                .with(CudaRows.column(rotation.positions(), rows)).with(floats(rotation.cos()))
                .with(floats(rotation.sin())).with(cuda.faults());
        destination(kernel, headDim, pages).launch(Cuda.blocks((long) rows * heads, BLOCK / WARP), BLOCK);
        return true;
    }

    private static void with(Kernels.Kernel kernel, HeadInputs.Part part) {
        kernel.with(floats(part.to())).with(floats(part.raw()))
                .withOptional(part.norm().map(norm -> floats(norm.weight())))
                .withOptional(part.norm().map(norm -> floats(norm.inverse())))
                .with(part.norm().map(HeadInputs.Norm::eps).orElse(0f));
    }

    /// Where a kernel finds the pages of rows: none without them.
    private static Kernels.Kernel destination(Kernels.Kernel kernel, int headDim,
            Optional<HeadInputs.Pages> to) {
        if (to.isEmpty()) return kernel.with(0L).with(0L).with(0L).with(0L).with(0L).with(0L).with(headDim)
                .with(0);
        var pages = CudaPages.of(to.get().pool());
        var sequences = CudaSequences.of(to.get().sequences());
        int layer = to.get().layer();
        return kernel.with(pages.table()).with(sequences.blockTable()).with(pages.offset(layer, false))
                .with(pages.offset(layer, true)).with(sequences.spans()).with(sequences.rowSpans())
                .with(headDim).with(pages.format().dtype().ordinal());
    }

    private static void requirePages(HeadInputs.Pages to, Tensor keys) {
        var pages = CudaPages.of(to.pool());
        var sequences = CudaSequences.of(to.sequences());
        var format = pages.format();
        require(keys.rows() == sequences.rows() && keys.columns() == format.kvHeads() * format.headDim(),
                "keys [%d, %d] for %d rows", keys.rows(), keys.columns(), sequences.rows());
        requirePages(pages, sequences);
    }

    void append(PagePool pool, int layer, Tensor keys, Tensor values, Sequences given) {
        var to = new HeadInputs.Pages(pool, layer, values, given);
        CudaTensor.sameShape(keys, values);
        requirePages(to, keys);
        destination(kernel("append_pages").with(floats(keys)).with(floats(values)),
                CudaPages.of(pool).format().headDim(), Optional.of(to)).launch(keys.rows(), APPEND_BLOCK);
    }

    private static void requirePages(CudaPages pages, CudaSequences sequences) {
        sequences.requirePages(true);
        if (sequences.lastPage() >= 0) pages.page(sequences.lastPage());
    }

    void copyPage(PagePool pool, int to, int from) {
        var pages = CudaPages.of(pool);
        long target = pages.page(to);
        long source = pages.page(from);
        if (to != from) cuda.driver().onDevice(target, source, pages.pageBytes(), cuda.compute());
    }

    /// Keys and values of a call, as kernels take them.
    private record Source(CudaTensor keys, CudaTensor values, long pages, long keyOffset, long valueOffset) {}

    private static Source source(KeyValues given, CudaSequences sequences, AttentionShape shape) {
        int width = shape.kvHeads() * shape.headDim();
        switch (given) {
            case KeyValues.Packed packed -> {
                sequences.requirePages(false);
                var keys = floats(packed.keys());
                var values = floats(packed.values());
                require(keys.rows() == sequences.rows() && keys.columns() == width,
                        "keys [%d, %d] for %d rows of %d", keys.rows(), keys.columns(), sequences.rows(),
                        width);
                CudaTensor.sameShape(keys, values);
                return new Source(keys, values, 0, 0, 0);
            }
            case KeyValues.Paged paged -> {
                var pages = CudaPages.of(paged.pool());
                requirePages(pages, sequences);
                var format = pages.format();
                require(format.kvHeads() == shape.kvHeads() && format.headDim() == shape.headDim(),
                        "pages of %s for %s", format, shape);
                // only the element type: the rows are those of pages
                var any = new CudaTensor(0, format.dtype(), 0, width, width);
                return new Source(any, any, pages.table(), pages.offset(paged.layer(), false),
                        pages.offset(paged.layer(), true));
            }
        }
    }

    private static void check(CudaTensor q, CudaSequences sequences, AttentionShape shape) {
        require(shape.heads() % shape.kvHeads() == 0, "%d heads share %d", shape.heads(), shape.kvHeads());
        require(q.columns() == shape.heads() * shape.headDim() && q.rows() == sequences.rows(),
                "q [%d, %d] for %d rows", q.rows(), q.columns(), sequences.rows());
        require(shape.headDim() <= MOST_HEAD_DIM, "heads of %d elements", shape.headDim());
    }

    void attention(Tensor to, Tensor logarithms, Tensor queries, KeyValues given, Sequences over,
            AttentionShape shape) {
        var sequences = CudaSequences.of(over);
        var q = floats(queries);
        var out = floats(to);
        var lse = floats(logarithms);
        check(q, sequences, shape);
        CudaTensor.sameShape(out, q);
        require(lse.rows() == q.rows() && lse.columns() == shape.heads(), "lse [%d, %d]", lse.rows(),
                lse.columns());
        var source = source(given, sequences, shape);
        var operands = List.of(out, lse, q);
        if (onTensorCores(shape, out, q, source.keys, source.values))
            forward(form(q.rows(), sequences, shape), operands, source, sequences, shape);
        else forward("attention", operands, source, sequences, QUERIES, shape, BLOCK,
                4 * ((QUERIES + Device.BLOCK) * (shape.headDim() | 1) + QUERIES * Device.BLOCK));
    }

    /// Bytes of a layer's keys and values that attention over these sequences reads from pages.
    static long bytesRead(KeyValues.Paged from, Sequences over) {
        long positions = CudaSequences.of(over).sequences().stream().mapToLong(sequence -> sequence.position()
                + sequence.count()).sum();
        var format = from.pool().format();
        return positions * 2 * format.kvHeads() * format.headDim() * format.dtype().bytes();
    }

    private Form form(int rows, CudaSequences sequences, AttentionShape shape) {
        if (sequences.decodes()) return Form.FEW_QUERIES; // whatever is known of the others
        long queries = (long) rows * (shape.heads() / shape.kvHeads());
        if (queries < 2L * MMA_QUERIES * sequences.sequences().size()) return Form.FEW_QUERIES;
        return cuda.card().warpgroups() && sameBits(shape.headDim()) ? Form.WARPGROUPS : Form.MANY_QUERIES;
    }

    /// Whether the kernel of warpgroups gives the bits of the one for few queries, which a sampler uses where
    /// a trainer uses this one. Both add terms in steps of 16 from the first to the last, but how the card
    /// adds those of a step is not documented: both compute random operands, once for heads of this many
    /// elements. That call waits for the card.
    private boolean sameBits(int headDim) {
        Boolean known = sameBits.get(headDim);
        if (known != null) return known;
        long different;
        try (var scope = cuda.memory().scope()) {
            different = different(headDim, scope);
        } catch (OutOfDeviceMemory full) {
            if (!shortageTold) log.warn("no memory to compare the kernels of attention, so the slower one is"
                    + " used until there is some: {}", full.getMessage());
            shortageTold = true;
            return false;
        }
        sameBits.put(headDim, different == 0);
        if (different > 0) log.warn("products of warpgroups have other bits than those of warps on this card"
                + " ({} different results): attention over heads of {} elements uses warps, which is slower",
                different, headDim);
        return different == 0;
    }

    private long different(int headDim, Scope scope) {
        var shape = new AttentionShape(COMPARED_HEADS, COMPARED_KEY_HEADS, headDim,
                COMPARED_SCALE, 0);
        var memory = cuda.memory();
        var sequences = new CudaSequences(List.of(new Sequence(0, COMPARED_POSITIONS, 0, new int[0])),
                transfers, scope);
        var q = memory.scratch(scope, DType.BF16, COMPARED_POSITIONS, shape.heads() * headDim);
        var keys = memory.scratch(scope, DType.BF16, COMPARED_POSITIONS, shape.kvHeads() * headDim);
        var values = memory.scratch(scope, DType.BF16, COMPARED_POSITIONS, shape.kvHeads() * headDim);
        var different = new DifferentBits(cuda, scope);
        List.of(q, keys, values).forEach(different::scatter);
        var source = new Source(keys, values, 0, 0, 0);
        List<List<CudaTensor>> results = new ArrayList<>();
        for (var form : List.of(Form.FEW_QUERIES, Form.WARPGROUPS)) {
            var out = memory.scratch(scope, DType.BF16, q.rows(), q.columns());
            var lse = memory.scratch(scope, DType.F32, q.rows(), shape.heads());
            forward(form, List.of(out, lse, q), source, sequences, shape);
            results.add(List.of(out, lse));
        }
        for (int i = 0; i < 2; i++) different.add(results.getFirst().get(i), results.getLast().get(i));
        return different.read();
    }

    private void forward(Form form, List<CudaTensor> operands, Source source, CudaSequences sequences,
            AttentionShape shape) {
        forward(narrow(shape) ? form.of64 : form.of128, operands, source, sequences, form.queries, shape,
                form.block, form.rows * 2 * shape.headDim() + form.more);
    }

    private void forward(String name, List<CudaTensor> operands, Source source, CudaSequences sequences,
            int queries, AttentionShape shape, int block, int sharedBytes) {
        var tiles = sequences.tiles(queries, shape.heads() / shape.kvHeads());
        var kernel = kernel(name);
        operands.forEach(kernel::with);
        shape(kernel.with(source.keys).with(source.values).with(source.pages).with(sequences.blockTable())
                .with(source.keyOffset).with(source.valueOffset).with(sequences.spans())
                .with(tiles.address()), shape).launch(blocks(tiles, shape), 1, 1, block, sharedBytes);
    }

    /// A block for each tile and key head, heads of a tile beside each other: the longest tiles come first.
    private static int blocks(CudaSequences.Tiles tiles, AttentionShape shape) {
        return Math.multiplyExact(tiles.count(), shape.kvHeads());
    }

    private static String suffix(AttentionShape shape) {
        return narrow(shape) ? "_64" : "_128";
    }

    private static boolean narrow(AttentionShape shape) {
        return shape.headDim() == 64;
    }

    /// Whether tensor cores compute it: all operands are BF16, with rows of whole 16-byte pieces.
    private static boolean onTensorCores(AttentionShape shape, CudaTensor... operands) {
        if (!narrow(shape) && shape.headDim() != 128 || shape.scale() <= 0) return false;
        for (var t : operands)
            if (t.dtype() != DType.BF16 || t.address() % 16 != 0 || t.stride() % 8 != 0) return false;
        return true;
    }

    void attentionBackward(Tensor dqGiven, Tensor dkGiven, Tensor dvGiven, Tensor doutGiven, Tensor outGiven,
            Tensor lseGiven, Tensor qGiven, KeyValues.Packed given, Sequences over, AttentionShape shape) {
        var sequences = CudaSequences.of(over);
        var q = floats(qGiven);
        var dout = floats(doutGiven);
        var lse = floats(lseGiven);
        check(q, sequences, shape);
        sequences.requireWhole();
        CudaTensor.sameShape(dqGiven, q);
        CudaTensor.sameShape(dout, q);
        CudaTensor.sameShape(outGiven, q);
        CudaTensor.sameShape(dkGiven, given.keys());
        CudaTensor.sameShape(dvGiven, given.values());
        require(lse.rows() == q.rows() && lse.columns() == shape.heads(), "lse [%d, %d]", lse.rows(),
                lse.columns());
        var source = source(given, sequences, shape);
        try (var scope = cuda.memory().scope()) {
            var delta = cuda.memory().scratch(scope, DType.F32, q.rows(), shape.heads());
            kernel("attention_delta").with(delta).with(dout).with(floats(outGiven)).with(shape.headDim())
                    .launch(Cuda.blocks(delta.elements(), DELTAS), BLOCK);
            var ofQueries = List.of(floats(dqGiven), dout, lse, delta, q, source.keys, source.values);
            var ofKeys = List.of(floats(dkGiven), floats(dvGiven), dout, lse, delta, q, source.keys,
                    source.values);
            if (onTensorCores(shape, q, dout, floats(dqGiven), floats(dkGiven), floats(dvGiven), source.keys,
                    source.values)) backwardOnTensorCores(ofQueries, ofKeys, sequences, shape);
            else {
                int stride = shape.headDim() | 1;
                backward("attention_backward_queries", ofQueries, sequences, sequences.tiles(QUERIES,
                        shape.heads() / shape.kvHeads()), shape, BLOCK,
                        4 * ((2 * QUERIES + Device.BLOCK) * stride + QUERIES * Device.BLOCK));
                backward("attention_backward_keys", ofKeys, sequences, sequences.tilesOfKeys(KEYS), shape,
                        BLOCK,
                        4 * 2 * ((KEYS + QUERIES) * stride + KEYS * QUERIES));
            }
        }
    }

    private void backwardOnTensorCores(List<CudaTensor> ofQueries, List<CudaTensor> ofKeys,
            CudaSequences sequences, AttentionShape shape) {
        int row = 2 * shape.headDim();
        String suffix = suffix(shape);
        if (cuda.card().warpgroups()) {
            backward("attention_wgmma_backward_queries" + suffix, ofQueries, sequences,
                    sequences.tiles(RESIDENT, shape.heads() / shape.kvHeads()), shape, BLOCK,
                    (2 * RESIDENT + 7 * WIDE_STREAMED) * row + PIECES_ALIGNMENT);
            backward("attention_wgmma_backward_keys" + suffix, ofKeys, sequences,
                    sequences.tilesOfKeys(RESIDENT), shape, BLOCK,
                    (2 * RESIDENT + 8 * WIDE_STREAMED) * row + 4 * 8 * WIDE_STREAMED + PIECES_ALIGNMENT);
            return;
        }
        backward("attention_mma_backward_queries" + suffix, ofQueries, sequences,
                sequences.tiles(MMA_QUERIES, shape.heads() / shape.kvHeads()), shape, MMA_BLOCK,
                QUERIES_ROWS * row);
        backward("attention_mma_backward_keys" + suffix, ofKeys, sequences,
                sequences.tilesOfKeys(Device.BLOCK), shape, MMA_BLOCK, KEYS_ROWS * row + 4 * 4 * STREAMED);
    }

    private void backward(String name, List<CudaTensor> operands, CudaSequences sequences,
            CudaSequences.Tiles tiles, AttentionShape shape, int block, int sharedBytes) {
        var kernel = kernel(name);
        operands.forEach(kernel::with);
        shape(kernel.with(sequences.spans()).with(tiles.address()), shape).launch(
                blocks(tiles, shape), 1, 1, block, sharedBytes);
    }

    private static Kernels.Kernel shape(Kernels.Kernel kernel, AttentionShape shape) {
        return kernel.with(shape.heads()).with(shape.kvHeads()).with(shape.headDim()).with(shape.window())
                .with(shape.scale());
    }
}
