package bios.coordinator.gateway;

import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleResult.TokenLogprob;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingCommand;
import bios.protocol.sampling.SamplingCommand.SamplingReply;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.stream.IntStream;

/// One accepted sampling request of a completion, and the texts of its sequences. Tokens are fetched in
/// steps, one at a time, when the reader of the text asks for more: those that are not fetched stay in the
/// worker, which keeps them anyway. If the worker is lost, another one draws the same tokens, and the text
/// continues after those that were fetched.
final class Completion {
    /// How long a step waits for tokens.
    private static final Duration STEP = Duration.ofSeconds(10);
    /// Added to it, for the reply to arrive.
    private static final Duration GRACE = Duration.ofSeconds(10);
    /// Heap bytes of a token: its id, its log-probability, and its text.
    private static final long TOKEN_BYTES = 40;
    /// Heap bytes of one of the most likely tokens: its id and its log-probability.
    private static final long TOP_BYTES = 40;
    /// Heap bytes of the name of a token.
    private static final long NAME_BYTES = 120;
    /// Heap bytes of a token while it is written: its text, and with log-probabilities its object and the
    /// text of that; so each of the most likely ones. One sequence is written at a time.
    private static final long WRITTEN_BYTES = 128;
    private static final long WRITTEN_LOGPROB_BYTES = 640;

    private final GatewayServices services;
    private final String account;
    private final SampleTask task;
    private final String request;
    private final OpenAiRequest asked;
    private final EncodedPrompt prompt;
    private final List<CompletionText> texts = new ArrayList<>();
    private final TokenNames names = new TokenNames();
    /// The prompt's log-probabilities, where they are asked for and have come.
    private Optional<SampleResult> scored = Optional.empty();
    private final RequestMemory.Share memory;
    private long held;
    private boolean over;

    /// @param request the id under which the router has accepted the task
    /// @param asked what the client has asked for
    /// @param prompt that of the task
    Completion(GatewayServices services, String account, SampleTask task, String request,
            OpenAiRequest asked, EncodedPrompt prompt) {
        this.asked = asked;
        this.prompt = prompt;
        this.memory = services.memory().new Share();
        this.services = services;
        this.account = account;
        this.task = task;
        this.request = request;
        for (int i = 0; i < task.numSamples(); i++)
            texts.add(new CompletionText(task.params().stopStrings(), task.prompt()));
    }

    SampleTask task() {
        return task;
    }

    /// The text of each sequence.
    List<CompletionText> texts() {
        return texts;
    }

    /// The names of the tokens that the answer needs.
    TokenNames names() {
        return names;
    }

    /// What an answer begins with: the prompt's text if it is asked for.
    String echoed() {
        return prompt.text();
    }

    /// The tokens of the prompt with their log-probabilities; none if they are not asked for.
    List<CompletionText.Piece> promptPieces() {
        if (scored.isEmpty()) return List.of();
        float[] logprobs = scored.get().promptLogprobs().orElseThrow();
        return IntStream.range(0, prompt.tokens().length).mapToObj(i -> new CompletionText.Piece(
                prompt.tokens()[i], prompt.part(i), logprobs[i], promptTop(i))).toList();
    }

    private List<TokenLogprob> promptTop(int position) {
        return scored.flatMap(SampleResult::topkPromptLogprobs).map(rows -> rows.get(position))
                .orElse(List.of());
    }

    /// Tokens whose log-probabilities are in the lists of the answer.
    long listed() {
        long scores = asked.scoresPrompt() ? (long) asked.choices() * task.prompt().length : 0;
        return (drawn() + scores) * (1 + asked.tops());
    }

    /// Tokens drawn so far.
    long drawn() {
        return texts.stream().mapToLong(CompletionText::count).sum();
    }

    boolean ended() {
        return texts.stream().allMatch(CompletionText::ended);
    }

    /// Waits until there are more tokens, and decodes them. The log-probabilities of a prompt come with the
    /// outcome: then it is waited for.
    ///
    /// @return why there are none yet; empty if there are
    CompletionStage<String> step() {
        if (asked.scoresPrompt()) return retrieve();
        int[] received = texts.stream().mapToInt(CompletionText::count).toArray();
        return services.router(replyTo -> new SamplingCommand.Follow(account, request, received,
                STEP.toMillis(), replyTo), STEP.plus(GRACE)).thenCompose(this::take);
    }

    /// Waits for the outcome without taking tokens before it, and decodes it.
    CompletionStage<Void> outcome() {
        return retrieve().thenCompose(_ -> ended() ? CompletableFuture.completedStage(null) : outcome());
    }

    private CompletionStage<String> retrieve() {
        return services.router(replyTo -> new SamplingCommand.Retrieve(account, request, STEP.toMillis(),
                replyTo), STEP.plus(GRACE)).thenCompose(this::take);
    }

    /// Cancels the request, whose worker stops after the current pass, and gives back the memory of its
    /// texts.
    void cancel() {
        services.tellRouter(new SamplingCommand.Cancel(account, request));
        release();
    }

    /// Gives back the memory of the texts; can be repeated.
    synchronized void release() {
        over = true;
        memory.release();
    }

    /// About the heap bytes of sequences, and of the longest one while it is written.
    ///
    /// @param tokens of all sequences, and of prompts whose log-probabilities are asked for
    /// @param unsent of these the tokens that were not sent: the others have no likeliest tokens any more
    /// @param longest of these the tokens of the longest sequence with its prompt
    /// @param names of tokens
    static long heapBytes(OpenAiRequest asked, long tokens, long unsent, long longest, long names) {
        return TOKEN_BYTES * tokens + TOP_BYTES * asked.tops() * unsent + NAME_BYTES * names
                + (asked.logprobs() ? WRITTEN_LOGPROB_BYTES * (1 + asked.tops()) : WRITTEN_BYTES) * longest;
    }

    /// Takes the memory of the tokens that have come, and gives back that of what was sent. Throws an
    /// [ApiException] (429) if there is none.
    private synchronized void hold() {
        if (over) throw ApiException.of(Fault.user("cancelled", "the client has left"));
        long scores = scored.isPresent() ? task.prompt().length : 0;
        long unsent = texts.stream().mapToLong(CompletionText::unsent).sum();
        long longest = texts.stream().mapToLong(CompletionText::unsent).max().orElse(0);
        long bytes = heapBytes(asked, drawn() + scores, unsent + scores, longest + scores, names.size());
        if (bytes > held) memory.take(bytes - held);
        else memory.giveBack(held - bytes);
        held = bytes;
    }

    private CompletionStage<String> take(SamplingReply reply) {
        return switch (reply) {
            case SamplingReply.Drawn(_, var sequences) -> {
                for (int i = 0; i < sequences.size(); i++) accept(texts.get(i).add(sequences.get(i)));
                hold();
                yield decode();
            }
            case SamplingReply.Completed(_, var result) -> {
                for (int i = 0; i < texts.size(); i++)
                    accept(texts.get(i).complete(result.sequences().get(i)));
                if (asked.scoresPrompt()) scored = Optional.of(result);
                hold();
                yield decode();
            }
            case SamplingReply.Pending(_, var state) -> CompletableFuture.completedStage(state);
            case SamplingReply.Failed(_, var fault) -> throw ApiException.of(fault);
            case SamplingReply.Refused(var fault) -> throw ApiException.of(fault);
            case SamplingReply.Foreign _, SamplingReply.Gone _ -> throw new ApiException(ErrorCode.GONE,
                    "the service no longer has this request: its answer was not read for too long; send it"
                            + " again, with the same seed it gives the same tokens");
            case SamplingReply.Accepted _ ->
                    throw new IllegalStateException("unexpected reply to a retrieval: Accepted");
        };
    }

    private static void accept(boolean continues) {
        if (!continues) throw ApiException.of(Fault.server("sampling_failed",
                "the worker of this request was lost, and the other one, of another kind, draws other tokens;"
                + " send it again"));
    }

    /// Decodes the new tokens of all sequences, one after another; then finds the names that their
    /// log-probabilities and those of the prompt need.
    private CompletionStage<String> decode() {
        CompletionStage<Void> done = CompletableFuture.completedStage(null);
        for (CompletionText text : texts)
            if (text.undecoded().length > 0) done = done.thenCompose(_ ->
                    decode(text.known(), text.undecoded(), text.ended()).thenAccept(text::decoded));
        return done.thenCompose(_ -> asked.logprobs() ? name() : CompletableFuture.completedStage(""));
    }

    private CompletionStage<List<String>> decode(int[] known, int[] tokens, boolean last) {
        return services.engine(task.baseModel(), EngineReply.DetokenizedNext.class, replyTo ->
                new EngineCommand.DetokenizeNext(task.baseModel(), known, tokens, last, replyTo))
                .thenApply(EngineReply.DetokenizedNext::texts);
    }

    private CompletionStage<String> name() {
        int scores = scored.isEmpty() ? 0 : prompt.tokens().length;
        IntStream ofPrompt = IntStream.range(0, scores).boxed().flatMapToInt(i -> IntStream.concat(
                prompt.part(i).isEmpty() ? IntStream.of(prompt.tokens()[i]) : IntStream.empty(),
                promptTop(i).stream().mapToInt(TokenLogprob::token)));
        int[] missing = names.missing(IntStream.concat(ofPrompt,
                texts.stream().flatMapToInt(CompletionText::toBeNamed)));
        if (missing.length == 0) return CompletableFuture.completedStage("");
        return services.engine(task.baseModel(), EngineReply.DetokenizedEach.class, replyTo ->
                new EngineCommand.DetokenizeEach(task.baseModel(), missing, replyTo)).thenApply(reply -> {
                    names.add(missing, reply.texts());
                    hold();
                    return "";
                });
    }
}
