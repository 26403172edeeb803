package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.Activations;
import bios.worker.device.AttentionShape;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.DeviceSettings;
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
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import bios.worker.kernel.HalfFloats;
import bios.worker.kernel.Losses;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;

/// The CPU as a device: the kernels of [bios.worker.kernel] row by row over a fixed number of threads.
final class CpuDevice implements Device {
    /// A look-up of more rows than this loads so much of a mapped table that its pages are released
    /// afterwards.
    private static final int RELEASE_ABOVE_ROWS = 64;

    private interface RowTask {
        void run(int row, Workspace space);
    }

    private final Pool pool;
    private final Workspace[] workspaces;
    private final Memory memory;
    private final Products products;
    private final CpuAttention attention;
    private final RowVerbs rows;
    private final Fp32Operands.Source fp32;
    private final AdapterProducts adapted;
    private final SamplingVerbs sampling;
    private final OptimizerVerbs optimizer;
    /// Address of the matrix that was packed last: a tied embedding was checked with its head.
    private long lastWeight;

    /// The device that the settings describe.
    static CpuDevice open(DeviceSettings settings) {
        var path = CpuPath.of(settings.path());
        return new CpuDevice(path, settings.threads(),
                settings.activations().orElseGet(path::bestActivations), settings.memoryBytes());
    }

    private CpuDevice(CpuPath path, int threads, Activations activations, long memoryBytes) {
        if (path.family() == CpuPath.Family.ONEDNN) path.oneDnn();   // throws before a thread is started
        memory = new Memory(memoryBytes);
        pool = new Pool(threads);
        workspaces = new Workspace[threads];
        for (int i = 0; i < threads; i++) workspaces[i] = new Workspace();
        products = switch (path.family()) {
            case OWN -> new Avx512Products(pool, memory, activations, path == CpuPath.OWN_AVX512_BF16);
            case ONEDNN -> new DnnlProducts(path.oneDnn(), pool, memory, workspaces, activations);
            case PLAIN -> new PlainProducts(pool, memory, workspaces, activations);
        };
        rows = switch (path.family()) {
            case OWN -> new Avx512Rows(pool, memory);
            case ONEDNN, PLAIN -> new PlainRows(pool, workspaces);
        };
        attention = switch (path.family()) {
            case OWN -> new Avx512Attention(pool, memory);
            case ONEDNN -> new DnnlAttention(path.oneDnn(), pool, memory, workspaces);
            case PLAIN -> new PlainAttention(pool, workspaces);
        };
        fp32 = new Fp32Operands.Source(memory, pool, workspaces);
        adapted = new AdapterProducts(products);
        sampling = new SamplingVerbs(pool, rows);
        optimizer = new OptimizerVerbs(pool, workspaces);
    }

    @Override public String description() {
        return "CPU, %d threads, %s".formatted(pool.size(), products.description());
    }

    Products products() {
        return products;
    }

    CpuAttention attention() {
        return attention;
    }

    RowVerbs rows() {
        return rows;
    }

    private static HostTensor host(Tensor tensor) {
        return HostTensor.of(tensor);
    }

    private void eachRow(int rows, int columns, RowTask body) {
        pool.rows(rows, columns, 16, (row, thread) -> body.run(row, workspaces[thread]));
    }

    // ---- memory ----

    @Override public boolean ownMemory() {
        return false;
    }

    @Override public long memoryLimit() {
        return memory.limit();
    }

    @Override public long memoryInUse() {
        return memory.inUse();
    }

    @Override public void trim() {
        Linux.trim();
    }

    @Override public void releaseUnused() {
        memory.dropIdle();
        Linux.trim();
    }

    @Override public Tensor tensor(DType dtype, int rows, int columns) {
        return memory.tensor(dtype, rows, columns);
    }

    @Override public void free(Tensor tensor) {
        memory.free(host(tensor));
    }

    @Override public Scope scope() {
        return memory.scope();
    }

    @Override public Tensor scratch(Scope scope, DType dtype, int rows, int columns) {
        return memory.scratch(scope, dtype, rows, columns);
    }

    @Override public Weight weight(FrozenMatrix matrix) {
        long bytes = (long) matrix.rows() * matrix.columns() * matrix.dtype().bytes();
        require(matrix.memory().byteSize() >= bytes, "a matrix of %d bytes in %d", bytes,
                matrix.memory().byteSize());
        Weight packed = products.packWeight(matrix);
        lastWeight = matrix.memory().address();
        return packed;
    }

    @Override public long weightBytes(FrozenMatrix matrix) {
        return products.packedBytes(matrix);
    }

    @Override public EmbeddingTable table(FrozenMatrix matrix) {
        if (matrix.memory().address() != lastWeight) FiniteScan.all(matrix, pool);
        return new HostTable(matrix);
    }

    @Override public PagePool pagePool(PagePool.Format shape, int limit) {
        return new HostPages(memory, shape, limit);
    }

    // ---- transfers ----

    @Override public List<Tensor> upload(Scope scope, List<? extends HostArray> arrays) {
        List<HostTensor> tensors = memory.scratch(scope, arrays);
        for (int i = 0; i < arrays.size(); i++) {
            var to = tensors.get(i).memory();
            switch (arrays.get(i)) {
                case HostArray.Ints ints ->
                    MemorySegment.copy(ints.values(), 0, to, ValueLayout.JAVA_INT, 0, ints.values().length);
                case HostArray.Floats floats -> MemorySegment.copy(floats.values(), 0, to,
                        ValueLayout.JAVA_FLOAT, 0, floats.values().length);
            }
        }
        return List.copyOf(tensors);
    }

    @Override public Readback readback(List<Tensor> tensors) {
        return HostReadback.of(tensors);
    }

    @Override public void read(Tensor from, float[] to, int at) {
        HostReadback.read(host(from), to, at);
    }

    @Override public void write(Tensor to, float[] from, int at) {
        HostReadback.write(host(to), from, at);
    }

    @Override public Snapshot snapshot(List<Tensor> tensors) {
        var snapshot = new HostSnapshot(memory, tensors);
        for (int i = 0; i < tensors.size(); i++) copy(snapshot.copies().get(i), tensors.get(i));
        return snapshot;
    }

    // ---- data of a pass ----

    @Override public Slots slots(Scope scope, List<Slot> slots) {
        return new HostSlots(slots);
    }

    @Override public Sequences sequences(Scope scope, List<Sequence> sequences) {
        return HostSequences.of(sequences);
    }

    @Override public Draws draws(Scope scope, List<Draw> draws) {
        return new HostDraws(List.copyOf(draws), 0);
    }

    // ---- products ----

    @Override public void lowRank(List<Tensor> lows, Tensor x, Slots slots, List<Integer> sites) {
        fp32.run(f -> adapted.lowRank(lows, x, HostSlots.of(slots), sites, f));
    }

    @Override public void project(Tensor y, Tensor x, Weight w, Optional<Tensor> bias, Optional<Tensor> onto,
            Slots slots, int site, Optional<Tensor> low) {
        fp32.run(f -> adapted.project(y, x, w, bias, onto, HostSlots.of(slots), site, low, f));
    }

    @Override public void projectBack(Optional<Tensor> dx, boolean add, Tensor dy, Tensor x, Weight w,
            Slots slots, int site, Optional<Tensor> low) {
        fp32.run(f -> adapted.projectBack(dx, add, dy, x, w, HostSlots.of(slots), site, low, f));
    }

    // ---- layers ----

    @Override public void fill(Tensor to, float value) {
        eachRow(to.rows(), to.columns(), (row, space) -> {
            float[] values = space.row(0, to.columns());
            Arrays.fill(values, 0, to.columns(), value);
            FloatRows.store(host(to), row, 0, values, 0, to.columns(), space.shorts(to.columns()));
        });
    }

    @Override public void copy(Tensor target, Tensor source) {
        HostTensor to = host(target);
        HostTensor from = host(source);
        RowVerbs.sameShape(to, from);
        if (to.dtype() != from.dtype()) FloatRows.convert(to, from, pool, workspaces);
        else eachRow(to.rows(), to.columns(), (row, _) -> Rows.copy(to, row, from, row));
    }

    @Override public void embed(Tensor y, Tensor ids, EmbeddingTable table) {
        var matrix = HostTable.of(table).matrix();
        int[] tokens = Rows.column(host(ids), y.rows());
        HostTensor to = host(y);
        int n = y.columns();
        require(matrix.columns() == n, "rows of %d elements from a table of %d", n, matrix.columns());
        try {
            eachRow(tokens.length, n, (row, space) -> {
                require(tokens[row] >= 0 && tokens[row] < matrix.rows(), "token %d of %d", tokens[row],
                        matrix.rows());
                float[] values = space.row(0, n);
                HalfFloats.row(values, matrix, tokens[row]);
                FloatRows.store(to, row, 0, values, 0, n, space.shorts(n));
            });
        } finally {
            matrix.unchanged().run();   // also where a truncated file has made a read fail
        }
        if (tokens.length > RELEASE_ABOVE_ROWS && matrix.memory().isMapped()) Linux.release(matrix.memory());
    }

    @Override public void gather(Tensor y, Tensor x, Tensor rows) {
        HostTensor to = host(y);
        HostTensor from = host(x);
        int[] numbers = Rows.column(host(rows), y.rows());
        require(to.columns() == from.columns() && to.dtype() == from.dtype(), "rows of [%d] %s from [%d] %s",
                to.columns(), to.dtype(), from.columns(), from.dtype());
        eachRow(numbers.length, to.columns(), (row, _) -> {
            require(numbers[row] >= 0 && numbers[row] < from.rows(), "row %d of %d", numbers[row],
                    from.rows());
            Rows.copy(to, row, from, numbers[row]);
        });
    }

    @Override public void rmsNorm(Tensor y, Tensor inverse, Tensor x, Tensor weight, float eps) {
        fp32.run(f -> rows.rmsNorm(f.write(y), f.write(inverse), f.read(x), f.read(weight), eps));
    }

    @Override public void rmsNormBackwardAdd(Tensor dx, Tensor dy, Tensor x, Tensor inverse, Tensor weight) {
        fp32.run(f -> rows.rmsNormBackwardAdd(f.update(dx), f.read(dy), f.read(x), f.read(inverse),
                f.read(weight)));
    }

    @Override public void rope(Tensor x, Tensor positions, int headDim, Tensor cos, Tensor sin) {
        int[] at = Rows.column(host(positions), x.rows());
        fp32.run(f -> rows.rope(f.update(x), at, headDim, f.read(cos), f.read(sin)));
    }

    @Override public void ropeBackward(Tensor dx, Tensor positions, int headDim, Tensor cos, Tensor sin) {
        int[] at = Rows.column(host(positions), dx.rows());
        fp32.run(f -> rows.ropeBackward(f.update(dx), at, headDim, f.read(cos), f.read(sin)));
    }

    @Override public void swiglu(Tensor y, Tensor gate, Tensor up) {
        fp32.run(f -> rows.swiglu(f.write(y), f.read(gate), f.read(up)));
    }

    @Override public void swigluBackward(Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up) {
        fp32.run(f -> rows.swigluBackward(f.write(dgate), f.write(dup), f.read(dy), f.read(gate),
                f.read(up)));
    }

    // ---- attention ----

    @Override public void append(PagePool pool, int layer, Tensor keys, Tensor values, Sequences sequences) {
        var pages = HostPages.of(pool);
        try (var scope = memory.scope()) {
            KeyValueSpans.append(pages, layer, as(pages.format().dtype(), host(keys), scope),
                    as(pages.format().dtype(), host(values), scope), HostSequences.of(sequences), this.pool);
        }
    }

    /// The tensor, or a copy in another element type.
    private HostTensor as(DType dtype, HostTensor tensor, Scope scope) {
        if (tensor.dtype() == dtype) return tensor;
        var converted = memory.scratch(scope, dtype, tensor.rows(), tensor.columns());
        FloatRows.convert(converted, tensor, pool, workspaces);
        return converted;
    }

    @Override public void copyPage(PagePool pool, int to, int from) {
        var pages = HostPages.of(pool);
        copy(pages.page(to).memory(), pages.page(from).memory());
    }

    @Override public void attention(Tensor out, Tensor lse, Tensor q, KeyValues source, Sequences sequences,
            AttentionShape shape) {
        fp32.run(f -> attention.forward(f.write(out), f.write(lse), f.read(q),
                KeyValueSpans.of(source, HostSequences.of(sequences), f), shape));
    }

    @Override public void attentionBackward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out,
            Tensor lse, Tensor q, KeyValues.Packed source, Sequences sequences, AttentionShape shape) {
        fp32.run(f -> attention.backward(f.write(dq), f.write(dk), f.write(dv), f.read(dout), f.read(out),
                f.read(lse), f.read(q), KeyValueSpans.of(source, HostSequences.of(sequences), f), shape));
    }

    // ---- loss ----

    @Override public void logSoftmaxAt(Tensor logprobs, Tensor lse, Tensor logits, Tensor targets) {
        int[] ids = Rows.targets(host(targets), host(logprobs));
        fp32.run(f -> rows.logSoftmaxAt(f.write(logprobs), f.write(lse), f.read(logits), ids));
    }

    @Override public void logSoftmaxBackward(Tensor logits, Tensor lse, Tensor targets, Tensor dlogprobs) {
        int[] ids = Rows.targets(host(targets), host(dlogprobs));
        fp32.run(f -> rows.logSoftmaxBackward(f.update(logits), f.read(lse), ids, f.read(dlogprobs)));
    }

    @Override public void lossGradient(Tensor dlogprobs, Tensor logprobs, LossTerms terms) {
        var losses = new Losses(terms.function(), terms.low(), terms.high(), terms.beta());
        fp32.run(f -> {
            var to = f.write(dlogprobs);
            var from = f.read(logprobs);
            var weights = f.read(terms.weights());
            var sampled = f.read(terms.sampled());
            var low = f.read(terms.bounds().map(LossTerms.Bounds::low));
            var high = f.read(terms.bounds().map(LossTerms.Bounds::high));
            RowVerbs.sameShape(to, from);
            RowVerbs.sameShape(to, weights);
            for (var other : List.of(sampled, low, high))
                other.ifPresent(t -> RowVerbs.sameShape(to, t));
            for (int i = 0; i < to.rows(); i++)
                for (int k = 0; k < to.columns(); k++) {
                    Losses own = low.isEmpty() ? losses
                            : losses.withThresholds(Rows.get(low.get(), i, k), Rows.get(high.get(), i, k));
                    Rows.set(to, i, k, (float) own.derivative(Rows.get(from, i, k),
                            sampled.isPresent() ? Rows.get(sampled.get(), i, k) : 0,
                            Rows.get(weights, i, k)));
                }
        });
    }

    // ---- sampling ----

    @Override public void sample(Tensor tokens, Tensor logprobs, Tensor own, Tensor logits, Draws draws) {
        fp32.run(f -> sampling.sample(new SamplingVerbs.Results(host(tokens), f.write(logprobs),
                f.write(own)), f.read(logits), HostDraws.of(draws), f));
    }

    @Override public void top(Tensor ids, Tensor logprobs, Tensor logits, Tensor lse) {
        fp32.run(f -> sampling.top(host(ids), f.write(logprobs), f.read(logits), f.read(lse)));
    }

    // ---- optimizer ----

    @Override public void add(List<Tensor> y, List<Tensor> x) {
        require(y.size() == x.size(), "%d tensors and %d", y.size(), x.size());
        fp32.run(f -> {
            for (int i = 0; i < y.size(); i++) rows.add(f.update(y.get(i)), f.read(x.get(i)));
        });
    }

    @Override public void sumOfSquares(Tensor sum, List<Tensor> x) {
        fp32.run(f -> optimizer.sumOfSquares(host(sum), x.stream().map(f::read).toList()));
    }

    @Override public void adamW(Tensor notFinite, List<Tensor> w, List<Tensor> m, List<Tensor> v,
            List<Tensor> g, Tensor sumOfSquares, AdamStep step) {
        fp32.run(f -> {
            var all = new OptimizerVerbs.Operands(w.stream().map(f::update).toList(),
                    m.stream().map(f::update).toList(), v.stream().map(f::update).toList(),
                    g.stream().map(f::read).toList());
            optimizer.adamW(host(notFinite), all, host(sumOfSquares), step);
        });
    }

    @Override public void close() {
        pool.close();
        products.close();
        attention.close();
        rows.close();
        memory.close();
    }
}
