package bios.worker.sample;

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

    Request(long id, SampleTask task, Optional<Adapter> adapter, Set<Integer> modelEnds, int maxTokens,
            Function<int[], String> decoder) {
        this.id = id;
        this.task = task;
        this.adapter = adapter;
        this.decoder = decoder;
        this.stopTokens = new HashSet<>(modelEnds);
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
        promptLogprobs[scored++] = logprob;
        top.add(best);
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
