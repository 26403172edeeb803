package bios.worker.device;

/// Element type of a tensor on a device.
public enum DType {
    /// IEEE single precision: activations, adapters, moments, gradients.
    F32(4),
    /// bfloat16: activations and cached keys and values, where a backend is asked for them.
    BF16(2),
    /// 32-bit integers: token ids, positions, block tables, and other data that a pass brings.
    I32(4),
    /// IEEE double precision: scalars such as a sum of squares.
    F64(8);

    private final int bytes;

    DType(int bytes) {
        this.bytes = bytes;
    }

    /// Whether elements are activations' numbers: what verbs compute with.
    public boolean isFloat() {
        return this == F32 || this == BF16;
    }

    /// Bytes of one element.
    public int bytes() {
        return bytes;
    }
}
