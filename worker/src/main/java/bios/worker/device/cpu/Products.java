package bios.worker.device.cpu;

import bios.worker.device.FrozenMatrix;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;

/// The matrix products of [bios.worker.device.Device], by one way of computing them.
/// `add` tells `+=` from `←`.
interface Products extends AutoCloseable {
    String description();

    Weight weight(FrozenMatrix matrix);

    /// y ← x·Wᵀ.
    void multiply(Tensor y, Tensor x, Weight w);

    /// dx += dy·W.
    void multiplyTransposedAdd(Tensor dx, Tensor dy, Weight w);

    /// y ← or += s·x·aᵀ.
    void multiplyByTransposed(Tensor y, Tensor x, Tensor a, float s, boolean add);

    /// y ← or += s·x·b.
    void multiplyBy(Tensor y, Tensor x, Tensor b, float s, boolean add);

    /// g += s·yᵀ·x.
    void outerAdd(Tensor g, Tensor y, Tensor x, float s);

    @Override void close();
}
