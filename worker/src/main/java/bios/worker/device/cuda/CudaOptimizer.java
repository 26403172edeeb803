package bios.worker.device.cuda;

import static bios.protocol.Require.require;
import static java.lang.foreign.ValueLayout.JAVA_INT;

import bios.worker.device.DType;
import bios.worker.device.Device.AdamStep;
import bios.worker.device.Device.Scope;
import bios.worker.device.Tensor;
import bios.worker.kernel.AdamW;
import java.util.List;

/// The verbs on all tensors of an adapter at once: one launch for all of them. Tensors are cut into parts,
/// one for each block, whose bounds depend only on the shapes. Kernels in optimizer.cu.
final class CudaOptimizer {
    private static final int BLOCK = 256;
    /// Elements of a part; also in optimizer.cu.
    private static final int PART = 8192;

    private final Cuda cuda;
    private final CudaTransfers transfers;

    CudaOptimizer(Cuda cuda, CudaTransfers transfers) {
        this.cuda = cuda;
        this.transfers = transfers;
    }

    /// The lists of a verb on the card: for each tensor the matrices of all lists, then the index of the
    /// first part of each tensor.
    ///
    /// @param matrices address of the matrices
    /// @param firsts address of the indices
    private record Lists(long matrices, long firsts, int tensors, int parts) {}

    @SafeVarargs
    private Lists lists(Scope scope, List<Tensor>... lists) {
        int tensors = lists[0].size();
        for (var other : lists) {
            require(other.size() == tensors, "%d tensors beside %d", other.size(), tensors);
            for (int i = 0; i < tensors; i++) CudaTensor.sameShape(lists[0].get(i), other.get(i));
        }
        int parts = 0;
        int[] firsts = new int[tensors + 1];
        for (int i = 0; i < tensors; i++) {
            firsts[i] = parts;
            parts = Math.addExact(parts, Cuda.blocks(lists[0].get(i).elements(), PART));
        }
        firsts[tensors] = parts;
        long matrixBytes = (long) Matrix.BYTES * lists.length * tensors;
        long at = transfers.upload(scope, matrixBytes + 4L * firsts.length, to -> {
            for (int i = 0; i < tensors; i++)
                for (int l = 0; l < lists.length; l++)
                    Matrix.write(to, (long) Matrix.BYTES * (i * lists.length + l),
                            flat(CudaTensor.of(lists[l].get(i)).floats()));
            for (int i = 0; i < firsts.length; i++) to.set(JAVA_INT, matrixBytes + 4L * i, firsts[i]);
        });
        return new Lists(at, at + matrixBytes, tensors, parts);
    }

    /// A dense matrix as one row, so that its parts need no division.
    private static CudaTensor flat(CudaTensor t) {
        if (!t.dense() || t.elements() > Integer.MAX_VALUE) return t;
        int n = (int) t.elements();
        return new CudaTensor(t.address(), t.dtype(), 1, n, n);
    }

    private Kernels.Kernel kernel(String name, Lists lists) {
        return cuda.kernels().of(name).with(lists.matrices).with(lists.firsts).with(lists.tensors);
    }

    void add(List<Tensor> y, List<Tensor> x) {
        try (var scope = cuda.memory().scope()) {
            var lists = lists(scope, y, x);
            kernel("add_lists", lists).launch(lists.parts, BLOCK);
        }
    }

    private static CudaTensor scalar(Tensor tensor, DType dtype) {
        var own = CudaTensor.of(tensor);
        require(own.dtype() == dtype && own.rows() == 1 && own.columns() == 1, "a scalar is [1, 1] of %s",
                dtype);
        return own;
    }

    void sumOfSquares(Tensor sum, List<Tensor> x) {
        var to = scalar(sum, DType.F64);
        try (var scope = cuda.memory().scope()) {
            var lists = lists(scope, x);
            long partial = cuda.memory().scratch(scope, 8L * lists.parts);
            kernel("sum_of_squares", lists).with(partial).launch(lists.parts, BLOCK);
            long own = cuda.memory().scratch(scope, 8L * lists.tensors);
            cuda.kernels().of("sum_parts").with(to.address()).with(partial).with(lists.firsts).with(own)
                    .with(lists.tensors).launch(1, BLOCK);
        }
    }

    /// The step is computed twice: first only to learn whether all of it is finite, then to store it.
    void adamW(Tensor notFinite, List<Tensor> w, List<Tensor> m, List<Tensor> v, List<Tensor> g,
            Tensor sumOfSquares, AdamStep step) {
        var found = scalar(notFinite, DType.I32);
        var sum = scalar(sumOfSquares, DType.F64);
        var rule = AdamW.at(1, step.learningRate(), step.beta1(), step.beta2(), step.eps(),
                step.weightDecay(), step.step());
        try (var scope = cuda.memory().scope()) {
            var lists = lists(scope, w, m, v, g);
            cuda.driver().zero(found.address(), Integer.BYTES, cuda.compute());
            for (int store = 0; store <= 1; store++)
                kernel("adam_w", lists).with(found.address()).with(sum.address())
                        .with(step.gradClipNorm()).with(rule.beta1()).with(rule.beta2())
                        .with(rule.oneLessBeta1()).with(rule.oneLessBeta2()).with(rule.eps())
                        .with(rule.decay()).with(rule.rate()).with(rule.root()).with(store)
                        .launch(lists.parts, BLOCK);
        }
    }
}
