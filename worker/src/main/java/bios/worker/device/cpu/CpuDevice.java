package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.Activations;
import bios.worker.device.AttentionShape;
import bios.worker.device.Device;
import bios.worker.device.DeviceSettings;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.LowRank;
import bios.worker.device.Span;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import bios.worker.kernel.AdamW;
import bios.worker.kernel.HalfFloats;
import bios.worker.kernel.Sums;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;

/// The CPU as a device: the kernels of [bios.worker.kernel] row by row over a fixed number of threads.
final class CpuDevice implements Device {
    /// Looking at more rows of a mapped table than this brings so much of it into memory that it is let go.
    private static final int FEW_ROWS = 64;
    /// Elements of a part of a row.
    private static final int PART = 1 << 13;

    private interface RowTask {
        void run(int row, Workspace space);
    }

    private final Pool pool;
    private final Workspace[] workspaces;
    private final Memory memory;
    private final Products products;
    private final CpuAttention attention;
    private final RowVerbs rows;

    /// The device that the settings describe.
    static CpuDevice open(DeviceSettings settings) {
        var path = CpuPath.of(settings.path());
        return new CpuDevice(path, settings.threads(),
                settings.activations().orElseGet(path::bestActivations), settings.memoryBytes());
    }

    private CpuDevice(CpuPath path, int threads, Activations activations, long memoryBytes) {
        if (path.family() == CpuPath.Family.ONEDNN) path.oneDnn();   // refuses before a thread is started
        memory = new Memory(memoryBytes);
        pool = new Pool(threads);
        workspaces = new Workspace[threads];
        for (int i = 0; i < threads; i++) workspaces[i] = new Workspace();
        products = switch (path.family()) {
            case OWN -> new Avx512Products(pool, activations, path == CpuPath.OWN_AVX512_BF16);
            case ONEDNN -> new DnnlProducts(path.oneDnn(), pool, workspaces, activations);
            case PLAIN -> new PlainProducts(pool, workspaces, activations);
        };
        rows = switch (path.family()) {
            case OWN -> new Avx512Rows(pool);
            case ONEDNN, PLAIN -> new PlainRows(pool, workspaces);
        };
        attention = switch (path.family()) {
            case OWN -> new Avx512Attention(pool);
            case ONEDNN -> new DnnlAttention(path.oneDnn(), pool, workspaces);
            case PLAIN -> new PlainAttention(pool, workspaces);
        };
    }

    @Override public String description() {
        return "CPU, %d threads, %s".formatted(pool.size(), products.description());
    }

    private static HostTensor host(Tensor tensor) {
        return HostTensor.of(tensor);
    }

    private static List<HostSpan> host(List<Span> spans) {
        return spans.stream().map(HostSpan::of).toList();
    }

    private static List<HostLowRank> corrections(List<LowRank> corrections) {
        return corrections.stream().map(HostLowRank::of).toList();
    }

    private void eachRow(int rows, int columns, RowTask body) {
        pool.rows(rows, columns, 16, (row, member) -> body.run(row, workspaces[member]));
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

    @Override public Tensor tensor(int rows, int columns) {
        return memory.tensor(rows, columns);
    }

    @Override public Tensor scratch(Scope scope, int rows, int columns) {
        return memory.scratch(scope, rows, columns);
    }

    @Override public Scope scope() {
        return memory.scope();
    }

    @Override public void free(Tensor tensor) {
        memory.free(host(tensor));
    }

    @Override public Weight weight(FrozenMatrix matrix) {
        long bytes = (long) matrix.rows() * matrix.columns() * matrix.dtype().bytes();
        require(matrix.memory().byteSize() >= bytes, "a matrix of %d bytes in %d", bytes,
                matrix.memory().byteSize());
        memory.count(bytes);
        return products.weight(matrix);
    }

    @Override public void write(Tensor to, float[] from) {
        require(from.length == to.elements(), "%d values for %d elements", from.length, to.elements());
        int n = to.columns();
        for (int row = 0; row < to.rows(); row++) Rows.store(host(to), row, 0, from, row * n, n);
    }

    @Override public float[] read(Tensor from) {
        float[] values = new float[Math.toIntExact(from.elements())];
        int n = from.columns();
        for (int row = 0; row < from.rows(); row++) Rows.load(values, row * n, host(from), row, 0, n);
        return values;
    }

    @Override public void copy(Tensor target, Tensor source) {
        HostTensor to = host(target);
        HostTensor from = host(source);
        RowVerbs.sameShape(to, from);
        eachRow(to.rows(), to.columns(), (row, _) -> MemorySegment.copy(from.memory(),
                4L * row * from.stride(), to.memory(), 4L * row * to.stride(), 4L * to.columns()));
    }

    @Override public void copyByHead(Tensor page, int at, Tensor packed) {
        HostTensor block = host(page);
        HostTensor rows = host(packed);
        int dim = block.columns();
        require(rows.columns() % dim == 0 && block.rows() == rows.columns() / dim * Span.BLOCK
                && at + rows.rows() <= Span.BLOCK, "shapes of copyByHead");
        for (int head = 0; head * dim < rows.columns(); head++)
            for (int row = 0; row < rows.rows(); row++)
                MemorySegment.copy(rows.memory(), 4 * ((long) row * rows.stride() + head * dim),
                        block.memory(), 4 * ((long) head * Span.BLOCK + at + row) * block.stride(), 4L * dim);
    }

    @Override public void fill(Tensor to, float value) {
        eachRow(to.rows(), to.columns(), (row, space) -> {
            float[] values = space.row(0, to.columns());
            Arrays.fill(values, 0, to.columns(), value);
            Rows.store(host(to), row, values);
        });
    }

    // ---- products ----

    @Override public void multiply(Tensor y, Tensor x, Weight w) {
        products.multiply(host(y), host(x), w);
    }

    @Override public void multiplyTransposedAdd(Tensor dx, Tensor dy, Weight w) {
        products.multiplyTransposedAdd(host(dx), host(dy), w);
    }

    @Override public void project(Tensor y, Tensor x, Weight w, Optional<Tensor> bias, Optional<Tensor> onto,
            List<LowRank> corrections) {
        products.project(host(y), host(x), w, bias.map(HostTensor::of), onto.map(HostTensor::of),
                corrections(corrections));
    }

    @Override public void projectBack(Tensor dx, Tensor dy, Weight w, boolean add,
            List<LowRank> corrections) {
        products.projectBack(host(dx), host(dy), w, add,
                corrections(corrections));
    }

    @Override public void multiplyByTransposed(Tensor y, Tensor x, Tensor a, float s) {
        products.multiplyByTransposed(host(y), host(x), host(a), s, false);
    }

    @Override public void multiplyByTransposedAdd(Tensor y, Tensor x, Tensor a, float s) {
        products.multiplyByTransposed(host(y), host(x), host(a), s, true);
    }

    @Override public void multiplyBy(Tensor y, Tensor x, Tensor b, float s) {
        products.multiplyBy(host(y), host(x), host(b), s, false);
    }

    @Override public void multiplyByEach(List<Group> groups) {
        products.multiplyByEach(groups.stream().map(HostGroup::of).toList());
    }

    @Override public void multiplyByAdd(Tensor y, Tensor x, Tensor b, float s) {
        products.multiplyBy(host(y), host(x), host(b), s, true);
    }

    @Override public void outerAdd(Tensor g, Tensor y, Tensor x, float s) {
        products.outerAdd(host(g), host(y), host(x), s);
    }

    // ---- layers ----

    @Override public void embed(Tensor y, int[] ids, FrozenMatrix table) {
        require(ids.length == y.rows() && table.columns() == y.columns(), "shapes of embed");
        eachRow(ids.length, y.columns(), (row, space) -> {
            require(ids[row] >= 0 && ids[row] < table.rows(), "token %d of %d", ids[row], table.rows());
            float[] values = space.row(0, y.columns());
            HalfFloats.row(values, table, ids[row]);
            Rows.store(host(y), row, values);
        });
        if (ids.length > FEW_ROWS && table.memory().isMapped()) Linux.letGo(table.memory());
    }

    @Override public void add(Tensor y, Tensor x) {
        rows.add(host(y), host(x));
    }

    @Override public void addBias(Tensor y, Tensor bias) {
        rows.addBias(host(y), host(bias));
    }

    @Override public void rmsNorm(Tensor y, Tensor inverse, Tensor x, Tensor weight, float eps) {
        rows.rmsNorm(host(y), host(inverse), host(x), host(weight), eps);
    }

    @Override public void rmsNormBackwardAdd(Tensor dx, Tensor dy, Tensor x, Tensor inverse, Tensor weight) {
        rows.rmsNormBackwardAdd(host(dx), host(dy), host(x), host(inverse), host(weight));
    }

    @Override public void rope(Tensor x, int[] positions, int headDim, Tensor cos, Tensor sin) {
        rows.rope(host(x), positions, headDim, host(cos), host(sin));
    }

    @Override public void ropeBackward(Tensor dx, int[] positions, int headDim, Tensor cos, Tensor sin) {
        rows.ropeBackward(host(dx), positions, headDim, host(cos), host(sin));
    }

    @Override public void attention(Tensor out, Tensor lse, Tensor q, List<Span> spans,
            AttentionShape shape) {
        attention.forward(host(out), host(lse), host(q), host(spans), shape);
    }

    @Override public void attentionBackward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out,
            Tensor lse, Tensor q, List<Span> spans, AttentionShape shape) {
        attention.backward(host(dq), host(dk), host(dv), host(dout), host(out), host(lse), host(q),
                host(spans), shape);
    }

    @Override public void swiglu(Tensor y, Tensor gate, Tensor up) {
        rows.swiglu(host(y), host(gate), host(up));
    }

    @Override public void swigluBackward(Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up) {
        rows.swigluBackward(host(dgate), host(dup), host(dy), host(gate), host(up));
    }

    // ---- loss ----

    @Override public void logSoftmaxAt(Tensor logprobs, Tensor lse, Tensor logits, int[] targets) {
        rows.logSoftmaxAt(host(logprobs), host(lse), host(logits), targets);
    }

    @Override public void logSoftmaxBackward(Tensor logits, Tensor lse, int[] targets, Tensor dlogprobs) {
        rows.logSoftmaxBackward(host(logits), host(lse), targets, host(dlogprobs));
    }

    @Override public void softmaxBlocks(Tensor maxima, Tensor sums, Tensor logits) {
        rows.softmaxBlocks(host(maxima), host(sums), host(logits));
    }

    // ---- optimizer ----

    @Override public double sumOfSquares(Tensor slab) {
        HostTensor x = host(slab);
        double[] sums = new double[parts(x)];
        eachPart(x, (task, row, column, count, space) -> {
            float[] values = space.row(0, count);
            Rows.load(values, 0, x, row, column, count);
            sums[task] = Sums.dot(values, values, count);
        });
        double sum = 0;
        for (double s : sums) sum += s;
        return sum;
    }

    @Override public void adamW(Tensor weights, Tensor firstMoment, Tensor secondMoment, Tensor gradients,
            float gradScale, AdamStep step) {
        HostTensor w = host(weights);
        HostTensor m = host(firstMoment);
        HostTensor v = host(secondMoment);
        HostTensor g = host(gradients);
        RowVerbs.sameShape(w, m);
        RowVerbs.sameShape(w, v);
        RowVerbs.sameShape(w, g);
        var rule = AdamW.at(gradScale, step.learningRate(), step.beta1(), step.beta2(), step.eps(),
                step.weightDecay(), step.step());
        eachPart(w, (_, row, column, n, space) -> {
            float[] weight = space.row(0, n);
            float[] first = space.row(1, n);
            float[] second = space.row(2, n);
            float[] gradient = space.row(3, n);
            Rows.load(weight, 0, w, row, column, n);
            Rows.load(first, 0, m, row, column, n);
            Rows.load(second, 0, v, row, column, n);
            Rows.load(gradient, 0, g, row, column, n);
            rule.step(weight, first, second, gradient, n);
            Rows.store(w, row, column, weight, 0, n);
            Rows.store(m, row, column, first, 0, n);
            Rows.store(v, row, column, second, 0, n);
        });
    }

    /// A stretch of a row.
    private interface PartTask {
        void run(int task, int row, int column, int count, Workspace space);
    }

    private static int parts(HostTensor x) {
        return x.rows() * ((x.columns() + PART - 1) / PART);
    }

    /// Rows of an adapter are few and long: each is cut in parts, at places that its length alone fixes.
    private void eachPart(HostTensor x, PartTask body) {
        int each = (x.columns() + PART - 1) / PART;
        pool.run(parts(x), 16L * x.elements(), (task, member) -> {
            int column = task % each * PART;
            body.run(task, task / each, column, Math.min(PART, x.columns() - column), workspaces[member]);
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
