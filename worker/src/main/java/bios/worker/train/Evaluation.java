package bios.worker.train;

import static bios.protocol.Require.require;

import bios.protocol.Fault;
import bios.protocol.Invalid;
import bios.protocol.run.Datum;
import bios.protocol.run.Operation.ForwardBackward;
import bios.protocol.run.OperationResult.Evaluated;
import bios.worker.adapter.Factors;
import bios.worker.adapter.TrainingState;
import bios.worker.load.ModelSpec;
import bios.worker.model.Lesson;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/// One `ForwardBackward` on its way through the engine: cut, in order, into micro-batches. Where it is cut
/// changes nothing: sums over tokens go on where the batch before ended. Its gradient is collected apart
/// and joins the run's sum at once in [#finish], so an operation counts wholly or not at all. Closed
/// without `finish` it leaves no trace.
public final class Evaluation implements AutoCloseable {
    private final TrainingState state;
    private final ForwardBackward operation;
    private final Map<String, Double> settings;
    private final List<List<Datum>> batches;
    private final List<float[]> logprobs = new ArrayList<>();
    private Optional<Factors> gradient = Optional.empty();
    private double lossSum;
    private double weightSum;
    private int next;

    private Evaluation(TrainingState state, ForwardBackward operation, Map<String, Double> settings,
            List<List<Datum>> batches) {
        this.state = state;
        this.operation = operation;
        this.settings = settings;
        this.batches = batches;
    }

    /// Checks everything that can be wrong with the operation on this model, and cuts it.
    /// [Refused] names the datum.
    ///
    /// @param tokenBudget most tokens of a micro-batch; a longer sequence has one of its own
    static Evaluation of(TrainingState state, ForwardBackward operation, ModelSpec model, int tokenBudget) {
        try {
            if (operation.data().isEmpty()) throw new Invalid("data", "is empty; give at least one datum");
            for (int i = 0; i < operation.data().size(); i++)
                check("data[" + i + "]", operation.data().get(i), operation, model);
            return new Evaluation(state, operation, operation.loss().settings(operation.settings()),
                    cut(operation.data(), tokenBudget));
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
        operation.loss().check(at, datum);
        for (int i = 0; i < n; i++) known(at + ".model_input", i, datum.tokens()[i], model);
        long[] targets = datum.lossInputs().get("target_tokens").longs();
        for (int i = 0; i < n; i++) known(at + ".loss_fn_inputs.target_tokens", i, targets[i], model);
    }

    private static void known(String field, int i, long token, ModelSpec model) {
        if (token < 0 || token >= model.vocabularySize())
            throw new Invalid(field, "holds " + token + " at position " + i
                    + "; token ids of this model are 0 to " + (model.vocabularySize() - 1));
    }

    /// As few batches as the budget allows, of about equal size: many rows share the reading of the weights.
    private static List<List<Datum>> cut(List<Datum> data, int tokenBudget) {
        long all = data.stream().mapToLong(d -> d.tokens().length).sum();
        long least = Math.ceilDiv(all, (long) tokenBudget);
        long share = Math.ceilDiv(all, least);
        List<List<Datum>> batches = new ArrayList<>();
        long tokens = 0;
        for (Datum datum : data) {
            int n = datum.tokens().length;
            if (batches.isEmpty() || tokens >= share || tokens + n > tokenBudget) {
                batches.add(new ArrayList<>());
                tokens = 0;
            }
            batches.getLast().add(datum);
            tokens += n;
        }
        return batches;
    }

    /// Whether all micro-batches have been through a pass.
    public boolean done() {
        return next == batches.size();
    }

    /// Tokens of the next micro-batch; 0 when done.
    public int nextTokens() {
        return done() ? 0 : batches.get(next).stream().mapToInt(d -> d.tokens().length).sum();
    }

    /// The run whose state it reads and, in [#finish], adds to.
    public TrainingState state() {
        return state;
    }

    /// What the next micro-batch asks of the model, and what is to be done after the pass.
    Share share() {
        require(!done(), "nothing is left to evaluate");
        List<Datum> data = batches.get(next);
        if (!operation.forwardOnly() && gradient.isEmpty()) gradient = Optional.of(state.freshGradient());
        int[] targets = Loss.targets(data);
        Loss loss = new Loss(operation.loss(), settings, data, lossSum);
        float[] all = new float[targets.length];
        Lesson lesson = new Lesson(Optional.of(state.adapter()), gradient,
                data.stream().map(Datum::tokens).toList(), targets, (from, part) -> {
                    System.arraycopy(part, 0, all, from, part.length);
                    return loss.take(from, part);
                });
        return new Share(lesson, () -> taken(data, all, loss));
    }

    /// A lesson, and what follows when its pass went well.
    record Share(Lesson lesson, Runnable taken) {}

    private void taken(List<Datum> data, float[] all, Loss loss) {
        int at = 0;
        for (Datum datum : data) {
            logprobs.add(Arrays.copyOfRange(all, at, at + datum.tokens().length));
            at += datum.tokens().length;
        }
        lossSum = loss.sum();
        weightSum = loss.weightSum(weightSum);
        next++;
    }

    /// Adds the gradient to the run's sum and gives the result. All micro-batches must
    /// have been through a pass.
    public Evaluated finish() {
        require(done(), "%d micro-batches are left", batches.size() - next);
        gradient.ifPresent(state::accumulate);
        gradient = Optional.empty();
        double tokens = operation.data().stream().mapToLong(d -> d.tokens().length).sum();
        // sorted: results are stored, the same as the same bytes
        Map<String, Double> metrics = new TreeMap<>();
        metrics.put("loss:sum", lossSum);
        metrics.put("tokens:sum", tokens);
        metrics.put("weights:sum", weightSum);
        return new Evaluated(List.copyOf(logprobs), Collections.unmodifiableMap(metrics));
    }

    /// Drops what was collected and not finished.
    @Override public void close() {
        gradient.ifPresent(Factors::close);
        gradient = Optional.empty();
    }
}
