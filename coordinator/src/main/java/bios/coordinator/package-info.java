/// Placeholder.
package bios.coordinator;
