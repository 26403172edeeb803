package bios.worker.device;

import java.util.List;

/// A benchmark of matrix products with a vendor's library on this machine, with packed weights and nothing
/// between the products. The speed of the engine is compared with it. [#close] frees its memory and threads.
public interface MatmulBaseline extends AutoCloseable {
    /// Element types of a product's factors; sums are fp32.
    enum Type { BF16, FP32 }

    /// The product of an `[m, k]` and a `[k, n]` matrix.
    record Product(int m, int k, int n) {
        /// Multiplications and additions.
        public double floatingPointOperations() {
            return 2.0 * m * k * n;
        }
    }

    /// The types for which this machine has multiply instructions.
    List<Type> types();

    /// Seconds of one product: the median of several repetitions. The first call for a product and type
    /// measures; later calls return the cached result.
    double medianSeconds(Product product, Type type);

    @Override void close();
}
