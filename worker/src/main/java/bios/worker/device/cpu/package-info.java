/// The engine on CPU cores: the reference for every other device.
package bios.worker.device.cpu;
