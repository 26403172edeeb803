package bios.worker.device.cuda;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.device.LossTerms;
import bios.worker.device.EmbeddingTable;
import bios.worker.device.Tensor;
import java.util.List;
import java.util.Optional;

/// The verbs on rows: memory, norms, rotations, gates and losses. Kernels in rows.cu and loss.cu.
final class CudaRows {
    private static final int BLOCK = 256;
    /// Elements that a thread loads at once; also in common.cuh.
    private static final int VECTOR = 8;
    private static final int WARP = 32;
    /// Most columns of a row that one warp computes; longer rows take a block each.
    private static final int WARP_COLUMNS = 1024;

    private final Cuda cuda;

    CudaRows(Cuda cuda) {
        this.cuda = cuda;
    }

    private Kernels.Kernel kernel(String name) {
        return cuda.kernels().of(name);
    }

    private static CudaTensor floats(Tensor tensor) {
        return CudaTensor.of(tensor).floats();
    }

    /// A column `[rows, 1]` of integers.
    static CudaTensor column(Tensor tensor, int rows) {
        var own = CudaTensor.of(tensor);
        require(own.dtype() == DType.I32 && own.rows() == rows && own.columns() == 1,
                "[%d, %d] of %s is no column of %d integers", own.rows(), own.columns(), own.dtype(), rows);
        return own;
    }

    /// K targets of each of `rows` rows.
    ///
    /// @param logprobs `[rows, K]`
    private static CudaTensor targets(Tensor tensor, Tensor logprobs, int rows) {
        var own = CudaTensor.of(tensor);
        CudaTensor.sameShape(own, logprobs);
        require(own.dtype() == DType.I32 && own.rows() == rows && own.columns() > 0,
                "[%d, %d] of %s are no targets of %d rows", own.rows(), own.columns(), own.dtype(), rows);
        return own;
    }

    /// Blocks of a kernel in which each thread has one vector of a row.
    private static int vectors(CudaTensor t) {
        return Cuda.blocks((long) t.rows() * Math.ceilDiv(t.columns(), VECTOR), BLOCK);
    }

    /// Launches a kernel whose rows are summed by a warp or a block; its last parameter is their threads.
    private static void byRow(Kernels.Kernel kernel, CudaTensor t) {
        int width = t.columns() <= WARP_COLUMNS ? WARP : BLOCK;
        kernel.with(width).launch(Math.ceilDiv(t.rows(), BLOCK / width), BLOCK);
    }

    // ---- memory ----

    void fill(Tensor to, float value) {
        var own = floats(to);
        kernel("fill").with(own).with(value).launch(vectors(own), BLOCK);
    }

    void copy(Tensor target, Tensor source) {
        var to = CudaTensor.of(target);
        var from = CudaTensor.of(source);
        CudaTensor.sameShape(to, from);
        if (to.dtype() != from.dtype()) convert(to.floats(), from.floats());
        else if (to.elements() > 0 && to.dense() && from.dense())
            cuda.driver().onDevice(to.address(), from.address(), to.elements() * to.dtype().bytes(),
                    cuda.compute());
        else convert(words(to), words(from));
    }

    private void convert(CudaTensor to, CudaTensor from) {
        kernel("copy").with(to).with(from).launch(vectors(to), BLOCK);
    }

    /// The same bits as elements of F32 or BF16, which kernels copy.
    private static CudaTensor words(CudaTensor t) {
        return switch (t.dtype()) {
            case F32, BF16 -> t;
            case I32 -> new CudaTensor(t.address(), DType.F32, t.rows(), t.columns(), t.stride());
            case F64 -> new CudaTensor(t.address(), DType.F32, t.rows(), Math.multiplyExact(2, t.columns()),
                    Math.multiplyExact(2, t.stride()));
        };
    }

    void embed(Tensor y, Tensor ids, EmbeddingTable table) {
        var to = floats(y);
        var matrix = CudaTable.of(table).matrix();
        require(matrix.columns() == to.columns(), "rows of %d elements from a table of %d", to.columns(),
                matrix.columns());
        kernel("gather").with(to).with(matrix).with(column(ids, to.rows())).with(2).with(cuda.faults())
                .launch(vectors(to), BLOCK);
    }

    void gather(Tensor y, Tensor x, Tensor rows) {
        var to = CudaTensor.of(y);
        var from = CudaTensor.of(x);
        require(to.columns() == from.columns() && to.dtype() == from.dtype(), "rows of [%d] %s from [%d] %s",
                to.columns(), to.dtype(), from.columns(), from.dtype());
        kernel("gather").with(words(to)).with(words(from)).with(column(rows, to.rows())).with(1)
                .with(cuda.faults()).launch(vectors(words(to)), BLOCK);
    }

    // ---- norms ----

    void rmsNorm(Tensor y, Tensor inverse, Tensor x, Tensor weight, float eps) {
        CudaTensor.sameShape(y, x);
        require(weight.columns() == x.columns() && inverse.rows() == x.rows(), "shapes of rmsNorm");
        byRow(kernel("rms_norm").with(floats(y)).with(floats(inverse)).with(floats(x)).with(floats(weight))
                .with(eps), floats(x));
    }

    void rmsNormBackwardAdd(Tensor dx, Tensor dy, Tensor x, Tensor inverse, Tensor weight) {
        CudaTensor.sameShape(dx, x);
        CudaTensor.sameShape(dy, x);
        require(weight.columns() == x.columns() && inverse.rows() == x.rows(), "shapes of rmsNorm");
        byRow(kernel("rms_norm_backward_add").with(floats(dx)).with(floats(dy)).with(floats(x))
                .with(floats(inverse)).with(floats(weight)), floats(x));
    }

    // ---- rotations and gates ----

    /// @param sign 1, or -1 for the transposed rotation
    void rope(Tensor x, Tensor positions, int headDim, Tensor cos, Tensor sin, float sign) {
        var own = floats(x);
        require(headDim > 0 && headDim % 2 == 0 && own.columns() % headDim == 0, "shapes of rope");
        require(cos.columns() == headDim / 2 && sin.columns() == headDim / 2, "shapes of rope");
        long vectors = (long) own.rows() * (own.columns() / headDim) * Math.ceilDiv(headDim / 2, VECTOR);
        kernel("rope").with(own).with(column(positions, own.rows())).with(floats(cos)).with(floats(sin))
                .with(headDim).with(sign).with(cuda.faults()).launch(Cuda.blocks(vectors, BLOCK), BLOCK);
    }

    void swiglu(Tensor y, Tensor gate, Tensor up) {
        CudaTensor.sameShape(y, gate);
        CudaTensor.sameShape(y, up);
        kernel("swiglu").with(floats(y)).with(floats(gate)).with(floats(up)).launch(vectors(floats(y)),
                BLOCK);
    }

    void swigluBackward(Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up) {
        CudaTensor.sameShape(dgate, gate);
        CudaTensor.sameShape(dup, up);
        CudaTensor.sameShape(dy, gate);
        CudaTensor.sameShape(gate, up);
        kernel("swiglu_backward").with(floats(dgate)).with(floats(dup)).with(floats(dy)).with(floats(gate))
                .with(floats(up)).launch(vectors(floats(dy)), BLOCK);
    }

    // ---- loss ----

    void logSoftmaxAt(Tensor logprobs, Tensor lse, Tensor logits, Tensor targets) {
        var from = floats(logits);
        require(lse.rows() == from.rows(), "shapes of logSoftmaxAt");
        kernel("log_softmax_at").with(floats(logprobs)).with(floats(lse)).with(from)
                .with(targets(targets, logprobs, from.rows())).with(cuda.faults())
                .launch(from.rows(), BLOCK);
    }

    void logSoftmaxBackward(Tensor logits, Tensor lse, Tensor targets, Tensor dlogprobs) {
        var own = floats(logits);
        require(lse.rows() == own.rows(), "shapes of logSoftmaxBackward");
        kernel("log_softmax_backward").with(own).with(floats(lse))
                .with(targets(targets, dlogprobs, own.rows())).with(floats(dlogprobs))
                .launch(vectors(own), BLOCK);
    }

    void lossGradient(Tensor dlogprobs, Tensor logprobs, LossTerms terms) {
        var to = floats(dlogprobs);
        CudaTensor.sameShape(to, logprobs);
        CudaTensor.sameShape(to, terms.weights());
        Optional<CudaTensor> sampled = terms.sampled().map(CudaRows::floats);
        Optional<CudaTensor> low = terms.bounds().map(b -> floats(b.low()));
        Optional<CudaTensor> high = terms.bounds().map(b -> floats(b.high()));
        for (Optional<CudaTensor> other : List.of(sampled, low, high))
            other.ifPresent(t -> CudaTensor.sameShape(to, t));
        int function = switch (terms.function()) {
            case CROSS_ENTROPY -> 0;
            case IMPORTANCE_SAMPLING -> 1;
            case PPO -> 2;
            case CISPO -> 3;
            case DRO -> 4;
        };
        kernel("loss_gradient").with(to).with(floats(logprobs)).with(floats(terms.weights()))
                .withOptional(sampled).withOptional(low).withOptional(high).with(function).with(terms.low())
                .with(terms.high()).with(terms.beta()).launch(Cuda.blocks(to.elements(), BLOCK), BLOCK);
    }
}
