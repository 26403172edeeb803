package bios.coordinator.run;

import bios.coordinator.run.Results.Kept;
import bios.coordinator.run.RunEvent.ErrorSeen;
import bios.coordinator.run.TrainingRun.Decision;
import bios.protocol.run.RequestId;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.function.Function;
import java.util.function.Supplier;
import org.apache.pekko.actor.typed.ActorRef;

/// Answers what the gateway asks of a run: what is written, [TrainingRun] decides, what is read, lies here.
/// Belongs to one actor.
final class Requests {
    private final RunContext context;
    private final Timings timings;
    private final Outcomes outcomes;
    private final Waiters waiters;
    private final PageSearch pages;
    private final EngineCopy copy;
    private final Departure departure;

    Requests(RunContext context, Timings timings, Outcomes outcomes, Waiters waiters, PageSearch pages,
            EngineCopy copy, Departure departure) {
        this.context = context;
        this.timings = timings;
        this.outcomes = outcomes;
        this.waiters = waiters;
        this.pages = pages;
        this.copy = copy;
        this.departure = departure;
    }

    /// What follows from a command.
    Next on(TrainingRun run, RunCommand command) {
        return switch (command) {
            case RunCommand.Create(var config, var replyTo) ->
                carryOut(run, run.create(config), replyTo, this::described);
            case RunCommand.Submit c -> forOwner(run, c.owner(), c.replyTo(), () -> submit(run, c));
            case RunCommand.Retrieve c -> forOwner(run, c.owner(), c.replyTo(), () -> retrieve(run, c));
            case RunCommand.Describe(var owner, var replyTo) ->
                answered(run, owner, replyTo, () -> described(run));
            case RunCommand.Resolve(var owner, var path, var replyTo) ->
                answered(run, owner, replyTo, () -> run.checkpoints().answer(path, context.now()));
            case RunCommand.ResolveSnapshot(var owner, var content, var replyTo) ->
                answered(run, owner, replyTo, () -> run.checkpoints().answer(content));
            case RunCommand.DeleteCheckpoint(var owner, var kind, var name, var replyTo) ->
                decided(run, owner, replyTo, () -> run.checkpoints().decideDelete(kind, name));
            case RunCommand.SetExpiry(var owner, var kind, var name, var at, var replyTo) ->
                decided(run, owner, replyTo, () -> run.checkpoints().decideExpiry(kind, name, at));
            case RunCommand.ReleaseSnapshots(var owner, var session, var replyTo) ->
                decided(run, owner, replyTo, () -> run.checkpoints().decideRelease(session));
            case RunCommand.Unload(var owner, var replyTo) ->
                forOwner(run, owner, replyTo, () -> departure.unload(run, replyTo));
            case RunCommand.Recount(var owner, var replyTo) ->
                answered(run, owner, replyTo, () -> new RunReply.Recounted(run.history()));
            case RunCommand.Time(var owner, var replyTo) ->
                answered(run, owner, replyTo, () -> new RunReply.Timed(timings.newest()));
            case RunCommand.Leave _ -> departure.leave(seq -> pending(run, seq));
        };
    }

    private Next forOwner(TrainingRun run, String owner, ActorRef<RunReply> replyTo, Supplier<Next> next) {
        boolean own = run.config().filter(c -> c.owner().equals(owner)).isPresent();
        return own ? next.get() : refuse(replyTo, Reason.NOT_FOUND, "there is no run " + context.id());
    }

    private Next answered(TrainingRun run, String owner, ActorRef<RunReply> replyTo,
            Supplier<RunReply> reply) {
        return forOwner(run, owner, replyTo, () -> new Next.Reply(replyTo, reply.get()));
    }

    private Next decided(TrainingRun run, String owner, ActorRef<RunReply> replyTo,
            Supplier<Decision> decision) {
        return forOwner(run, owner, replyTo,
                () -> carryOut(run, decision.get(), replyTo, _ -> new RunReply.Done()));
    }

    private static Next refuse(ActorRef<RunReply> replyTo, Reason reason, String message) {
        return new Next.Reply(replyTo, new RunReply.Refused(reason, message));
    }

    private static Next carryOut(TrainingRun run, Decision decision, ActorRef<RunReply> replyTo,
            Function<TrainingRun, RunReply> reply) {
        return switch (decision) {
            case Decision.Accept(var events) -> new Next.StoreAndReply(events, replyTo, reply);
            case Decision.Duplicate _ -> new Next.Reply(replyTo, reply.apply(run));
            case Decision.Refuse(var reason, var message) -> refuse(replyTo, reason, message);
        };
    }

    private RunReply described(TrainingRun run) {
        return new RunReply.Described(run.config().orElseThrow(), run.lora().orElseThrow(), outcomes.step(),
                run.lastRequestMillis(), run.checkpoints().current(context.now()), run.closed());
    }

    private Next submit(TrainingRun run, RunCommand.Submit c) {
        timings.arrived();
        boolean known = run.known().contains(c.seq());
        if (departure.unloading() && !known)
            return refuse(c.replyTo(), Reason.CLOSED, "the run is being unloaded");
        Optional<String> remembered = outcomes.bySeq(c.seq()).map(Kept::digest);
        TrainingRun.Load load = outcomes.load(run);
        Decision decision = run.submit(c.seq(), c.operation(), c.digest(), c.nowMillis(), remembered, load,
                context.settings());
        if (decision instanceof Decision.Accept) outcomes.accepts(c.owner(), load, c.operation().bytes());
        return carryOut(run, decision, c.replyTo(),
                _ -> new RunReply.Accepted(new RequestId(context.id(), c.seq())));
    }

    private Next retrieve(TrainingRun run, RunCommand.Retrieve c) {
        var request = new RequestId(context.id(), c.seq());
        if (!run.known().contains(c.seq()))
            return refuse(c.replyTo(), Reason.NOT_FOUND, "there is no request " + request);
        Optional<Kept> kept = outcomes.bySeq(c.seq());
        if (kept.isPresent()) return answer(run, kept.get(), c.replyTo());
        boolean coming = outcomes.coming(run, c.seq());
        if (!coming && !PageSearch.mayFind(run, c.seq()))
            return refuse(c.replyTo(), Reason.NOT_FOUND,
                    "request " + request + " was finished, but its result is no longer kept");
        if (!coming) pages.begin(run, c.seq());
        boolean full = waiters.count() >= context.settings().maxWaiting();
        if (c.waitMillis() <= 0 || departure.leaving() || full)
            return new Next.Reply(c.replyTo(), pending(run, c.seq()));
        waiters.add(c.seq(), c.replyTo(), Duration.ofMillis(c.waitMillis()));
        return new Next.Rest();
    }

    /// A waiter's time is over.
    Next over(TrainingRun run, Internal.WaitOver waited) {
        return waiters.over(waited.seq(), waited.waiter())
                .<Next>map(replyTo -> new Next.Reply(replyTo, pending(run, waited.seq())))
                .orElse(new Next.Rest());
    }

    private RunReply pending(TrainingRun run, long seq) {
        var request = new RequestId(context.id(), seq);
        return copy.stalled().<RunReply>map(why -> new RunReply.Stalled(request, why))
                .orElseGet(() -> new RunReply.Pending(request, outcomes.ahead(run, seq)));
    }

    /// Gives an outcome to who asked for it. A failure that is told is an event: what is accepted from then
    /// on goes on in spite of it.
    Next answer(TrainingRun run, Kept kept, ActorRef<RunReply> replyTo) {
        outcomes.fetched(kept);
        var request = new RequestId(context.id(), kept.seq());
        if (kept.result().isPresent())
            return new Next.Reply(replyTo, new RunReply.Completed(request, kept.result().get()));
        var failed = new RunReply.Failed(request, kept.fault().orElseThrow());
        return run.wouldBeSeen(kept.position())
                ? new Next.StoreAndReply(List.of(new ErrorSeen(run.accepted())), replyTo, _ -> failed)
                : new Next.Reply(replyTo, failed);
    }
}
