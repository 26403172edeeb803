package bios.worker.device.cuda;

import bios.worker.device.AttentionShape;
import bios.worker.device.CardState;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.DeviceLost;
import bios.worker.device.Draw;
import bios.worker.device.Draws;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.HostArray;
import bios.worker.device.KeyValues;
import bios.worker.device.LossTerms;
import bios.worker.device.PagePool;
import bios.worker.device.Readback;
import bios.worker.device.Sequence;
import bios.worker.device.Sequences;
import bios.worker.device.Slot;
import bios.worker.device.Slots;
import bios.worker.device.Snapshot;
import bios.worker.device.EmbeddingTable;
import bios.worker.device.HeadInputs;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import java.util.List;
import java.util.Optional;

/// An NVIDIA card as a device. All verbs are put on one stream of the card, in the order of the calls.
final class CudaDevice implements Device {
    private final Cuda cuda;
    private final CudaTransfers transfers;
    private final WeightLoader loader;
    private final CudaRows rows;
    private final CudaOptimizer optimizer;
    private final CudaProducts products;
    private final CudaAttention attention;
    private final CudaSampling sampling;
    private final CudaGraphs graphs;
    private final Optional<Nvml> monitor;
    private boolean closed;

    /// @param graphs whether passes that repeat are graphs
    CudaDevice(Cuda cuda, boolean graphs) {
        this.cuda = cuda;
        transfers = new CudaTransfers(cuda);
        loader = new WeightLoader(cuda);
        rows = new CudaRows(cuda);
        optimizer = new CudaOptimizer(cuda, transfers);
        products = new CudaProducts(cuda, transfers, loader);
        cuda.memory().beforeScopesClose(products::flush);
        attention = new CudaAttention(cuda, transfers);
        sampling = new CudaSampling(cuda, transfers, rows);
        this.graphs = new CudaGraphs(cuda, products::flush, graphs);
        monitor = Nvml.of(cuda.card());
    }

    @Override public String description() {
        return "CUDA, %s, %s, %s".formatted(cuda.card().name(), cuda.card().architecture(),
                products.description());
    }

    @Override public Optional<CardState> card() {
        return monitor.map(Nvml::state);
    }

    @Override public DType activationType() {
        return DType.BF16;
    }

    // ---- parts, after all products that wait for others of the same rows ----

    private CudaTransfers transfers() {
        products.flush();
        return transfers;
    }

    private WeightLoader loader() {
        products.flush();
        return loader;
    }

    private CudaRows rows() {
        products.flush();
        return rows;
    }

    private CudaOptimizer optimizer() {
        products.flush();
        return optimizer;
    }

    private CudaAttention attention() {
        products.flush();
        return attention;
    }

    private CudaSampling sampling() {
        products.flush();
        return sampling;
    }

    // ---- memory ----

    @Override public long memoryLimit() {
        return cuda.memory().limit();
    }

    @Override public long memoryInUse() {
        return cuda.memory().inUse();
    }

    @Override public void trim() {
        loader.releaseUnused();
    }

    @Override public void releaseUnused() {
        graphs.drop();
        loader.releaseUnused();
        cuda.memory().dropIdle();
    }

    @Override public Tensor tensor(DType dtype, int rows, int columns) {
        return cuda.memory().tensor(dtype, rows, columns);
    }

    @Override public void free(Tensor tensor) {
        products.flush();
        cuda.memory().free(tensor);
    }

    @Override public Scope scope() {
        return cuda.memory().scope();
    }

    @Override public Tensor scratch(Scope scope, DType dtype, int rows, int columns) {
        return cuda.memory().scratch(scope, dtype, rows, columns);
    }

    @Override public Weight weight(FrozenMatrix matrix) {
        products.flush();
        return products.packWeight(matrix);
    }

    @Override public long weightBytes(FrozenMatrix matrix) {
        return products.packedBytes(matrix);
    }

    @Override public EmbeddingTable table(FrozenMatrix matrix) {
        return new CudaTable(loader().load(matrix));
    }

    @Override public PagePool pagePool(PagePool.Format format, int limit) {
        return attention().pagePool(format, limit);
    }

    // ---- transfers ----

    @Override public List<Tensor> upload(Scope scope, List<? extends HostArray> arrays) {
        return transfers().upload(scope, arrays);
    }

    @Override public Readback readback(List<Tensor> tensors) {
        return transfers().readback(tensors);
    }

    @Override public void read(Tensor from, float[] to, int at) {
        transfers().read(from, to, at);
    }

    @Override public void write(Tensor to, float[] from, int at) {
        transfers().write(to, from, at);
    }

    @Override public Snapshot snapshot(List<Tensor> tensors) {
        products.flush();
        return new CudaSnapshot(cuda, transfers, rows, tensors);
    }

    // ---- data of a pass ----

    @Override public Slots slots(Scope scope, List<Slot> slots) {
        products.flush();
        return products.slots(scope, slots);
    }

    @Override public Sequences sequences(Scope scope, List<Sequence> sequences) {
        return attention().sequences(scope, sequences);
    }

    @Override public Draws draws(Scope scope, List<Draw> draws) {
        return sampling().draws(scope, draws);
    }

    @Override public Tensor repeat(Scope scope, Object what, List<Tensor> inputs, Slots slots,
            Sequences sequences, PagePool pages, Repeated verbs) {
        products.flush();
        return graphs.repeat(scope, what, inputs, slots, sequences, pages, verbs);
    }

    /// Passes that were launched as one graph so far.
    long graphLaunches() {
        return graphs.launches();
    }

    /// Graphs that were made so far.
    long graphCaptures() {
        return graphs.captures();
    }

    /// Bytes that graphs keep.
    long graphBytes() {
        return graphs.bytes();
    }

    // ---- products ----

    @Override public void lowRank(List<Tensor> lows, Tensor x, Slots slots, List<Integer> sites) {
        products.flush();
        products.lowRank(lows, x, slots, sites);
    }

    @Override public void project(Tensor y, Tensor x, Weight w, Optional<Tensor> bias, Optional<Tensor> onto,
            Slots slots, int site, Optional<Tensor> low) {
        products.project(y, x, w, bias, onto, slots, site, low);
    }

    @Override public void projectBack(Optional<Tensor> dx, boolean add, Tensor dy, Tensor x, Weight w,
            Slots slots, int site, Optional<Tensor> low) {
        products.flush();
        products.projectBack(dx, add, dy, x, w, slots, site, low);
    }

    // ---- layers ----

    @Override public void fill(Tensor to, float value) {
        rows().fill(to, value);
    }

    @Override public void copy(Tensor to, Tensor from) {
        rows().copy(to, from);
    }

    @Override public void embed(Tensor y, Tensor ids, EmbeddingTable table) {
        rows().embed(y, ids, table);
    }

    @Override public void gather(Tensor y, Tensor x, Tensor rows) {
        rows().gather(y, x, rows);
    }

    @Override public void rmsNorm(Tensor y, Tensor inverse, Tensor x, Tensor weight, float eps) {
        rows().rmsNorm(y, inverse, x, weight, eps);
    }

    @Override public void rmsNormBackwardAdd(Tensor dx, Tensor dy, Tensor x, Tensor inverse, Tensor weight) {
        rows().rmsNormBackwardAdd(dx, dy, x, inverse, weight);
    }

    @Override public void rope(Tensor x, Tensor positions, int headDim, Tensor cos, Tensor sin) {
        rows().rope(x, positions, headDim, cos, sin, 1);
    }

    @Override public void ropeBackward(Tensor dx, Tensor positions, int headDim, Tensor cos, Tensor sin) {
        rows().rope(dx, positions, headDim, cos, sin, -1);
    }

    @Override public void swiglu(Tensor y, Tensor gate, Tensor up) {
        rows().swiglu(y, gate, up);
    }

    @Override public void swigluBackward(Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up) {
        rows().swigluBackward(dgate, dup, dy, gate, up);
    }

    // ---- attention ----

    @Override public void prepareHeads(HeadInputs inputs) {
        if (!attention().prepareHeads(inputs)) inputs.prepareSingly(this);
    }

    @Override public void append(PagePool pool, int layer, Tensor keys, Tensor values, Sequences sequences) {
        attention().append(pool, layer, keys, values, sequences);
    }

    @Override public void copyPage(PagePool pool, int to, int from) {
        attention().copyPage(pool, to, from);
    }

    @Override public void attention(Tensor out, Tensor lse, Tensor q, KeyValues source, Sequences sequences,
            AttentionShape shape) {
        attention().attention(out, lse, q, source, sequences, shape);
        if (source instanceof KeyValues.Paged paged)
            products.reads(CudaAttention.bytesRead(paged, sequences));
    }

    @Override public void attentionBackward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out,
            Tensor lse, Tensor q, KeyValues.Packed source, Sequences sequences, AttentionShape shape) {
        attention().attentionBackward(dq, dk, dv, dout, out, lse, q, source, sequences, shape);
    }

    // ---- loss ----

    @Override public void logSoftmaxAt(Tensor logprobs, Tensor lse, Tensor logits, Tensor targets) {
        rows().logSoftmaxAt(logprobs, lse, logits, targets);
    }

    @Override public void logSoftmaxBackward(Tensor logits, Tensor lse, Tensor targets, Tensor dlogprobs) {
        rows().logSoftmaxBackward(logits, lse, targets, dlogprobs);
    }

    @Override public void lossGradient(Tensor dlogprobs, Tensor logprobs, LossTerms terms) {
        rows().lossGradient(dlogprobs, logprobs, terms);
    }

    // ---- sampling ----

    @Override public void sample(Tensor tokens, Tensor logprobs, Tensor own, Tensor logits, Draws draws) {
        sampling().sample(tokens, logprobs, own, logits, draws);
    }

    @Override public void top(Tensor ids, Tensor logprobs, Tensor logits, Tensor lse) {
        sampling().top(ids, logprobs, logits, lse);
    }

    // ---- optimizer ----

    @Override public void add(List<Tensor> y, List<Tensor> x) {
        optimizer().add(y, x);
    }

    @Override public void sumOfSquares(Tensor sum, List<Tensor> x) {
        optimizer().sumOfSquares(sum, x);
    }

    @Override public void adamW(Tensor notFinite, List<Tensor> w, List<Tensor> m, List<Tensor> v,
            List<Tensor> g, Tensor sumOfSquares, AdamStep step) {
        optimizer().adamW(notFinite, w, m, v, g, sumOfSquares, step);
    }

    /// A lost device has nothing left to free.
    @Override public void close() {
        if (closed) return;
        closed = true;
        try {
            cuda.driver().await(cuda.compute());
            cuda.driver().await(cuda.copies());
            graphs.drop();
            loader.close();
            products.close();
            cuda.memory().close();
            cuda.pinned().close();
            cuda.kernels().close();
            cuda.computing().close();
            cuda.driver().destroy(cuda.copies());
        } catch (DeviceLost _) {
            // the process ends
        } finally {
            cuda.driver().close();
        }
    }
}
