package bios.coordinator.gateway;

import bios.protocol.sampling.DrawnTokens;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleResult.StopReason;
import bios.protocol.sampling.SampleResult.TokenLogprob;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.stream.IntStream;

/// The text of one sampled sequence while it grows. What may become part of a stop string is kept back until
/// it is known; a stop string or a stop token at the end is no part of the text. Pure; not thread-safe.
final class CompletionText {
    /// Tokens before new ones that a tokenizer is told, so that it decodes them as in the whole text.
    private static final int CONTEXT = 4;

    private final List<String> stops;
    private int[] tokens = new int[16];
    private float[] logprobs = new float[16];
    /// The most likely tokens at the place of each token that was not sent; empty if the request does not
    /// want them.
    private List<List<TokenLogprob>> tops = new ArrayList<>();
    private int topsFrom;
    private int count;
    private Optional<StopReason> stopReason = Optional.empty();
    private int[] known;
    private final StringBuilder text = new StringBuilder();
    /// Where the text of each decoded token ends. An answer may have millions of tokens: they are no objects.
    private int[] ends = new int[16];
    private int decoded;
    private int named;
    private int sentText;
    private int sentTokens;

    /// A token and its part of the text.
    ///
    /// @param token its id
    /// @param logprob NaN of the first token of a prompt
    /// @param top the most likely tokens at its place, best first, if they are wanted
    record Piece(int token, String text, float logprob, List<TokenLogprob> top) {}

    /// New text of the answer.
    ///
    /// @param pieces the tokens that it consists of
    /// @param ending the tokens behind them that are no part of the text: those of the stop string that has
    ///     ended the answer, or the stop token, without its text
    /// @param finishReason why the answer ends with it; empty: it does not
    record Delta(String text, List<Piece> pieces, List<Piece> ending, Optional<StopReason> finishReason) {
        /// The end of an answer without more text; or, without a reason, nothing.
        static Delta ofNothing(Optional<StopReason> finishReason) {
            return new Delta("", List.of(), List.of(), finishReason);
        }

        boolean isEmpty() {
            return text.isEmpty() && pieces.isEmpty() && finishReason.isEmpty();
        }
    }

    CompletionText(List<String> stops, int[] prompt) {
        this.stops = stops;
        this.known = tail(prompt, prompt.length);
    }

    private static int[] tail(int[] tokens, int end) {
        return Arrays.copyOfRange(tokens, Math.max(0, end - CONTEXT), end);
    }

    /// Tokens received.
    int count() {
        return count;
    }

    /// Tokens received that are in no part yet.
    int unsent() {
        return count - sentTokens;
    }

    /// Whether the sequence has ended.
    boolean ended() {
        return stopReason.isPresent();
    }

    /// Adds tokens; false if they do not continue those before.
    boolean add(DrawnTokens more) {
        int n = more.tokens().length;
        if (n == 0) return true;
        if (more.from() != count || more.before() != DrawnTokens.digest(tokens, count)) return false;
        if (count + n > tokens.length) {
            tokens = Arrays.copyOf(tokens, 2 * (count + n));
            logprobs = Arrays.copyOf(logprobs, 2 * (count + n));
        }
        System.arraycopy(more.tokens(), 0, tokens, count, n);
        System.arraycopy(more.logprobs(), 0, logprobs, count, n);
        more.topkLogprobs().ifPresent(tops::addAll);
        count += n;
        stopReason = more.stopReason();
        return true;
    }

    /// Completes the sequence with all its tokens; false if they do not begin with those received.
    boolean complete(SampleResult.Sequence all) {
        int n = all.tokens().length;
        if (n < count || !Arrays.equals(all.tokens(), 0, count, tokens, 0, count)) return false;
        tokens = all.tokens();
        logprobs = all.modelLogprobs().orElse(all.logprobs());
        tops = new ArrayList<>(all.topkLogprobs().map(given -> given.subList(topsFrom, n)).orElse(List.of()));
        count = n;
        stopReason = Optional.of(all.stopReason());
        return true;
    }

    /// The stop string that has ended the sequence, if one has and all of the text before it was sent.
    Optional<String> stopString() {
        if (!stopReason.equals(Optional.of(StopReason.STOP))) return Optional.empty();
        String after = text.substring(sentText);
        return stops.stream().filter(after::startsWith).findFirst();
    }

    /// The last tokens whose text is known, for the tokenizer.
    int[] known() {
        return known;
    }

    /// The tokens whose text is not known.
    int[] undecoded() {
        return Arrays.copyOfRange(tokens, decoded, count);
    }

    /// Adds the texts of the next tokens.
    void decoded(List<String> texts) {
        int[] window = Arrays.copyOf(known, known.length + texts.size());
        System.arraycopy(tokens, decoded, window, known.length, texts.size());
        if (decoded + texts.size() > ends.length)
            ends = Arrays.copyOf(ends, Math.max(2 * ends.length, decoded + texts.size()));
        for (String each : texts) ends[decoded++] = text.append(each).length();
        known = tail(window, window.length);
    }

    /// The tokens decoded since the last call whose names an answer with log-probabilities needs: the most
    /// likely ones, and those that add nothing to the text. A token that ends a sequence is one of these even
    /// if it has a text.
    IntStream toBeNamed() {
        int from = named;
        named = decoded;
        IntStream fresh = IntStream.range(from, decoded).boxed().flatMapToInt(i -> IntStream.concat(
                start(i) == ends[i] ? IntStream.of(tokens[i]) : IntStream.empty(),
                top(i).stream().mapToInt(TokenLogprob::token)));
        return ended() && count > 0 ? IntStream.concat(fresh, IntStream.of(tokens[count - 1])) : fresh;
    }

    private List<TokenLogprob> top(int token) {
        return tops.isEmpty() ? List.of() : tops.get(token - topsFrom);
    }

    private void forgetTopsBefore(int token) {
        tops.subList(0, Math.min(token - topsFrom, tops.size())).clear();
        topsFrom = token;
    }

    /// The text that can be sent now and was not sent before.
    Delta next() {
        boolean whole = ended() && decoded == count;
        int end = whole ? finalEnd() : sendableEnd();
        int toToken = whole ? endToken(end) : sentTokens;
        while (!whole && toToken < decoded && ends[toToken] <= end) toToken++;
        String fresh = text.substring(sentText, Math.max(sentText, end));
        List<Piece> sent = IntStream.range(sentTokens, toToken).mapToObj(this::piece).toList();
        List<Piece> ending = whole ? ending(toToken) : List.of();
        sentText = Math.max(sentText, end);
        sentTokens = Math.max(sentTokens, toToken);
        forgetTopsBefore(sentTokens);
        return new Delta(fresh, sent, ending, whole ? stopReason : Optional.empty());
    }

    private int start(int token) {
        return token == 0 ? 0 : ends[token - 1];
    }

    private Piece piece(int token) {
        return new Piece(tokens[token], text.substring(start(token), ends[token]), logprobs[token],
                top(token));
    }

    /// The last token that is drawn is the one in which a stop string ends.
    private List<Piece> ending(int from) {
        if (firstStop() >= 0) return IntStream.range(from, count).mapToObj(this::piece).toList();
        return IntStream.range(from, count).mapToObj(i ->
                new Piece(tokens[i], "", logprobs[i], top(i))).toList();
    }

    /// Where the first stop string begins, or -1. None begins in the text that was sent.
    private int firstStop() {
        int first = -1;
        for (String stop : stops) {
            int at = text.indexOf(stop, sentText);
            if (at >= 0 && (first < 0 || at < first)) first = at;
        }
        return first;
    }

    /// The end of the text of a sequence that has ended.
    private int finalEnd() {
        if (stopReason.equals(Optional.of(StopReason.LENGTH)) || count == 0) return text.length();
        int stop = firstStop();
        return stop >= 0 ? stop : start(count - 1);
    }

    private int endToken(int end) {
        if (stopReason.equals(Optional.of(StopReason.LENGTH)) || count == 0) return count;
        if (firstStop() < 0) return count - 1;
        int token = 0;
        while (token < count && (start(token) < end || ends[token] <= end)) token++;
        return token;
    }

    /// The end of the text in which no stop string can begin, whatever follows.
    private int sendableEnd() {
        int first = firstStop();
        if (first >= 0) return first;
        int end = text.length();
        for (String stop : stops)
            for (int n = Math.min(stop.length() - 1, text.length()); n > 0; n--)
                if (text.charAt(text.length() - n) == stop.charAt(0)
                        && stop.startsWith(text.substring(text.length() - n))) {
                    end = Math.min(end, text.length() - n);
                    break;
                }
        return end;
    }
}
