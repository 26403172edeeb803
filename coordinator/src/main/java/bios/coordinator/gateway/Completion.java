package bios.coordinator.gateway;

import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingCommand;
import bios.protocol.sampling.SamplingCommand.SamplingReply;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;

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
    /// Heap bytes of a token while it is written: its text, and with log-probabilities its object and the
    /// text of that. One sequence is written at a time.
    private static final long WRITTEN_BYTES = 128;
    private static final long WRITTEN_LOGPROB_BYTES = 640;

    private final GatewayServices services;
    private final String account;
    private final SampleTask task;
    private final String request;
    private final boolean logprobs;
    private final List<CompletionText> texts = new ArrayList<>();
    private final RequestMemory.Share memory;
    private long held;
    private boolean over;

    /// @param request the id under which the router has accepted the task
    /// @param logprobs whether the answer has the log-probability of each token
    Completion(GatewayServices services, String account, SampleTask task, String request, boolean logprobs) {
        this.logprobs = logprobs;
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

    /// Tokens drawn so far.
    long drawn() {
        return texts.stream().mapToLong(CompletionText::count).sum();
    }

    boolean ended() {
        return texts.stream().allMatch(CompletionText::ended);
    }

    /// Waits until there are more tokens, and decodes them.
    ///
    /// @return why there are none yet; empty if there are
    CompletionStage<String> step() {
        int[] received = texts.stream().mapToInt(CompletionText::count).toArray();
        return services.router(replyTo -> new SamplingCommand.Follow(account, request, received,
                STEP.toMillis(), replyTo), STEP.plus(GRACE)).thenCompose(this::take);
    }

    /// Waits for the outcome without taking tokens before it, and decodes it.
    CompletionStage<Void> outcome() {
        return services.router(replyTo -> new SamplingCommand.Retrieve(account, request, STEP.toMillis(),
                replyTo), STEP.plus(GRACE)).thenCompose(this::take)
                .thenCompose(_ -> ended() ? CompletableFuture.completedStage(null) : outcome());
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
    static long heapBytes(long tokens, long longest, boolean logprobs) {
        return TOKEN_BYTES * tokens + (logprobs ? WRITTEN_LOGPROB_BYTES : WRITTEN_BYTES) * longest;
    }

    /// Takes the memory of the tokens that have come. Throws an [ApiException] (429) if there is none.
    private synchronized void hold() {
        if (over) throw ApiException.of(Fault.user("cancelled", "the client has left"));
        long bytes = heapBytes(drawn(), texts.stream().mapToInt(CompletionText::count).max().orElse(0),
                logprobs);
        memory.take(bytes - held);
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
                for (int i = 0; i < texts.size(); i++) complete(texts.get(i), result.sequences().get(i));
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

    private static void complete(CompletionText text, SampleResult.Sequence sequence) {
        accept(text.complete(sequence.tokens(), sequence.modelLogprobs().orElse(sequence.logprobs()),
                sequence.stopReason()));
    }

    private static void accept(boolean continues) {
        if (!continues) throw ApiException.of(Fault.server("sampling_failed",
                "the worker of this request was lost, and the other one, of another kind, draws other tokens;"
                + " send it again"));
    }

    /// Decodes the new tokens of all sequences, one after another.
    private CompletionStage<String> decode() {
        CompletionStage<String> done = CompletableFuture.completedStage("");
        for (CompletionText text : texts)
            if (text.undecoded().length > 0) done = done.thenCompose(_ -> decode(text));
        return done;
    }

    private CompletionStage<String> decode(CompletionText text) {
        return services.engine(task.baseModel(), EngineReply.DetokenizedNext.class, replyTo ->
                new EngineCommand.DetokenizeNext(task.baseModel(), text.known(), text.undecoded(),
                        text.ended(), replyTo)).thenApply(reply -> {
                            text.decoded(reply.texts());
                            return "";
                        });
    }
}
