/// Placeholder.
package bios.persistence;
