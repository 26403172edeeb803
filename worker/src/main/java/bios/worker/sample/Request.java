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

/// A sampling task on its way: its sequences, and the scores of its prompt.
final class Request {
    final long ticket;
    final SampleTask task;
    final Optional<Adapter> adapter;
    final Draw draw;
    final Function<int[], String> decoder;
    /// Tokens that end a sequence.
    final Set<Integer> ends;
    /// Most tokens to draw.
    final int limit;
    /// The first goes through the prompt; the others join behind it.
    final List<Sequence> sequences = new ArrayList<>();
    private final float[] promptLogprobs;
    private final List<List<TokenLogprob>> top = new ArrayList<>();
    private int scored = 1;

    Request(long ticket, SampleTask task, Optional<Adapter> adapter, Set<Integer> modelEnds, int limit,
            Function<int[], String> decoder) {
        this.ticket = ticket;
        this.task = task;
        this.adapter = adapter;
        this.draw = Draw.of(task.params());
        this.decoder = decoder;
        this.ends = new HashSet<>(modelEnds);
        this.ends.addAll(task.params().stopTokens());
        this.limit = limit;
        this.promptLogprobs = new float[task.prompt().length];
        promptLogprobs[0] = Float.NaN;
        top.add(List.of());
    }

    /// Tokens of the prompt.
    int prompt() {
        return task.prompt().length;
    }

    /// Positions of the prompt whose scores are known; all, when nobody asked for them.
    int scored() {
        return task.promptLogprobs() || task.topkPromptLogprobs() > 0 ? scored : prompt();
    }

    /// Takes the scores of the next position.
    void score(float logprob, List<TokenLogprob> best) {
        promptLogprobs[scored++] = logprob;
        top.add(best);
    }

    boolean ended() {
        return sequences.stream().allMatch(Sequence::ended);
    }

    SampleResult result() {
        return new SampleResult(sequences.stream().map(Sequence::result).toList(),
                task.promptLogprobs() ? Optional.of(promptLogprobs) : Optional.empty(),
                task.topkPromptLogprobs() > 0 ? Optional.of(List.copyOf(top)) : Optional.empty());
    }
}
