package bios.worker.device.cuda;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.device.Device.Scope;
import bios.worker.device.Draw;
import bios.worker.device.Draws;
import bios.worker.device.Tensor;
import bios.worker.kernel.Sampling;
import java.util.List;

/// Draws of tokens, and the most likely ones. A row that draws divide by a temperature is copied once for all
/// draws that share both.
final class CudaSampling {
    private static final int BLOCK = 512;
    private static final int SOFTMAX_BLOCK = 128;
    /// Doubles of shared memory for each block of logits.
    private static final int ROOM = 5;

    private final Cuda cuda;
    private final CudaTransfers transfers;
    private final CudaRows rows;

    CudaSampling(Cuda cuda, CudaTransfers transfers, CudaRows rows) {
        this.cuda = cuda;
        this.transfers = transfers;
        this.rows = rows;
    }

    Draws draws(Scope scope, List<Draw> draws) {
        return CudaDraws.of(draws, transfers, scope);
    }

    private Kernels.Kernel kernel(String name) {
        return cuda.kernels().of(name);
    }

    private static CudaTensor floats(Tensor tensor) {
        return CudaTensor.of(tensor).floats();
    }

    private static CudaTensor ints(Tensor tensor) {
        require(tensor.dtype() == DType.I32, "tokens of %s", tensor.dtype());
        return CudaTensor.of(tensor);
    }

    void sample(Tensor tokens, Tensor logprobs, Tensor own, Tensor given, Draws all) {
        var draws = CudaDraws.of(all);
        var logits = floats(given);
        int n = draws.count();
        require(tokens.rows() == n && logprobs.rows() == n && own.rows() == n, "%d results of %d draws",
                tokens.rows(), n);
        draws.requireRows(logits.rows());
        if (n == 0) return;
        int blocks = Math.ceilDiv(logits.columns(), Sampling.BLOCK);
        try (var scope = cuda.memory().scope()) {
            var memory = cuda.memory();
            var lse = memory.scratch(scope, DType.F32, logits.rows(), 1);
            var maxima = memory.scratch(scope, DType.F32, logits.rows(), blocks);
            var sums = memory.scratch(scope, DType.F32, logits.rows(), blocks);
            var copies = memory.scratch(scope, DType.F32, draws.copies(), logits.columns());
            var copiesLse = memory.scratch(scope, DType.F32, draws.copies(), 1);
            int most = Math.max(logits.rows(), draws.copies());
            var targets = memory.scratch(scope, DType.I32, most, 1);
            var ignored = memory.scratch(scope, DType.F32, most, 1);
            cuda.driver().zero(targets.address(), targets.span(), cuda.compute());
            if (draws.anySimple()) kernel("softmax_blocks").with(maxima).with(sums).with(logits)
                    .launch(blocks, logits.rows(), 1, SOFTMAX_BLOCK, 0);
            logSumExp(lse, logits, targets, ignored);
            if (draws.copies() > 0) {
                kernel("scale_logits").with(copies).with(logits).with(draws.address()).with(draws.firstRow())
                        .with(draws.firstCopy()).launch(n, BLOCK);
                logSumExp(copiesLse, copies, targets, ignored);
            }
            kernel("draw_tokens").with(ints(tokens)).with(floats(logprobs)).with(floats(own)).with(logits)
                    .with(lse).with(copies).with(copiesLse).with(maxima).with(sums).with(draws.address())
                    .with(draws.firstRow()).with(draws.firstCopy()).launch(n, 1, 1, BLOCK,
                            ROOM * Double.BYTES * blocks);
        }
    }

    private void logSumExp(CudaTensor lse, CudaTensor of, CudaTensor targets, CudaTensor ignored) {
        rows.logSoftmaxAt(ignored.rows(0, of.rows()), lse, of, targets.rows(0, of.rows()));
    }

    void top(Tensor ids, Tensor logprobs, Tensor given, Tensor lse) {
        var logits = floats(given);
        int k = ids.columns();
        CudaTensor.sameShape(ids, logprobs);
        require(ids.rows() == logits.rows() && lse.rows() == logits.rows() && k <= logits.columns(),
                "the best %d of %d", k, logits.columns());
        if (k == 0) return;
        int size = Integer.highestOneBit(2 * k - 1);
        try (var scope = cuda.memory().scope()) {
            long room = cuda.memory().scratch(scope, (long) Long.BYTES * size * logits.rows());
            kernel("top_tokens").with(ints(ids)).with(floats(logprobs)).with(logits).with(floats(lse))
                    .with(room).with(size).launch(logits.rows(), BLOCK);
        }
    }
}
