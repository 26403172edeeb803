package bios.worker.device;

import java.util.List;

/// The rate that a vendor's library reaches on this machine for matrix products alone, with packed weights:
/// the upper bound that the engine's speed is compared with.
public interface Ceiling extends AutoCloseable {
    /// Element types of a product's factors; sums are fp32.
    enum Type { BF16, FP32 }

    /// `[rows, depth]·[depth, width]`.
    record Product(int rows, int depth, int width) {
        /// Multiplications and additions.
        public double flops() {
            return 2.0 * rows * depth * width;
        }
    }

    /// The types that this machine multiplies in hardware.
    List<Type> types();

    /// Seconds of one product: the median of several repetitions. Measured once for each product and type.
    double seconds(Product product, Type type);

    @Override void close();
}
