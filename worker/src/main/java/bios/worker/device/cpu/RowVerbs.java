package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.kernel.Sampling;

/// The verbs of [bios.worker.device.Device] that process each row independently; one implementation for each
/// family of paths.
interface RowVerbs extends AutoCloseable {
    void add(HostTensor y, HostTensor x);

    void rmsNorm(HostTensor y, HostTensor inverse, HostTensor x, HostTensor weight, float eps);

    void rmsNormBackwardAdd(HostTensor dx, HostTensor dy, HostTensor x, HostTensor inverse,
            HostTensor weight);

    void rope(HostTensor x, int[] positions, int headDim, HostTensor cos, HostTensor sin);

    void ropeBackward(HostTensor dx, int[] positions, int headDim, HostTensor cos, HostTensor sin);

    void swiglu(HostTensor y, HostTensor gate, HostTensor up);

    void swigluBackward(HostTensor dgate, HostTensor dup, HostTensor dy, HostTensor gate, HostTensor up);

    /// @param targets as many of each row as `logprobs` has columns, row by row
    void logSoftmaxAt(HostTensor logprobs, HostTensor lse, HostTensor logits, int[] targets);

    /// @param targets as many of each row as `dlogprobs` has columns, row by row
    void logSoftmaxBackward(HostTensor logits, HostTensor lse, int[] targets, HostTensor dlogprobs);

    void softmaxBlocks(HostTensor maxima, HostTensor sums, HostTensor logits);

    @Override default void close() {}

    /// Throws if the results of [#softmaxBlocks] have wrong shapes.
    static void requireBlocks(HostTensor maxima, HostTensor sums, HostTensor logits) {
        sameShape(maxima, sums);
        require(maxima.rows() == logits.rows()
                && maxima.columns() == Math.ceilDiv(logits.columns(), Sampling.BLOCK), "shapes of blocks");
    }

    /// Throws if there are not as many targets as log-probabilities of the rows of `logits`.
    static void requireTargets(int[] targets, HostTensor logprobs, HostTensor logits) {
        require(logprobs.rows() == logits.rows() && logprobs.columns() > 0
                && targets.length == logits.rows() * logprobs.columns(), "%d targets of %d rows",
                targets.length, logits.rows());
    }

    /// Throws if the shapes differ.
    static void sameShape(HostTensor a, HostTensor b) {
        require(a.rows() == b.rows() && a.columns() == b.columns(), "[%d, %d] beside [%d, %d]",
                a.rows(), a.columns(), b.rows(), b.columns());
    }
}
