/// Placeholder.
package bios.protocol;
