package bios.worker.device.cuda;

import bios.worker.device.DType;
import bios.worker.device.Device.Scope;
import java.lang.foreign.ValueLayout;

/// Counts the words of tensors whose bits differ, on the card: the comparison of two ways to compute one
/// result.
final class DifferentBits {
    private static final int BLOCKS = 256, BLOCK = 256;

    private static final int SEED = 7;

    private final Cuda cuda;
    private final long count;
    private int scattered;

    /// @param scope of the count
    DifferentBits(Cuda cuda, Scope scope) {
        this.cuda = cuda;
        count = cuda.memory().scratch(scope, Long.BYTES);
        cuda.driver().zero(count, Long.BYTES, cuda.compute());
    }

    /// Fills a dense tensor with bf16 numbers of both signs, eight exponents about 1 and all mantissas, which
    /// are others for each call.
    ///
    /// @return the tensor
    CudaTensor scatter(CudaTensor to) {
        cuda.kernels().of("scatter_bits").with(to).with(SEED * ++scattered)
                .launch(Cuda.blocks(to.elements(), BLOCK), BLOCK);
        return to;
    }

    /// Counts the words of 4 bytes of two dense tensors of the same shape that differ. Of a tensor that is no
    /// whole number of words the last element is not looked at.
    void add(CudaTensor a, CudaTensor b) {
        CudaTensor.sameShape(a, b);
        cuda.kernels().of("count_different").with(words(a)).with(words(b)).with(count)
                .launch(BLOCKS, BLOCK);
    }

    private static CudaTensor words(CudaTensor t) {
        int words = Math.toIntExact(t.elements() * t.dtype().bytes() / DType.F32.bytes());
        return new CudaTensor(t.address(), DType.F32, 1, words, words);
    }

    /// Waits for the comparisons; what they counted.
    long read() {
        var block = cuda.pinned().take(Long.BYTES);
        cuda.driver().toHost(block.asSlice(0, Long.BYTES), count, cuda.compute());
        var done = cuda.pinned().mark(cuda.compute());
        cuda.driver().await(done);
        cuda.pinned().give(done);
        long value = block.get(ValueLayout.JAVA_LONG, 0);
        cuda.pinned().give(block);
        return value;
    }
}
