/// The encoding of stored data: Jackson CBOR with a version in each manifest, and migrations.
package bios.protocol.stored;
