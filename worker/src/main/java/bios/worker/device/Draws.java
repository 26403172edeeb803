package bios.worker.device;

/// The draws of a pass as device data, created once per pass by [Device#draws]; valid until its scope is
/// closed.
public interface Draws {
    /// Number of draws.
    int count();

    /// Draws `from` to `from + count` for logits whose row 0 is row `firstRow` of the pass.
    Draws part(int from, int count, int firstRow);
}
