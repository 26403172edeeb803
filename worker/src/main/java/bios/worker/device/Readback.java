package bios.worker.device;

/// Results on their way to the host: a copy, ordered behind the verbs before it, that nobody waits for until
/// a value is asked for. May be asked from any thread. [DeviceLost] when the device is lost meanwhile; what a
/// verb before it could not do is thrown here at the latest.
public interface Readback {
    /// Elements of the i-th tensor, row-major; waits for the copy. The tensor is [DType#F32] or [DType#BF16].
    float[] floats(int i);

    /// Elements of the i-th tensor, row-major; waits for the copy. The tensor is [DType#I32].
    int[] ints(int i);

    /// Elements of the i-th tensor, row-major; waits for the copy. The tensor is [DType#F64].
    double[] doubles(int i);
}
