/// The CUDA backend: the driver API by JCuda, NVRTC and cuBLASLt by java.lang.foreign, kernels compiled for
/// the card when a device is opened. [bios.worker.device.Devices] is the only caller from outside.
package bios.worker.device.cuda;
