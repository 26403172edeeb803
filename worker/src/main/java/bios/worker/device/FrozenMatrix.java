package bios.worker.device;

import java.lang.foreign.MemorySegment;

/// A matrix `[rows, columns]` in a memory-mapped model file, row-major, little-endian.
public record FrozenMatrix(MemorySegment memory, DType dtype, int rows, int columns) {
    /// Element types of model files.
    public enum DType {
        BF16(2), F16(2), F32(4);

        private final int bytes;

        DType(int bytes) {
            this.bytes = bytes;
        }

        /// Bytes of one element.
        public int bytes() {
            return bytes;
        }
    }
}
