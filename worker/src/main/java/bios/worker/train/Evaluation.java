package bios.worker.train;

import static bios.protocol.Require.require;

import bios.protocol.Fault;
import bios.protocol.Invalid;
import bios.protocol.run.Datum;
import bios.protocol.run.Operation.ForwardBackward;
import bios.protocol.run.OperationResult.Evaluated;
import bios.protocol.run.OperationResult;
import bios.worker.adapter.Factors;
import bios.worker.adapter.TrainingState;
import bios.worker.load.ModelSpec;
import bios.worker.model.RunBatch;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/// A `ForwardBackward` in execution: cut, in order, into micro-batches. The results are bitwise
/// independent of the cuts: sums over tokens continue where the previous batch ended. The gradient of the
/// operation is summed separately and added to the run's sum in [#finish], so an operation counts wholly or
/// not at all. Without `finish`, [#close] discards it.
public final class Evaluation implements AutoCloseable {
    /// Most targets of a micro-batch: each takes some 20 bytes of the device. A sequence with more has a
    /// micro-batch of its own.
    private static final int MOST_TARGETS = 1 << 20;

    private final TrainingState state;
    private final ForwardBackward operation;
    private final List<Loss> losses;
    private final NonFinite nonFinite;
    private final Divergence divergence = new Divergence();
    private final List<float[]> logprobs = new ArrayList<>();
    private Optional<Factors> gradient = Optional.empty();
    private double lossSum;
    private double weightSum;
    private long notFinite;
    private boolean gradientFinite = true;
    private int prepared;
    private int completed;

    private Evaluation(TrainingState state, ForwardBackward operation, List<Loss> losses,
            NonFinite nonFinite) {
        this.state = state;
        this.operation = operation;
        this.losses = losses;
        this.nonFinite = nonFinite;
    }

    /// Checks everything that can be wrong with the operation on this model, and cuts it.
    /// [Refused] names the datum.
    ///
    /// @param tokenBudget most tokens of a micro-batch; a longer sequence has one of its own
    static Evaluation of(TrainingState state, ForwardBackward operation, ModelSpec model, int tokenBudget,
            NonFinite nonFinite) {
        try {
            if (operation.data().isEmpty()) throw new Invalid("data", "is empty; give at least one datum");
            for (int i = 0; i < operation.data().size(); i++)
                check("data[" + i + "]", operation.data().get(i), operation, model);
            Map<String, Double> settings = operation.loss().settings(operation.settings());
            return new Evaluation(state, operation, cut(operation.data(), tokenBudget).stream()
                    .map(batch -> new Loss(operation.loss(), settings, batch)).toList(), nonFinite);
        } catch (Invalid e) {
            throw new Refused(Fault.user("invalid_request", e.getMessage()));
        }
    }

    private static void check(String at, Datum datum, ForwardBackward operation, ModelSpec model) {
        int n = datum.tokens().length;
        if (n == 0) throw new Invalid(at + ".model_input", "has no tokens");
        if (n > model.contextLength())
            throw new Invalid(at + ".model_input",
                    "has " + n + " tokens; the model's context is " + model.contextLength());
        operation.loss().check(at, datum, operation.loss().settings(operation.settings()));
        for (int i = 0; i < n; i++) known(at + ".model_input", i, datum.tokens()[i], model);
        long[] targets = datum.targets().longs();
        for (int i = 0; i < targets.length; i++)
            known(at + ".loss_fn_inputs.target_tokens", i / datum.targetsEach(), targets[i], model);
    }

    private static void known(String field, int i, long token, ModelSpec model) {
        if (token < 0 || token >= model.vocabularySize())
            throw new Invalid(field, "holds " + token + " at position " + i
                    + "; token ids of this model are 0 to " + (model.vocabularySize() - 1));
    }

    /// As few batches as the budget allows, of about equal size, because all rows of a pass share the reads
    /// of the weights.
    private static List<List<Datum>> cut(List<Datum> data, int tokenBudget) {
        long all = data.stream().mapToLong(d -> d.tokens().length).sum();
        long least = Math.ceilDiv(all, (long) tokenBudget);
        long share = Math.ceilDiv(all, least);
        List<List<Datum>> batches = new ArrayList<>();
        long tokens = 0;
        long targets = 0;
        for (Datum datum : data) {
            int n = datum.tokens().length;
            int more = datum.targets().elements();
            if (batches.isEmpty() || tokens >= share || tokens + n > tokenBudget
                    || targets + more > MOST_TARGETS) {
                batches.add(new ArrayList<>());
                tokens = 0;
                targets = 0;
            }
            batches.getLast().add(datum);
            tokens += n;
            targets += more;
        }
        return batches;
    }

    /// Whether all passes of it are completed.
    public boolean done() {
        return completed == losses.size();
    }

    /// Whether all micro-batches are prepared: [Trainer#prepare] has nothing left to do.
    public boolean allPrepared() {
        return prepared == losses.size();
    }

    /// Tokens of the next micro-batch to be prepared; 0 when there is none.
    public int nextTokens() {
        return allPrepared() ? 0 : losses.get(prepared).rows();
    }

    /// The run whose state it reads and, in [#finish], adds to.
    public TrainingState state() {
        return state;
    }

    /// The next micro-batch for a pass.
    RunBatch nextBatch() {
        require(!allPrepared(), "nothing is left to evaluate");
        Loss loss = losses.get(prepared++);
        return new RunBatch(Optional.of(state.adapter()), loss.sequences(), loss.targetsEach(),
                loss.targets(),
                operation.forwardOnly() ? Optional.empty() : Optional.of(loss.inputs()));
    }

    /// The sum to which a pass adds the operation's gradient; allocated at the first call, by the thread that
    /// calls the device's verbs.
    Optional<Factors> gradient() {
        if (!operation.forwardOnly() && gradient.isEmpty()) gradient = Optional.of(state.allocateGradient());
        return gradient;
    }

    /// Takes the results of the oldest micro-batch on its way.
    ///
    /// @param finite whether the gradient is finite after this micro-batch
    void complete(float[] values, boolean finite) {
        require(completed < prepared, "no micro-batch is on its way");
        Loss loss = losses.get(completed);
        lossSum = loss.sum(values, lossSum);
        weightSum = loss.weightSum(weightSum);
        gradientFinite &= finite;
        loss.addTo(divergence, values);
        int bad = loss.notFinite(values);
        notFinite += bad;
        if (bad > 0) for (int i = 0; i < values.length; i++) values[i] = NonFinite.reported(values[i]);
        int at = 0;
        for (int i = 0; i < loss.sequences().size(); i++) {
            int count = loss.sequences().get(i).length * loss.targetsEach()[i];
            logprobs.add(Arrays.copyOfRange(values, at, at + count));
            at += count;
        }
        completed++;
    }

    /// Adds the gradient to the run's sum and returns the result. All passes must be completed. Called by the
    /// thread that calls the device's verbs; does not wait. If a number is not finite, the operation is
    /// refused with the code `non_finite`, or spoils the sum, so that the next optimizer step is skipped.
    public Evaluated finish() {
        require(done(), "%d micro-batches are left", losses.size() - completed);
        long tokens = operation.data().stream().mapToLong(d -> d.tokens().length).sum();
        if (notFinite == 0 && !gradientFinite) notFinite = tokens;
        if (notFinite > 0 && nonFinite == NonFinite.FAIL) throw NonFinite.refused(why(tokens));
        if (notFinite > 0 && gradientFinite) gradient.ifPresent(Factors::spoil);
        gradient.ifPresent(state::accumulate);
        gradient = Optional.empty();
        // sorted: results are stored, the same as the same bytes
        Map<String, Double> metrics = new TreeMap<>();
        divergence.report(operation.loss(), metrics);
        metrics.put("loss:sum", NonFinite.reported(lossSum));
        metrics.put("non_finite:sum", (double) notFinite);
        metrics.put("tokens:sum", (double) tokens);
        metrics.put("weights:sum", weightSum);
        return new Evaluated(List.copyOf(logprobs), Collections.unmodifiableMap(metrics));
    }

    /// [#finish], with the shapes of the log-probabilities where they are no vectors.
    public OperationResult result() {
        Evaluated values = finish();
        if (operation.data().stream().allMatch(d -> d.targets().shape().length == 1)) return values;
        return new OperationResult.EvaluatedMatrix(values, operation.data().stream().map(Datum::targets)
                .map(t -> t.shape().length == 1 ? 0 : t.shape()[1]).toList());
    }

    private String why(long tokens) {
        return (operation.forwardOnly() ? "forward" : "forward_backward") + " of " + tokens + " tokens: "
                + (notFinite == tokens && !gradientFinite ? "the gradient overflowed"
                : "the loss, its derivative or the log-probability of " + notFinite + " tokens is not finite")
                + ". Nothing was changed: check weights, advantages and logprobs, or load an earlier state";
    }

    /// Drops what was collected and not finished.
    @Override public void close() {
        gradient.ifPresent(Factors::close);
        gradient = Optional.empty();
    }
}
