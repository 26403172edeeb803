/// Placeholder.
package bios.worker;
