/// The actor that owns a device: trains runs and samples on it, concurrently.
package bios.worker.engine;
