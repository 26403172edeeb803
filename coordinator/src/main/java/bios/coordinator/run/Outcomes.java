package bios.coordinator.run;

import bios.coordinator.run.Entry.Outcome;
import bios.coordinator.run.Results.Kept;
import bios.protocol.Fault;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunNote;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// What has come of a run's operations: which of the line are finished, their results, and what both take of
/// the node's memory. Belongs to one actor.
final class Outcomes {
    private final RunContext context;
    private final Timings timings;
    private final Waiters waiters;
    private final Results results;
    private final NodeMemory.Account memory;
    /// Positions behind the recovery point that have an outcome.
    private final Set<Long> done = new HashSet<>();
    private long step;
    private boolean shrinking;

    /// @param waiters who is told
    Outcomes(RunContext context, Timings timings, Waiters waiters) {
        this.context = context;
        this.timings = timings;
        this.waiters = waiters;
        var settings = context.settings();
        this.results = new Results(settings.maxResults(), settings.maxResultBytes(),
                settings.resultMemoryBytes());
        var self = context.actor().getSelf();
        this.memory = context.world().memory().open(() -> self.tell(new Internal.Shrink()));
    }

    /// The entity begins: what the journal says of the run is known, and no more.
    void begin(TrainingRun run) {
        step = run.recovery().step();
        results.saved(run.recovery().position());
        for (Entry entry : run.line()) {
            switch (entry.outcome()) {
                case Outcome.Failed(var why) -> complete(failure(entry, why));
                case Outcome.Committed(var manifest) ->
                    complete(success(entry, new OperationResult.Saved(manifest)));
                case Outcome.Open _, Outcome.Resolved _, Outcome.Applied _ -> {}
            }
        }
    }

    /// The entity ends: what it holds is no longer counted.
    void end() {
        memory.close();
    }

    static Kept success(Entry entry, OperationResult result) {
        return new Kept(entry.position(), entry.seq(), entry.digest(), Optional.of(result), Optional.empty());
    }

    static Kept failure(Entry entry, Fault why) {
        return new Kept(entry.position(), entry.seq(), entry.digest(), Optional.empty(), Optional.of(why));
    }

    /// Optimizer steps known to be applied.
    long step() {
        return step;
    }

    /// An operation has an outcome; who waits for it is told.
    void complete(Kept kept) {
        step = kept.result().map(this::stepBehind).orElse(step);
        timings.finished(kept.position());
        results.add(kept);
        if (done.add(kept.position())) context.meter().finished();
        context.meter().reached(kept.position()).ifPresent(recovered -> recovered(kept, recovered));
        waiters.wake(kept);
    }

    private long stepBehind(OperationResult result) {
        return switch (result) {
            case OperationResult.Stepped(var at, _) -> at;
            case OperationResult.Loaded(_, var at) -> at;
            case OperationResult.Evaluated _, OperationResult.Saved _ -> step;
        };
    }

    private void recovered(Kept last, RunMeter.Recovered recovered) {
        context.note(RunNote.Kind.RECOVERED, Optional.of(last.position()), Map.of("seconds",
                String.format(Locale.ROOT, "%.3f", recovered.seconds()), "operations",
                "" + recovered.operations()));
        context.actor().getLog().atInfo().addKeyValue("run", context.id())
                .addKeyValue("position", last.position())
                .log("recovered in {} s, {} operations executed again", recovered.seconds(),
                        recovered.operations());
    }

    /// A recovery point at `position` is in the journal.
    void saved(long position) {
        timings.forget(position);
        done.removeIf(at -> at <= position);
        results.saved(position);
        if (shrinking) shrunk();
    }

    /// Results as they were read from the store.
    void add(List<Kept> page) {
        page.forEach(results::add);
    }

    Optional<Kept> bySeq(long seq) {
        return results.bySeq(seq);
    }

    /// Its client is given it.
    void fetched(Kept kept) {
        results.fetched(kept);
    }

    /// Whether an outcome of `seq` is still to come.
    boolean coming(TrainingRun run, long seq) {
        return run.bySeq(seq).filter(e -> !done.contains(e.position())).isPresent();
    }

    /// Whether all operations from one position to another are finished.
    boolean finished(long from, long to) {
        for (long at = from; at <= to; at++) if (!done.contains(at)) return false;
        return true;
    }

    /// Operations before `seq` that are not finished.
    int ahead(TrainingRun run, long seq) {
        if (run.bySeq(seq).isEmpty()) return 0;
        int ahead = 0;
        for (Entry entry : run.line()) {
            if (entry.seq() == seq) break;
            if (!done.contains(entry.position())) ahead++;
        }
        return ahead;
    }

    /// What is not finished, of the run and of its owner.
    TrainingRun.Load load(TrainingRun run) {
        int count = 0;
        long bytes = 0;
        for (Entry entry : run.line()) {
            if (done.contains(entry.position())) continue;
            count++;
            bytes += entry.operation().bytes();
        }
        String owner = run.config().map(config -> config.owner()).orElse("");
        NodeMemory node = context.world().memory();
        return new TrainingRun.Load(count, bytes, node.unfinished(owner), node.unfinishedBytes(owner));
    }

    /// Tells the node what this run takes.
    void account(TrainingRun run) {
        if (run.config().isEmpty()) return;
        var now = load(run);
        memory.unfinished(run.config().get().owner(), now.unfinished(), now.unfinishedBytes());
        memory.results(results.bytes());
    }

    /// An operation of `owner` is about to be stored: it counts at once.
    void accepts(String owner, TrainingRun.Load now, long bytes) {
        memory.unfinished(owner, now.unfinished() + 1, now.unfinishedBytes() + bytes);
    }

    /// Whether results that only memory holds have become too many.
    boolean heavy() {
        return results.unsavedBytes() > context.settings().resultMemoryBytes();
    }

    /// The pages of a recovery point at `position`, as they are to be written.
    ResultsPages pages(TrainingRun run, long position) {
        return ResultsPages.next(context.id(), results, run.recovery().allPages(), position);
    }

    /// Those of the pages that are kept.
    List<ResultsPage> kept(List<ResultsPage> pages) {
        return results.kept(pages);
    }

    /// Gives back what it can of the node's memory: at once what lies in pages. Whether there is more, which
    /// waits for a recovery point.
    boolean shrink() {
        shrinking = true;
        results.shrink(0);
        if (results.unsavedBytes() == 0) shrunk();
        return shrinking;
    }

    private void shrunk() {
        shrinking = false;
        results.shrink(0);
        memory.heard();
    }
}
