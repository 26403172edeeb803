/// The engine's instruction set, and the values that its verbs speak of.
package bios.worker.device;
