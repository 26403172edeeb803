package bios.worker.device.cuda;

import jcuda.driver.CUdeviceptr;

/// An address of a card's memory as JCuda's functions give it.
final class DeviceAddress extends CUdeviceptr {
    long address() {
        return getNativePointer();
    }
}
