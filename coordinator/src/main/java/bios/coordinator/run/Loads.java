package bios.coordinator.run;

import bios.protocol.Fault;
import bios.protocol.run.Operation;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;

/// Finds the checkpoint that a load names, in the run itself or in another. Belongs to one actor.
final class Loads {
    private static final int ATTEMPTS = 5;

    private final RunContext context;

    Loads(RunContext context) {
        this.context = context;
    }

    /// Asks for what `entry` loads. [Internal.LoadFound], [Internal.LoadFailed] or [Internal.ResolveLater]
    /// says what came of it.
    ///
    /// @param attempt which time it is asked for, from 1
    void find(TrainingRun run, Entry entry, int attempt, long epoch) {
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
    void later(Internal.ResolveLater asked) {
        context.after(context.settings().retryAfter(), "resolve",
                new Internal.ResolveAgain(asked.epoch(), asked.position(), asked.attempt()));
    }
}
