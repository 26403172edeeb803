package bios.worker.device;

/// Element type of a tensor on a device.
public enum DType {
    /// IEEE single precision: activations, adapters, moments, gradients.
    F32(4),
    /// bfloat16: activations and cached keys and values, if so configured.
    BF16(2),
    /// 32-bit integers: token ids, positions, block tables and other inputs of a pass.
    I32(4),
    /// IEEE double precision: scalars such as a sum of squares.
    F64(8);

    private final int bytes;

    DType(int bytes) {
        this.bytes = bytes;
    }

    /// Whether it is a type of activations, F32 or BF16.
    public boolean isFloat() {
        return this == F32 || this == BF16;
    }

    /// Bytes of one element.
    public int bytes() {
        return bytes;
    }
}
