package bios.worker.load;

import java.util.List;

/// One tensor of a safetensors file: bytes `begin` (inclusive) to `end` (exclusive) after the header.
///
/// @param dtype as the header spells it, e.g. `BF16`
public record TensorRange(String name, String dtype, List<Long> shape, long begin, long end) {
    /// Number of bytes.
    public long bytes() {
        return end - begin;
    }
}
