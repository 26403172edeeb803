/// Durable storage: the journal, blobs, the run index and sampling tasks. [bios.persistence.Storage] opens
/// them.
package bios.persistence;
