package bios.worker.load;

import java.util.concurrent.CancellationException;

/// Heap buffers through which one state or adapter streams between a store and a device, block by block: the
/// bytes of a block, its values in the file's order, and its values in the device's order. They grow to the
/// largest block so far, at most [#ELEMENTS] values, or one row if a row is longer. Not thread-safe except
/// [#cancel].
public final class StagingBuffer {
    /// Most values of a block: 4 MiB.
    public static final int ELEMENTS = 1 << 20;

    private byte[] bytes = new byte[0];
    private float[] file = new float[0];
    private float[] device = new float[0];
    private volatile boolean cancelled;

    /// Makes the stream fail at its next block with a [CancellationException]. Any thread.
    public void cancel() {
        cancelled = true;
    }

    private void checkCancelled() {
        if (cancelled) throw new CancellationException("the stream was ended");
    }

    /// Rows of `columns` values in a block, at least one.
    ///
    /// @param rows number of rows of the whole tensor
    public static int rowsAtOnce(int rows, int columns) {
        return Math.clamp(ELEMENTS / Math.max(1, columns), 1, Math.max(1, rows));
    }

    /// A buffer of at least this many bytes; contents undefined.
    public byte[] bytes(int count) {
        if (bytes.length < count) bytes = new byte[count];
        return bytes;
    }

    /// A buffer of at least this many values in the order of the file; contents undefined.
    public float[] fileLayout(int count) {
        checkCancelled();
        if (file.length < count) file = new float[count];
        return file;
    }

    /// A buffer of at least this many values in the order of the device; contents undefined.
    public float[] deviceLayout(int count) {
        checkCancelled();
        if (device.length < count) device = new float[count];
        return device;
    }
}
