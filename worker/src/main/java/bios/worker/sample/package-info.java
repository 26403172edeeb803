/// Sampling: continues prompts token by token, for many requests and adapters at once.
package bios.worker.sample;
