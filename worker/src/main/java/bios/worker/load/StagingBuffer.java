package bios.worker.load;

import java.util.concurrent.CancellationException;

/// Heap memory through which one state or adapter streams between a store and a device, block by block: the
/// bytes of a block, its values as in the file, and its values as on the device. It grows to the largest
/// block that has gone through it, at most [#ELEMENTS] values, or one row where a row is longer. For one
/// thread, but for [#cancel].
public final class StagingBuffer {
    /// Most values of a block: 4 MiB.
    public static final int ELEMENTS = 1 << 20;

    private byte[] bytes = new byte[0];
    private float[] file = new float[0];
    private float[] device = new float[0];
    private volatile boolean cancelled;

    /// Ends the stream at its next block, with a [CancellationException]. Any thread.
    public void cancel() {
        cancelled = true;
    }

    private void checkCancelled() {
        if (cancelled) throw new CancellationException("the stream was ended");
    }

    /// Rows of `columns` values that go through at once, at least one.
    ///
    /// @param rows of the whole tensor
    public static int rowsAtOnce(int rows, int columns) {
        return Math.clamp(ELEMENTS / Math.max(1, columns), 1, Math.max(1, rows));
    }

    /// Room for so many bytes; contents undefined.
    public byte[] bytes(int count) {
        if (bytes.length < count) bytes = new byte[count];
        return bytes;
    }

    /// Room for so many values in the order of the file; contents undefined.
    public float[] fileLayout(int count) {
        checkCancelled();
        if (file.length < count) file = new float[count];
        return file;
    }

    /// Room for so many values in the order of the device; contents undefined.
    public float[] deviceLayout(int count) {
        checkCancelled();
        if (device.length < count) device = new float[count];
        return device;
    }
}
