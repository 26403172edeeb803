package bios.worker.device;

/// A copy of tensors at one point in the order of verbs. No verb changes it, so any thread may read it while
/// the device executes later verbs.
public interface Snapshot extends AutoCloseable {
    /// Bytes on the device.
    long bytes();

    /// Copies a block of the i-th tensor to the host and blocks for that copy only: rows `row` to `row +
    /// rows`, columns `column` to `column + columns`, row-major, to `to` from index `at`. Any thread.
    void read(int i, int row, int rows, int column, int columns, float[] to, int at);

    /// Frees the copy. Any thread; idempotent.
    @Override void close();
}
