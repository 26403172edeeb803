package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.Device;
import bios.worker.device.Tensor;

/// The verbs of [bios.worker.device.Device] that treat each row alone, by one way of computing them.
interface RowVerbs extends AutoCloseable {
    void add(Tensor y, Tensor x);

    void addBias(Tensor y, Tensor bias);

    void rmsNorm(Tensor y, Tensor inverse, Tensor x, Tensor weight, float eps);

    void rmsNormBackwardAdd(Tensor dx, Tensor dy, Tensor x, Tensor inverse, Tensor weight);

    void rope(Tensor x, int[] positions, int headDim, Tensor cos, Tensor sin);

    void ropeBackward(Tensor dx, int[] positions, int headDim, Tensor cos, Tensor sin);

    void swiglu(Tensor y, Tensor gate, Tensor up);

    void swigluBackward(Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up);

    void logSoftmaxAt(Tensor logprobs, Tensor lse, Tensor logits, int[] targets);

    void logSoftmaxBackward(Tensor logits, Tensor lse, int[] targets, Tensor dlogprobs);

    void softmaxBlocks(Tensor maxima, Tensor sums, Tensor logits);

    @Override default void close() {}

    /// Refuses results of [#softmaxBlocks] that do not fit.
    static void requireBlocks(Tensor maxima, Tensor sums, Tensor logits) {
        sameShape(maxima, sums);
        require(maxima.rows() == logits.rows()
                && maxima.columns() == Math.ceilDiv(logits.columns(), Device.WORDS), "shapes of blocks");
    }

    /// Refuses matrices of different shapes.
    static void sameShape(Tensor a, Tensor b) {
        require(a.rows() == b.rows() && a.columns() == b.columns(), "[%d, %d] beside [%d, %d]",
                a.rows(), a.columns(), b.rows(), b.columns());
    }
}
