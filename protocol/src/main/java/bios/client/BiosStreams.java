package bios.client;

import bios.protocol.client.Answer;
import bios.protocol.run.AdamParams;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletionStage;
import java.util.function.LongFunction;
import java.util.function.ToLongFunction;
import org.apache.pekko.NotUsed;
import org.apache.pekko.japi.Pair;
import org.apache.pekko.stream.javadsl.Flow;
import org.apache.pekko.stream.javadsl.Source;

/// Runs as Pekko streams, in the caller's own actor system.
public final class BiosStreams {
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

    /// The history of a run from the entry after a number (0: the first that is kept), and each entry that is
    /// added. Asks for more when there is demand. Never completes.
    public static Source<Answer.HistoryEntry, NotUsed> history(TrainingRun run, long after) {
        return following(run::historyAfter, entry -> entry.number().orElseThrow(), after);
    }

    /// What the operations of a run report, from the one after a position (0: the first that is kept). Asks
    /// for more when there is demand. Never completes.
    public static Source<Answer.OperationMetrics, NotUsed> metrics(TrainingRun run, long after) {
        return following(run::metricsAfter, Answer.OperationMetrics::number, after);
    }

    private static <E> Source<E, NotUsed> following(LongFunction<CompletionStage<List<E>>> newer,
            ToLongFunction<E> number, long after) {
        return Source.unfoldAsync(after, last -> newer.apply(last).thenApply(entries -> Optional.of(
                Pair.create(entries.isEmpty() ? last : Long.valueOf(number.applyAsLong(entries.getLast())),
                        entries)))).mapConcat(entries -> entries);
    }
}
