/// What is kept: Jackson CBOR with a version in each manifest, and migrations.
package bios.protocol.stored;
