package bios.coordinator.run;

import bios.coordinator.run.Results.Kept;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import java.util.List;
import java.util.Optional;

/// The search for results that only pages in the store hold, for those who wait for them; one search at a
/// time. Belongs to one actor.
final class PageSearch {
    private final RunContext context;
    private final Outcomes outcomes;
    private final Waiters waiters;
    private boolean reading;

    PageSearch(RunContext context, Outcomes outcomes, Waiters waiters) {
        this.context = context;
        this.outcomes = outcomes;
        this.waiters = waiters;
    }

    /// Whether some page may hold the result of `seq`.
    static boolean mayFind(TrainingRun run, long seq) {
        return run.recovery().allPages().stream().anyMatch(page -> page.mayHold(seq));
    }

    /// Looks for the result of `seq` in the pages that may hold it, newest first. [Internal.PageRead] says
    /// what came of it.
    void begin(TrainingRun run, long seq) {
        if (reading) return;
        reading = true;
        List<ResultsPage> among = run.recovery().allPages();
        context.later(() -> read(seq, among), (read, failure) -> failure == null ? read
                : new Internal.PageRead(seq, Optional.empty(), List.of(), among,
                        Optional.of(failure.toString())));
    }

    private Internal.PageRead read(long seq, List<ResultsPage> among) {
        for (ResultsPage page : among.reversed()) {
            if (!page.mayHold(seq)) continue;
            List<Kept> all = ResultsPages.read(context.world().blobs(), page);
            Optional<Kept> found = all.stream().filter(kept -> kept.seq() == seq).findFirst();
            if (found.isPresent()) return new Internal.PageRead(seq, found, all, among, Optional.empty());
        }
        return new Internal.PageRead(seq, Optional.empty(), List.of(), among, Optional.empty());
    }

    /// A search is over: tells who waited, and looks for what others wait for.
    void over(TrainingRun run, Internal.PageRead read) {
        reading = false;
        if (read.failure().isPresent()) {
            context.warn("the result of request {} waits for the store: {}", read.seq(),
                    read.failure().get());
            context.after(context.settings().retryAfter(), "pages", new Internal.PagesAgain());
            return;
        }
        outcomes.add(read.page());
        read.found().ifPresent(waiters::wake);
        // A page may have been merged into another meanwhile.
        if (read.found().isEmpty() && read.among().equals(run.recovery().allPages()))
            waiters.answer(read.seq(), new RunReply.Refused(Reason.NOT_FOUND,
                    "the result of request " + read.seq() + " is no longer kept"));
        forWaiters(run);
        outcomes.account(run);
    }

    /// Looks for the first result that somebody waits for and only a page may hold.
    void forWaiters(TrainingRun run) {
        for (long seq : waiters.seqs()) {
            Optional<Kept> kept = outcomes.bySeq(seq);
            kept.ifPresent(waiters::wake);
            if (kept.isEmpty() && !outcomes.coming(run, seq)) begin(run, seq);
        }
    }
}
