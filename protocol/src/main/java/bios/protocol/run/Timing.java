package bios.protocol.run;

/// How long the service took over one operation, from its arrival at the run to its result. The three parts
/// add up to the whole.
///
/// @param seq the client's number
/// @param journalNanos until the journal held it
/// @param queueNanos waiting: for those before it, for other runs, for threads, and of a save for its blobs
/// @param engineNanos the device's work; of a pass shared with other runs, all of it
public record Timing(long seq, OperationKind kind, long journalNanos, long queueNanos, long engineNanos) {}
