package bios.worker.device;

/// A copy of tensors as they were at one place in the order of verbs. No verb changes it, so any thread may
/// read it while the device goes on working.
public interface Snapshot extends AutoCloseable {
    /// Bytes on the device.
    long bytes();

    /// Copies a block of the i-th tensor to the host and waits for that block only: rows `row` to `row +
    /// rows`, columns `column` to `column + columns`, row-major, to `to[at]` and after. Any thread.
    void read(int i, int row, int rows, int column, int columns, float[] to, int at);

    /// Frees the copy. Any thread; more than once is allowed.
    @Override void close();
}
