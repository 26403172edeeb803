package bios.worker.device;

/// Tokens to be drawn in a pass as device data, made once per pass by [Device#draws]; lives as long as its
/// scope.
public interface Draws {
    /// Number of draws.
    int count();

    /// Draws `from` to `from + count` for logits whose row 0 is row `firstRow` of the pass.
    Draws part(int from, int count, int firstRow);
}
