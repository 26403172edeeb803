package bios.worker.device;

import java.lang.foreign.MemorySegment;

/// A matrix `[rows, columns]` in a memory-mapped model file, row-major, little-endian.
///
/// @param unchanged throws if the file is no longer what was mapped; called after each read of `memory` that
///     happens later than the loading of the model
public record FrozenMatrix(MemorySegment memory, WeightType dtype, int rows, int columns,
        Runnable unchanged) {
    /// A matrix in memory that does not change.
    public FrozenMatrix(MemorySegment memory, WeightType dtype, int rows, int columns) {
        this(memory, dtype, rows, columns, () -> {});
    }

    /// Element types of the weights in model files.
    public enum WeightType {
        BF16(2), F16(2), F32(4);

        private final int bytes;

        WeightType(int bytes) {
            this.bytes = bytes;
        }

        /// Bytes of one element.
        public int bytes() {
            return bytes;
        }
    }
}
