package bios.worker.device.cuda;

import jcuda.driver.CUfunction;

/// A kernel of a loaded module.
final class CudaFunction extends CUfunction {
    /// The handle, for calls of the driver that JCuda does not have.
    long handle() {
        return getNativePointer();
    }
}
