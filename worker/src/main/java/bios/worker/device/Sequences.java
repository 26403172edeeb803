package bios.worker.device;

/// The sequences of a pass as device data (bounds and block table), made once per pass by [Device#sequences];
/// lives as long as its scope.
public interface Sequences {
    /// Rows of all sequences.
    int rows();
}
