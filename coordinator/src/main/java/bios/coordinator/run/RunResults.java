package bios.coordinator.run;

import bios.protocol.run.OperationResult;
import bios.protocol.run.RequestId;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;
import java.util.function.LongFunction;
import org.apache.pekko.actor.typed.ActorRef;

/// The results of a run's operations, in memory and in pages in the blob store, and the clients that wait for
/// results. Reports the memory of the results to [NodeMemory]. Belongs to one actor.
final class RunResults {
    private record Waiter(long id, ActorRef<RunReply> replyTo) {}

    /// A command whose reply depends on the outcome of `seq`, which only a page may contain.
    ///
    /// @param reply empty: the outcome is no longer kept
    private record Lookup(long seq, Function<Optional<FinishedOperation>, RunReply> reply,
            ActorRef<RunReply> replyTo) {}

    private final RunContext context;
    private final ResultCache cache;
    private final NodeMemory.Account memory;
    private final Map<Long, List<Waiter>> waiters = new HashMap<>();
    private final List<Lookup> lookups = new ArrayList<>();
    private long nextWaiter;
    private boolean reading;
    private boolean shrinking;
    private long step;

    RunResults(RunContext context) {
        this.context = context;
        var settings = context.settings();
        cache = new ResultCache(settings.maxResults(), settings.maxResultBytes(),
                settings.resultMemoryBytes());
        var self = context.actor().getSelf();
        memory = context.environment().memory().open(() -> self.tell(new SelfMessage.Shrink()));
    }

    /// Initializes the results after the journal was read.
    void initialize(TrainingRun run) {
        step = run.recovery().step();
        cache.saved(run.recovery().position());
    }

    /// Closes the node's account of this run: the entity stops.
    void close() {
        memory.close();
    }

    /// Optimizer steps known to be applied.
    long step() {
        return step;
    }

    /// Adds the outcome of an operation and sends it to the clients that wait for it.
    void add(FinishedOperation outcome) {
        step = outcome.result().map(this::stepAfter).orElse(step);
        cache.add(outcome);
        sendOutcome(outcome);
    }

    private long stepAfter(OperationResult result) {
        return switch (result) {
            case OperationResult.Stepped(var at, _) -> at;
            case OperationResult.Loaded(_, var at) -> at;
            case OperationResult.Evaluated _, OperationResult.EvaluatedMatrix _,
                    OperationResult.Saved _ -> step;
        };
    }

    /// Records that a recovery point at `position` is in the journal.
    void markSaved(long position) {
        cache.saved(position);
        if (shrinking) finishShrink();
    }

    Optional<FinishedOperation> bySeq(long seq) {
        return cache.bySeq(seq);
    }

    /// Marks an outcome as fetched by a client.
    void markFetched(FinishedOperation outcome) {
        cache.fetched(outcome);
    }

    // Memory

    /// The values that limit the acceptance of operations.
    TrainingRun.Backlog backlog(TrainingRun run, RunScheduler scheduler) {
        String owner = run.config().map(config -> config.owner()).orElse("");
        NodeMemory node = context.environment().memory();
        return scheduler.backlog(run, node.unfinished(owner), node.unfinishedBytes(owner));
    }

    /// Updates the node's account of this run.
    void updateAccount(TrainingRun run, RunScheduler scheduler) {
        if (run.config().isEmpty()) return;
        var now = scheduler.backlog(run, 0, 0);
        memory.unfinished(run.config().get().owner(), now.unfinished(), now.unfinishedBytes());
        memory.results(cache.bytes());
    }

    /// Counts an operation of `owner` before it is persisted.
    void countAccepted(String owner, TrainingRun.Backlog now, long bytes) {
        memory.unfinished(owner, now.unfinished() + 1, now.unfinishedBytes() + bytes);
    }

    /// Whether the results that are only in memory exceed their limit.
    boolean overLimit() {
        return cache.unsavedBytes() > context.settings().resultMemoryBytes();
    }

    /// Frees the results that are in pages. Returns whether there are others, which the next recovery point
    /// writes to pages.
    boolean shrink() {
        shrinking = true;
        cache.shrink(0);
        if (cache.unsavedBytes() == 0) finishShrink();
        return shrinking;
    }

    private void finishShrink() {
        shrinking = false;
        cache.shrink(0);
        memory.shrunk();
    }

    // Pages

    /// Writes the results before a recovery point into pages.
    ///
    /// @param scope of a new page
    void write(TrainingRun run, String scope, RunEffect.WriteResults effect) {
        var pages = ResultsPages.next(scope, cache, run.recovery().allPages(),
                effect.point().position());
        context.later(() -> pages.write(context.environment().blobs()),
                (written, failure) -> new SelfMessage.Step(failure == null
                        ? new RunInput.ResultsWritten(effect.epoch(), effect.point(), cache.kept(written))
                        : new RunInput.ResultsNotWritten(effect.epoch(),
                                "its results cannot be stored: " + failure)));
    }

    /// Whether a page may contain the result of `seq`.
    static boolean mayFind(TrainingRun run, long seq) {
        return run.recovery().allPages().stream().anyMatch(page -> page.mayContain(seq));
    }

    /// Searches the pages for the result of `seq`, newest first; one search runs at a time.
    void search(TrainingRun run, long seq) {
        if (reading) return;
        reading = true;
        List<ResultsPage> searched = run.recovery().allPages();
        context.later(() -> searchPages(seq, searched), (read, failure) -> failure == null ? read
                : new SelfMessage.PageRead(seq, Optional.empty(), List.of(), searched,
                        Optional.of(failure.toString())));
    }

    private SelfMessage searchPages(long seq, List<ResultsPage> searched) {
        for (ResultsPage page : searched.reversed()) {
            if (!page.mayContain(seq)) continue;
            List<FinishedOperation> all = ResultsPages.read(context.environment().blobs(), page);
            Optional<FinishedOperation> found = all.stream().filter(each -> each.seq() == seq).findFirst();
            if (found.isPresent())
                return new SelfMessage.PageRead(seq, found, all, searched, Optional.empty());
        }
        return new SelfMessage.PageRead(seq, Optional.empty(), List.of(), searched, Optional.empty());
    }

    /// Replies to a repeated submission when the pages tell which operation had its number.
    void awaitDigest(TrainingRun run, RunCommand.Submit submit) {
        lookUp(run, submit.seq(), found -> found.map(first -> repeat(submit, first)).orElseGet(() ->
                new RunReply.Refused(Reason.CONFLICT, forgotten(submit.seq()))), submit.replyTo());
    }

    /// Replies when the pages tell the outcome of `seq`, or that it is no longer kept.
    void lookUp(TrainingRun run, long seq, Function<Optional<FinishedOperation>, RunReply> reply,
            ActorRef<RunReply> replyTo) {
        lookups.add(new Lookup(seq, reply, replyTo));
        search(run, seq);
    }

    /// Why a number is refused whose operation is no longer known.
    static String forgotten(long seq) {
        return "seq_id " + seq + " was used for an operation whose result is no longer kept; use a new"
                + " number";
    }

    /// Answers the commands about a number that was searched for.
    private void endLookups(SelfMessage.PageRead read, boolean searched) {
        for (Lookup lookup : List.copyOf(lookups)) {
            if (lookup.seq() != read.seq()) continue;
            lookups.remove(lookup);
            lookup.replyTo().tell(read.found().isPresent() || searched ? lookup.reply().apply(read.found())
                    : new RunReply.Refused(Reason.UNAVAILABLE, "the result of request " + lookup.seq()
                            + " cannot be read now; retry later"));
        }
    }

    private RunReply repeat(RunCommand.Submit submit, FinishedOperation first) {
        return first.digest().equals(submit.digest())
                ? new RunReply.Accepted(new RequestId(context.id(), submit.seq()))
                : new RunReply.Refused(Reason.CONFLICT, TrainingRun.usedOtherwise(submit.seq()));
    }

    /// Handles the end of a search and starts the next one.
    void onPageRead(TrainingRun run, RunScheduler scheduler, SelfMessage.PageRead read) {
        reading = false;
        if (read.failure().isPresent()) {
            context.warn("the result of request {} cannot be read yet: {}", read.seq(),
                    read.failure().get());
            endLookups(read, false);
            context.after(context.settings().retryAfter(), "pages", new SelfMessage.RetryPages());
            return;
        }
        read.page().forEach(cache::add);
        read.found().ifPresent(this::sendOutcome);
        // The page may have been merged into another one in the meantime.
        if (read.found().isEmpty() && read.searched().equals(run.recovery().allPages()))
            answer(read.seq(), new RunReply.Refused(Reason.NOT_FOUND,
                    "the result of request " + read.seq() + " is no longer kept"));
        endLookups(read, read.searched().equals(run.recovery().allPages()));
        searchForWaiters(run, scheduler);
        if (!lookups.isEmpty()) search(run, lookups.getFirst().seq());
        updateAccount(run, scheduler);
    }

    /// Searches for the first result for which a client waits and which only a page may contain.
    void searchForWaiters(TrainingRun run, RunScheduler scheduler) {
        for (long seq : List.copyOf(waiters.keySet())) {
            Optional<FinishedOperation> outcome = cache.bySeq(seq);
            outcome.ifPresent(this::sendOutcome);
            if (outcome.isEmpty() && !scheduler.awaitsOutcome(run, seq)) search(run, seq);
        }
    }

    // Waiters

    /// Adds a client that waits for `seq`; [SelfMessage.WaitTimedOut] follows after `time`.
    void await(long seq, ActorRef<RunReply> replyTo, Duration time) {
        var waiter = new Waiter(nextWaiter++, replyTo);
        waiters.computeIfAbsent(seq, _ -> new ArrayList<>()).add(waiter);
        context.after(time, waiter.id(), new SelfMessage.WaitTimedOut(seq, waiter.id()));
    }

    int waiterCount() {
        return waiters.values().stream().mapToInt(List::size).sum();
    }

    /// Sends [SelfMessage.Answer] for each client that waits for the outcome.
    private void sendOutcome(FinishedOperation outcome) {
        for (Waiter waiter : removeWaiters(outcome.seq()))
            context.tell(new SelfMessage.Answer(outcome, waiter.replyTo()));
    }

    private void answer(long seq, RunReply reply) {
        for (Waiter waiter : removeWaiters(seq)) waiter.replyTo().tell(reply);
    }

    /// Answers all waiting clients.
    void answerAll(LongFunction<RunReply> reply) {
        for (long seq : List.copyOf(waiters.keySet())) answer(seq, reply.apply(seq));
    }

    private List<Waiter> removeWaiters(long seq) {
        List<Waiter> all = Optional.ofNullable(waiters.remove(seq)).orElse(List.of());
        for (Waiter waiter : all) context.cancel(waiter.id());
        return all;
    }

    /// Removes a client whose wait time is over; returns its address unless it was answered.
    Optional<ActorRef<RunReply>> removeExpired(long seq, long waiter) {
        List<Waiter> all = waiters.getOrDefault(seq, List.of());
        Optional<Waiter> expired = all.stream().filter(w -> w.id() == waiter).findFirst();
        expired.ifPresent(all::remove);
        if (all.isEmpty()) waiters.remove(seq);
        return expired.map(Waiter::replyTo);
    }
}
