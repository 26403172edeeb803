package bios.worker.device;

import java.util.List;

/// The sequences of a pass as device data (bounds and block table), made once per pass by [Device#sequences];
/// lives as long as its scope.
public interface Sequences {
    /// The sequences, in order.
    List<Sequence> sequences();

    /// Rows of all sequences.
    int rows();
}
