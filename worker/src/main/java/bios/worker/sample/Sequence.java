package bios.worker.sample;

import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleResult.StopReason;
import bios.worker.model.KeyValueCache;
import java.util.Arrays;
import java.util.Comparator;
import java.util.Optional;

/// One of the sequences that a request asked for, from its prompt to its last token.
/// All tokens whose keys and values the cache lacks go through the model; behind the last of them
/// the next token is drawn. So a prompt, a drawn token, and all of a sequence whose cache was
/// taken away are the same case.
final class Sequence {
    /// In the order of their places.
    static final Comparator<Sequence> EARLIEST = Comparator.comparingLong(s -> s.place);

    final Request request;
    /// Its index among the request's sequences.
    final int index;
    /// Its place in the line: earlier ones are served first and give up their cache last.
    final long place;
    private final StopText stop;
    private int[] tokens;
    private float[] logprobs = new float[16];
    private int drawn;
    private Optional<KeyValueCache> cache = Optional.empty();
    private Optional<StopReason> end = Optional.empty();

    Sequence(Request request, int index, long place) {
        this.request = request;
        this.index = index;
        this.place = place;
        this.tokens = request.task.prompt().clone();
        this.stop = new StopText(request.task.params().stopStrings(), request.decoder, tokens);
    }

    /// Prompt and drawn tokens.
    int length() {
        return request.prompt() + drawn;
    }

    int drawn() {
        return drawn;
    }

    /// Tokens that the cache lacks, at least one before the end.
    int pending() {
        return length() - cached();
    }

    int cached() {
        return cache.map(KeyValueCache::length).orElse(0);
    }

    /// The next `count` pending tokens.
    int[] next(int count) {
        return Arrays.copyOfRange(tokens, cached(), cached() + count);
    }

    Optional<KeyValueCache> cache() {
        return cache;
    }

    void give(KeyValueCache pages) {
        cache = Optional.of(pages);
    }

    /// Gives the pages back.
    void release() {
        cache.ifPresent(KeyValueCache::close);
        cache = Optional.empty();
    }

    /// Takes a drawn token.
    void take(int token, float logprob) {
        if (length() == tokens.length) tokens = Arrays.copyOf(tokens, tokens.length + Math.max(16, drawn));
        if (drawn == logprobs.length) logprobs = Arrays.copyOf(logprobs, 2 * drawn);
        tokens[length()] = token;
        logprobs[drawn++] = logprob;
        if (request.ends.contains(token) || stop.endsWith(token)) end = Optional.of(StopReason.STOP);
        else if (drawn == request.limit) end = Optional.of(StopReason.LENGTH);
    }

    boolean ended() {
        return end.isPresent();
    }

    SampleResult.Sequence result() {
        return new SampleResult.Sequence(Arrays.copyOfRange(tokens, request.prompt(), length()),
                Arrays.copyOf(logprobs, drawn), end.orElseThrow());
    }
}
