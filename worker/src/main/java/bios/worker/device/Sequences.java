package bios.worker.device;

import java.util.List;

/// The sequences of a pass as device data (bounds and block table), created once per pass by
/// [Device#sequences]; valid until its scope is closed.
public interface Sequences {
    /// The sequences, in order.
    List<Sequence> sequences();

    /// Rows of all sequences.
    int rows();
}
