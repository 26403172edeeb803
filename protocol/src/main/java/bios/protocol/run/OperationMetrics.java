package bios.protocol.run;

import java.util.Map;
import java.util.Optional;

/// What an operation has reported when it had finished, for those who follow a run.
///
/// @param position of the operation in the run, from 1
/// @param seq the client's sequence number
/// @param step optimizer steps applied then
/// @param metrics those of its result
/// @param failure code of the fault with which it failed
/// @param finishedMillis when it had its result, epoch milliseconds; later if it was executed again
public record OperationMetrics(long position, long seq, OperationKind kind, long step,
        Map<String, Double> metrics, Optional<String> failure, long finishedMillis) {}
