package bios.client;

import bios.protocol.client.Answer;
import bios.protocol.run.AdamParams;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletionStage;
import org.apache.pekko.NotUsed;
import org.apache.pekko.japi.Pair;
import org.apache.pekko.stream.javadsl.Flow;
import org.apache.pekko.stream.javadsl.Source;

/// Runs as Pekko streams, in the caller's own actor system.
public final class BiosStreams {
    private static final int NEWEST = 1000;

    private BiosStreams() {}

    /// One optimizer step for each batch, in their order. Asks for the next batch when fewer than `ahead`
    /// steps are not finished.
    public static Flow<Batch, Answer.Evaluated, NotUsed> steps(TrainingRun run, AdamParams params,
            int ahead) {
        return Flow.of(Batch.class).mapAsync(ahead, batch -> {
            CompletionStage<Answer.Evaluated> evaluated = run.forwardBackward(batch);
            return evaluated.thenCombine(run.optimStep(params), (result, _) -> result);
        });
    }

    /// The history of a run: the newest entries, then each that is added. Never completes.
    ///
    /// @param interval how often the run is asked
    public static Source<Answer.HistoryEntry, NotUsed> history(TrainingRun run, Duration interval) {
        return Source.unfoldAsync(List.<Answer.HistoryEntry>of(), seen -> run.history(NEWEST).thenApply(now ->
                Optional.of(Pair.create(now, added(seen, now)))))
                .throttle(1, interval).mapConcat(entries -> entries);
    }

    /// The entries of `now` that are newer than those of `seen`.
    static List<Answer.HistoryEntry> added(List<Answer.HistoryEntry> seen, List<Answer.HistoryEntry> now) {
        int last = seen.isEmpty() ? -1 : now.lastIndexOf(seen.getLast());
        return now.subList(last + 1, now.size());
    }
}
