package bios.worker.sample;

import bios.protocol.Fault;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleResult.TokenLogprob;
import bios.protocol.sampling.SampleTask;
import bios.worker.adapter.Adapter;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.function.Function;

/// A sampling task in execution: its sequences, and the log-probabilities of its prompt.
final class Request {
    final long id;
    final SampleTask task;
    final Optional<Adapter> adapter;
    final Function<int[], String> decoder;
    /// Tokens that end a sequence.
    final Set<Integer> stopTokens;
    /// Most tokens to sample.
    final int maxTokens;
    /// The first goes through the prompt; the others start from copies of its cache.
    final List<SampledSequence> sequences = new ArrayList<>();
    private final float[] promptLogprobs;
    private final List<List<TokenLogprob>> top = new ArrayList<>();
    private int scored = 1;
    private Optional<Fault> failure = Optional.empty();

    Request(long id, SampleTask task, Optional<Adapter> adapter, Set<Integer> modelEnds, int maxTokens,
            Function<int[], String> decoder) {
        this.id = id;
        this.task = task;
        this.adapter = adapter;
        this.decoder = decoder;
        this.stopTokens = new HashSet<>(task.params().neverStops() ? Set.of() : modelEnds);
        this.stopTokens.addAll(task.params().stopTokens());
        this.maxTokens = maxTokens;
        this.promptLogprobs = new float[task.prompt().length];
        promptLogprobs[0] = Float.NaN;
        top.add(List.of());
    }

    /// Tokens of the prompt.
    int promptLength() {
        return task.prompt().length;
    }

    /// Positions of the prompt whose log-probabilities are known; all, when the task does not want them.
    int scored() {
        return task.promptLogprobs() || task.topkPromptLogprobs() > 0 ? scored : promptLength();
    }

    /// Adds the log-probabilities of the next position.
    void addScore(float logprob, List<TokenLogprob> best) {
        if (!Float.isFinite(logprob) || !best.stream().allMatch(t -> Float.isFinite(t.logprob())))
            fail("prompt token " + scored);
        promptLogprobs[scored++] = logprob;
        top.add(best);
    }

    /// The model's output at a position is not finite: the request fails.
    void fail(String at) {
        if (failure.isEmpty())
            failure = Optional.of(Fault.user("non_finite", "the model's output for " + at
                    + " is not finite: numbers inside the model overflow with the adapter's weights; sample"
                    + " from a checkpoint of an earlier step"));
    }

    /// Why it fails, if it does.
    Optional<Fault> failure() {
        return failure;
    }

    boolean finished() {
        return sequences.stream().allMatch(SampledSequence::finished);
    }

    SampleResult result() {
        return new SampleResult(sequences.stream().map(SampledSequence::result).toList(),
                task.promptLogprobs() ? Optional.of(promptLogprobs) : Optional.empty(),
                task.topkPromptLogprobs() > 0 ? Optional.of(List.copyOf(top)) : Optional.empty());
    }
}
