/// Decoding: which tokens follow a prompt, for many requests and adapters at once.
package bios.worker.sample;
