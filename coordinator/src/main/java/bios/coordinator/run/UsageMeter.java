package bios.coordinator.run;

import bios.coordinator.run.RunEvent.UsageCounted;
import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunUsage;
import java.util.Collection;
import java.util.Optional;
import java.util.TreeMap;

/// What the operations of a run use. They are counted in the journal with the recovery point that includes
/// them, after which they are never executed again; until then by their positions, so that one that is
/// executed again replaces what it used before. Belongs to one actor.
final class UsageMeter {
    private record Use(long trained, long evaluated, long nanos) {
        static final Use NONE = new Use(0, 0, 0);
    }

    private RunUsage counted = RunUsage.NONE;
    private final TreeMap<Long, Use> uses = new TreeMap<>();
    private long tokens;

    /// Goes on after what the journal has counted.
    void begin(TrainingRun run) {
        counted = run.usage().orElse(RunUsage.NONE);
        uses.clear();
        tokens = counted.trainedTokens() + counted.evaluatedTokens();
    }

    /// Records the time of the device for an operation.
    void measured(long position, long nanos) {
        if (position <= counted.position()) return;
        Use use = uses.getOrDefault(position, Use.NONE);
        uses.put(position, new Use(use.trained(), use.evaluated(), nanos));
    }

    /// Records the result of an operation.
    void finished(OperationKind kind, FinishedOperation outcome) {
        if (outcome.position() <= counted.position()) return;
        long tokens = outcome.result().map(UsageMeter::tokens).orElse(0L);
        if (tokens == 0) return;
        Use use = uses.getOrDefault(outcome.position(), Use.NONE);
        this.tokens += tokens - use.trained() - use.evaluated();
        uses.put(outcome.position(), kind == OperationKind.FORWARD ? new Use(0, tokens, use.nanos())
                : new Use(tokens, 0, use.nanos()));
    }

    private static long tokens(OperationResult result) {
        return switch (result) {
            case OperationResult.Evaluated evaluated -> evaluated.logprobs().stream()
                    .mapToLong(logprobs -> logprobs.length).sum();
            // A position with several target tokens is one position.
            case OperationResult.EvaluatedMatrix(var values, var columns) -> {
                long positions = 0;
                for (int i = 0; i < columns.size(); i++)
                    positions += values.logprobs().get(i).length / Math.max(1, columns.get(i));
                yield positions;
            }
            case OperationResult.Stepped _, OperationResult.Saved _, OperationResult.Loaded _ -> 0;
        };
    }

    /// The event that counts the operations up to a position; empty: they used nothing.
    Optional<UsageCounted> upTo(long position, long nowMillis) {
        Use sum = sum(uses.headMap(position, true).values());
        return sum.equals(Use.NONE) ? Optional.empty() : Optional.of(new UsageCounted(position, sum.trained(),
                sum.evaluated(), sum.nanos(), nowMillis));
    }

    /// The event is in the journal.
    void stored(TrainingRun run) {
        counted = run.usage().orElse(RunUsage.NONE);
        uses.headMap(counted.position(), true).clear();
    }

    /// What was used, with what the journal has not counted yet.
    RunUsage now(long nowMillis) {
        Use sum = sum(uses.values());
        return sum.equals(Use.NONE) ? counted : counted.plus(uses.lastKey(), sum.trained(), sum.evaluated(),
                sum.nanos(), nowMillis);
    }

    /// Tokens that were trained or evaluated.
    long tokens() {
        return tokens;
    }

    private static Use sum(Collection<Use> all) {
        Use sum = Use.NONE;
        for (Use use : all) sum = new Use(sum.trained() + use.trained(), sum.evaluated() + use.evaluated(),
                sum.nanos() + use.nanos());
        return sum;
    }
}
