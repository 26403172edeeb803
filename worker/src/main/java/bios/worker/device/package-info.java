/// The device interface of the engine, and the types of its operands.
package bios.worker.device;
