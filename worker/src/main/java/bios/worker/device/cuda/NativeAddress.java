package bios.worker.device.cuda;

import jcuda.Pointer;

/// A raw address of host memory as JCuda's functions take and give it.
final class NativeAddress extends Pointer {
    NativeAddress() {}

    NativeAddress(long address) {
        super(address);
    }

    long address() {
        return getNativePointer();
    }
}
