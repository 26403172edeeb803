package bios.worker.sample;

import bios.protocol.sampling.DrawnTokens;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleResult.StopReason;
import bios.protocol.sampling.SampleResult.TokenLogprob;
import bios.worker.device.Draw;
import bios.worker.model.KeyValueCache;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;

/// One of the sequences of a request, from its prompt to its last token. All tokens whose keys and values
/// are not cached go through the model; the next token is sampled after the last of them. So a prompt, a
/// sampled token, and a whole sequence whose cache was evicted are the same case.
final class SampledSequence {
    /// In the order of arrival.
    static final Comparator<SampledSequence> EARLIEST = Comparator.comparingLong(s -> s.arrival);

    final Request request;
    /// Its index among the request's sequences.
    final int index;
    /// Its number in the order of arrival: earlier ones are admitted first and evicted last.
    final long arrival;
    private final StopStringMatcher stop;
    private int[] tokens;
    private float[] logprobs = new float[16];
    private float[] own = new float[16];
    private final List<List<TokenLogprob>> top = new ArrayList<>();
    private int sampled;
    private int reported;
    private Optional<KeyValueCache> cache = Optional.empty();
    private Optional<StopReason> stopReason = Optional.empty();

    SampledSequence(Request request, int index, long arrival) {
        this.request = request;
        this.index = index;
        this.arrival = arrival;
        this.tokens = request.task.prompt().clone();
        this.stop = new StopStringMatcher(request.task.params().stopStrings(), request.decoder, tokens);
    }

    /// Prompt and sampled tokens.
    int length() {
        return request.promptLength() + sampled;
    }

    /// Sampled tokens.
    int sampled() {
        return sampled;
    }

    /// Tokens that are not cached, at least one before the end.
    int uncached() {
        return length() - cached();
    }

    int cached() {
        return cache.map(KeyValueCache::length).orElse(0);
    }

    /// The next `count` uncached tokens.
    int[] next(int count) {
        return Arrays.copyOfRange(tokens, cached(), cached() + count);
    }

    /// Present while the sequence is active.
    Optional<KeyValueCache> cache() {
        return cache;
    }

    void attach(KeyValueCache pages) {
        cache = Optional.of(pages);
    }

    /// Releases the pages.
    void release() {
        cache.ifPresent(KeyValueCache::close);
        cache = Optional.empty();
    }

    /// The draw of its next token.
    ///
    /// @param row of the logits
    Draw draw(int row) {
        var params = request.task.params();
        return new Draw(row, params.temperature(), params.topK(), params.topP(), request.task.seed(), index,
                sampled);
    }

    /// Adds a sampled token.
    ///
    /// @param logprob in the distribution that it is drawn from
    /// @param ownLogprob under the model
    /// @param best the most likely tokens there, if the task wants them
    void append(int token, float logprob, float ownLogprob, List<TokenLogprob> best) {
        if (!Float.isFinite(logprob) || !Float.isFinite(ownLogprob)
                || !best.stream().allMatch(t -> Float.isFinite(t.logprob()))) {
            request.fail("sampled token " + sampled);
            return;
        }
        if (length() == tokens.length)
            tokens = Arrays.copyOf(tokens, tokens.length + Math.max(16, sampled));
        if (sampled == logprobs.length) {
            logprobs = Arrays.copyOf(logprobs, 2 * sampled);
            own = Arrays.copyOf(own, 2 * sampled);
        }
        if (!best.isEmpty()) top.add(best);
        tokens[length()] = token;
        own[sampled] = ownLogprob;
        logprobs[sampled++] = logprob;
        if (request.stopTokens.contains(token) || stop.append(token))
            stopReason = Optional.of(StopReason.STOP);
        else if (sampled == request.maxTokens) stopReason = Optional.of(StopReason.LENGTH);
    }

    /// The tokens since the last call.
    DrawnTokens drawnSinceReport() {
        int from = reported;
        reported = sampled;
        int prompt = request.promptLength();
        return new DrawnTokens(from, DrawnTokens.digest(new int[0], 0),
                Arrays.copyOfRange(tokens, prompt + from, prompt + sampled),
                Arrays.copyOfRange(own, from, sampled), stopReason,
                request.task.topkSampleLogprobs() > 0 ? Optional.of(List.copyOf(top.subList(from, sampled)))
                        : Optional.empty());
    }

    boolean finished() {
        return stopReason.isPresent();
    }

    SampleResult.Sequence result() {
        return new SampleResult.Sequence(Arrays.copyOfRange(tokens, request.promptLength(), length()),
                Arrays.copyOf(logprobs, sampled), stopReason.orElseThrow(),
                request.task.params().drawsFromModel()
                        ? Optional.empty() : Optional.of(Arrays.copyOf(own, sampled)),
                request.task.topkSampleLogprobs() > 0 ? Optional.of(List.copyOf(top)) : Optional.empty());
    }
}
