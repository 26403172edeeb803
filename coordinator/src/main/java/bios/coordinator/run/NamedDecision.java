package bios.coordinator.run;

import bios.protocol.Fault;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.WaitingOperation;
import java.util.Optional;

/// An owner's decision about an operation that is named and is not the one that is set aside or waits in
/// vain: nothing is left to do, or the decision cannot be carried out. A decision that was carried out gets
/// the same reply again, whatever was set aside since. Pure.
///
/// @param givesUp whether the operation is given up; otherwise it is tried again
record NamedDecision(TrainingRun run, long seq, boolean givesUp) {
    /// The reply; empty: the outcome of the operation must be looked up, see [#afterOutcome].
    ///
    /// @param kept the outcome in memory
    Optional<RunReply> reply(Optional<FinishedOperation> kept, RunScheduler scheduler) {
        if (!run.known().contains(seq)) return Optional.of(new RunReply.Refused(Reason.INVALID,
                operation(seq) + " was never accepted by run " + run.config().orElseThrow().run()));
        Optional<PendingOperation> pending = run.bySeq(seq);
        Optional<Fault> failed = pending.flatMap(PendingOperation::fault)
                .or(() -> kept.flatMap(FinishedOperation::fault));
        if (failed.isPresent()) return Optional.of(afterFailure(failed.get()));
        if (kept.isPresent()) return Optional.of(afterSuccess());
        if (pending.isPresent()) return Optional.of(scheduler.awaitsOutcome(run, seq)
                ? open(pending.get(), scheduler.waiting(run)) : afterSuccess());
        return RunResults.mayFind(run, seq) ? Optional.empty() : Optional.of(afterOutcome(Optional.empty()));
    }

    /// The reply when the outcome was looked up; empty: it is no longer kept.
    RunReply afterOutcome(Optional<FinishedOperation> found) {
        if (found.isEmpty()) return conflict("is finished, and its outcome is no longer kept");
        return found.get().fault().map(this::afterFailure).orElseGet(this::afterSuccess);
    }

    /// A fault of the service is an outcome only if the owner gave up the operation, or one before it.
    private RunReply afterFailure(Fault why) {
        return givesUp || why.kind() == Fault.Kind.USER ? new RunReply.Done()
                : conflict("has failed with " + why.code() + ", because it was given up or one before it was:"
                        + " it is not tried again; send it under a new number");
    }

    private RunReply afterSuccess() {
        return givesUp ? conflict("has succeeded: it cannot be given up") : new RunReply.Done();
    }

    /// @param waiting the operation that can be given up instead
    private RunReply open(PendingOperation operation, Optional<WaitingOperation> waiting) {
        if (givesUp) return conflict("is not the one that can be given up: "
                + waiting.map(other -> operation(other.seq()) + " is, give that one up")
                        .orElse("it is executed in its turn"));
        boolean held = run.setAside().filter(aside -> aside.holds(operation.position())).isPresent();
        boolean retried = run.history().stream().anyMatch(entry -> entry.kind() == HistoryEntry.Kind.RETRIED
                && entry.seq().equals(Optional.of(seq)));
        return held && !retried ? conflict("waits for " + waiting.map(other -> operation(other.seq()))
                .orElse("another one") + ", which is set aside: try that one again") : new RunReply.Done();
    }

    private RunReply conflict(String state) {
        return new RunReply.Refused(Reason.CONFLICT, operation(seq) + " " + state);
    }

    private static String operation(long seq) {
        return "operation " + seq;
    }
}
