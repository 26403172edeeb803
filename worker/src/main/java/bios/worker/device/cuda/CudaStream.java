package bios.worker.device.cuda;

import jcuda.driver.CUstream;

/// A stream of a card: what is put on it is executed in this order.
final class CudaStream extends CUstream {
    /// The handle, for libraries that are called without JCuda.
    long handle() {
        return getNativePointer();
    }
}
