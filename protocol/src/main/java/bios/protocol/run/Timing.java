package bios.protocol.run;

/// How long one operation took, from its arrival at the run to its result. The three parts add up to the
/// total.
///
/// @param seq the client's number of the operation
/// @param journalNanos until it was written to the journal
/// @param queueNanos waiting: for earlier operations, for other runs, for threads, and of a save for its
///     blobs
/// @param engineNanos device time; of a pass that is shared with other runs, all of it
public record Timing(long seq, OperationKind kind, long journalNanos, long queueNanos, long engineNanos) {}
