package bios.protocol.run;

/// The duration of one operation from its arrival at the run to its result, in three parts that add up to the
/// total.
///
/// @param seq the client's sequence number
/// @param journalNanos time until the operation was in the journal
/// @param queueNanos time of waiting: for earlier operations, for other runs, for threads, and of a save for
///     its blobs
/// @param engineNanos device time; includes the whole time of a pass that is shared with other runs
/// @param finishedMillis when it had its result, epoch milliseconds
public record OperationTiming(long seq, OperationKind kind, long journalNanos, long queueNanos,
        long engineNanos, long finishedMillis) {}
