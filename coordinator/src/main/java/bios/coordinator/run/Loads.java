package bios.coordinator.run;

import bios.coordinator.run.RunEvent.OperationFailed;
import bios.protocol.Fault;
import bios.protocol.run.Operation;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;
import java.util.List;

/// Finds the checkpoint that a load names, in the run itself or in another. Belongs to one actor.
final class Loads {
    private static final int ATTEMPTS = 5;

    private final RunContext context;
    private final EngineLine line;
    private final EngineCopy copy;

    Loads(RunContext context, EngineLine line, EngineCopy copy) {
        this.context = context;
        this.line = line;
        this.copy = copy;
    }

    /// Asks for what `entry` loads. [Internal.LoadFound], [Internal.LoadFailed] or [Internal.ResolveLater]
    /// says what came of it.
    ///
    /// @param attempt which time it is asked for, from 1
    void find(TrainingRun run, Entry entry, int attempt) {
        long epoch = copy.epoch();
        long position = entry.position();
        if (!(entry.operation() instanceof StoredOperation.Inline(var kind, var encoded)
                && StoredOperations.decode(kind, encoded)
                        instanceof Operation.LoadState(var path, var optimizer))) {
            context.tell(new Internal.LoadFailed(epoch, position,
                    Fault.server("unreadable_operation", "the load cannot be read")));
            return;
        }
        if (path.run().equals(context.id())) {
            context.tell(told(epoch, position, optimizer, run.checkpoints().answer(path, context.now())));
            return;
        }
        context.whenDone(context.world().resolver().resolve(run.config().orElseThrow().owner(), path),
                (reply, failure) -> {
                    boolean answered = failure == null && !(reply instanceof RunReply.Refused(var reason, _)
                            && reason == Reason.UNAVAILABLE);
                    if (answered) return told(epoch, position, optimizer, reply);
                    if (attempt < ATTEMPTS) return new Internal.ResolveLater(epoch, position, attempt + 1);
                    return new Internal.LoadFailed(epoch, position, Fault.server("checkpoint_unavailable",
                            "nobody could say where " + path + " is; try again later"));
                });
    }

    private static Internal told(long epoch, long position, boolean optimizer, RunReply reply) {
        return switch (reply) {
            case RunReply.Resolved(var manifest) ->
                new Internal.LoadFound(epoch, position, optimizer, manifest);
            case RunReply.Refused(_, var message) ->
                new Internal.LoadFailed(epoch, position, Fault.user("checkpoint_not_found", message));
            default -> new Internal.LoadFailed(epoch, position,
                    Fault.server("checkpoint_unavailable", "unexpected answer " + reply));
        };
    }

    /// Asks again after a while.
    Next later(Internal.ResolveLater asked) {
        if (asked.epoch() != copy.epoch()) return new Next.Rest();
        context.after(context.settings().retryAfter(), "resolve",
                new Internal.ResolveAgain(asked.epoch(), asked.position(), asked.attempt()));
        return new Next.Rest();
    }

    /// The while is over.
    Next again(TrainingRun run, Internal.ResolveAgain again) {
        if (again.epoch() == copy.epoch())
            run.at(again.position()).ifPresent(entry -> find(run, entry, again.attempt()));
        return new Next.Rest();
    }

    /// It is known what a load loads: whether it may, the run says.
    Next found(TrainingRun run, Internal.LoadFound found) {
        return found.epoch() != copy.epoch() ? new Next.Rest()
                : resolved(run.load(found.position(), found.manifest(), found.optimizer()));
    }

    /// A load has nothing to load.
    Next failed(Internal.LoadFailed failed) {
        return failed.epoch() != copy.epoch() ? new Next.Rest()
                : resolved(new OperationFailed(failed.position(), failed.why()));
    }

    private Next resolved(RunEvent outcome) {
        line.resolved();
        return new Next.Store(List.of(outcome));
    }
}
