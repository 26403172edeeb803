package bios.worker.device;

/// An asynchronous copy of results to the host, ordered after the earlier verbs. Only reading a value blocks;
/// any thread may read. Throws [DeviceLost] if the device is lost before the copy is done; a failure of an
/// earlier verb is thrown here at the latest.
public interface Readback {
    /// Elements of the i-th tensor, row-major; waits for the copy. The tensor is [DType#F32] or [DType#BF16].
    float[] floats(int i);

    /// Elements of the i-th tensor, row-major; waits for the copy. The tensor is [DType#I32].
    int[] ints(int i);

    /// Elements of the i-th tensor, row-major; waits for the copy. The tensor is [DType#F64].
    double[] doubles(int i);
}
