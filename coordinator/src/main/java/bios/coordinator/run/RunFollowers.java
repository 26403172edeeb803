package bios.coordinator.run;

import bios.protocol.run.HistoryEntry;
import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationMetrics;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunCommand.RunReply;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Predicate;
import org.apache.pekko.actor.typed.ActorRef;

/// The followers of a run. A follower says which entry of the history, or which operation, is the last that
/// it knows, and waits for newer ones. It asks again after each reply: so at most one reply is on its way to
/// it, and one that is slow gets more at once. A follower that does not ask again is removed when its wait
/// time has elapsed. Belongs to one actor.
final class RunFollowers {
    /// Operations whose metrics are kept, in memory.
    static final int MAX_METRICS = 1024;

    private sealed interface Follower {
        record OfHistory(long id, long after, ActorRef<RunReply> replyTo) implements Follower {}

        record OfMetrics(long id, long after, ActorRef<RunReply> replyTo) implements Follower {}

        long id();

        ActorRef<RunReply> replyTo();

        default RunReply nothing() {
            return switch (this) {
                case OfHistory _ -> new RunReply.History(List.of());
                case OfMetrics _ -> new RunReply.Metrics(List.of());
            };
        }
    }

    private final RunContext context;
    private final List<Follower> waiting = new ArrayList<>();
    private final TreeMap<Long, OperationMetrics> finished = new TreeMap<>();
    private long lastId;

    RunFollowers(RunContext context) {
        this.context = context;
    }

    /// Whether somebody waits.
    boolean any() {
        return !waiting.isEmpty();
    }

    /// Replies with the entries after number `after`, now or when there are some.
    void history(TrainingRun run, long after, long waitMillis, ActorRef<RunReply> replyTo) {
        List<HistoryEntry> newer = RunHistory.newerThan(run.history(), after);
        if (!newer.isEmpty()) replyTo.tell(new RunReply.History(newer));
        else await(new Follower.OfHistory(++lastId, after, replyTo), waitMillis);
    }

    /// Replies with the metrics of the operations after position `after`, now or when there are some.
    void metrics(long after, long waitMillis, ActorRef<RunReply> replyTo) {
        List<OperationMetrics> newer = newerThan(after);
        if (!newer.isEmpty()) replyTo.tell(new RunReply.Metrics(newer));
        else await(new Follower.OfMetrics(++lastId, after, replyTo), waitMillis);
    }

    private List<OperationMetrics> newerThan(long after) {
        return List.copyOf(finished.tailMap(after, false).values());
    }

    private void await(Follower follower, long waitMillis) {
        if (waitMillis <= 0 || waiting.size() >= context.settings().maxWaiting()) {
            follower.replyTo().tell(follower.nothing());
            return;
        }
        waiting.add(follower);
        context.after(Duration.ofMillis(waitMillis), follower, new SelfMessage.FollowTimedOut(follower.id()));
    }

    /// Passes on the entries that were added to the history.
    void tell(TrainingRun run) {
        answer(follower -> {
            if (!(follower instanceof Follower.OfHistory(_, long after, var replyTo))) return false;
            List<HistoryEntry> newer = RunHistory.newerThan(run.history(), after);
            if (!newer.isEmpty()) replyTo.tell(new RunReply.History(newer));
            return !newer.isEmpty();
        });
    }

    /// Records what an operation has reported, and passes it on.
    ///
    /// @param step optimizer steps applied so far
    void finished(OperationKind kind, FinishedOperation outcome, long step) {
        finished.put(outcome.position(), new OperationMetrics(outcome.position(), outcome.seq(), kind, step,
                outcome.result().map(RunFollowers::metrics).orElse(Map.of()),
                outcome.fault().map(fault -> fault.code()), context.now()));
        if (finished.size() > MAX_METRICS) finished.pollFirstEntry();
        answer(follower -> {
            if (!(follower instanceof Follower.OfMetrics(_, long after, var replyTo))
                    || after >= outcome.position()) return false;
            replyTo.tell(new RunReply.Metrics(newerThan(after)));
            return true;
        });
    }

    private static Map<String, Double> metrics(OperationResult result) {
        return switch (result) {
            case OperationResult.Evaluated evaluated -> evaluated.metrics();
            case OperationResult.EvaluatedMatrix(var values, _) -> values.metrics();
            case OperationResult.Stepped(_, var metrics) -> metrics;
            case OperationResult.Saved _, OperationResult.Loaded _ -> Map.of();
        };
    }

    /// Ends the wait of a follower without anything new.
    void over(long id) {
        answer(follower -> {
            if (follower.id() != id) return false;
            follower.replyTo().tell(follower.nothing());
            return true;
        });
    }

    /// Ends all waits: the entity stops, and whoever asks again finds the next one.
    void endAll() {
        answer(follower -> {
            follower.replyTo().tell(follower.nothing());
            return true;
        });
    }

    private void answer(Predicate<Follower> answered) {
        waiting.removeIf(follower -> {
            boolean done = answered.test(follower);
            if (done) context.cancel(follower);
            return done;
        });
    }
}
