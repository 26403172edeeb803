package bios.worker.device;

import java.lang.foreign.MemorySegment;

/// A matrix `[rows, columns]` in a memory-mapped model file, row-major, little-endian.
public record FrozenMatrix(MemorySegment memory, WeightType dtype, int rows, int columns) {
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
