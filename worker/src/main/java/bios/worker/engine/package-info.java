/// The actor that owns a device: trains runs and samples on it, side by side.
package bios.worker.engine;
