package bios.coordinator.run;

import bios.protocol.Fault;
import bios.protocol.run.OperationResult;
import java.util.Optional;

/// The outcome of one operation: a result or a fault.
///
/// @param digest SHA-256 of the encoded operation
record FinishedOperation(long position, long seq, String digest, Optional<OperationResult> result,
        Optional<Fault> fault) {
    static FinishedOperation success(PendingOperation operation, OperationResult result) {
        return new FinishedOperation(operation.position(), operation.seq(), operation.digest(),
                Optional.of(result), Optional.empty());
    }

    static FinishedOperation failure(PendingOperation operation, Fault why) {
        return new FinishedOperation(operation.position(), operation.seq(), operation.digest(),
                Optional.empty(), Optional.of(why));
    }

    /// The approximate memory that it takes, bytes.
    long bytes() {
        return 512 + result.map(r -> switch (r) {
            case OperationResult.Evaluated values -> bytes(values);
            case OperationResult.EvaluatedMatrix(var values, var columns) ->
                    bytes(values) + 16L * columns.size();
            case OperationResult.Stepped _, OperationResult.Loaded _ -> 128L;
            case OperationResult.Saved _ -> 1024L;
        }).orElse(0L);
    }

    private static long bytes(OperationResult.Evaluated values) {
        return values.logprobs().stream().mapToLong(l -> 16 + 4L * l.length).sum()
                + 64L * values.metrics().size();
    }
}
