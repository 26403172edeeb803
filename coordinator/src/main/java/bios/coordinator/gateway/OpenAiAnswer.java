package bios.coordinator.gateway;

import bios.protocol.Fault;
import bios.protocol.Invalid;
import bios.protocol.sampling.SampleResult.StopReason;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.stream.IntStream;
import org.apache.pekko.NotUsed;
import org.apache.pekko.japi.Pair;
import org.apache.pekko.japi.pf.PFBuilder;
import org.apache.pekko.stream.javadsl.Source;
import org.apache.pekko.util.ByteString;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// The answer to a completion: whole, or as a stream of server-sent events. The events are made when the
/// client reads them, so a client that does not read fills no memory; when it is gone, the requests are
/// cancelled.
final class OpenAiAnswer {
    private static final Logger LOG = LoggerFactory.getLogger(OpenAiAnswer.class);
    /// How often white space is sent while a whole answer is not there, so that proxies keep the connection.
    private static final Duration KEEP_ALIVE = Duration.ofSeconds(15);

    /// A whole answer of more tokens is made while the client reads it.
    private static final long MANY_TOKENS = 1 << 12;

    private final GatewayServices services;
    private final OpenAiBodies bodies;
    private final List<Completion> completions;
    private final int choices;
    /// Characters sent of each choice, and the choices of which an event was sent.
    private final Map<Integer, Integer> offsets = new HashMap<>();
    private final Set<Integer> begun = new HashSet<>();

    /// @param completions one of each prompt
    OpenAiAnswer(GatewayServices services, OpenAiBodies bodies, List<Completion> completions) {
        this.services = services;
        this.bodies = bodies;
        this.completions = completions;
        this.choices = bodies.request().choices();
    }

    private Map<String, Object> usage() {
        return OpenAiBodies.usage(completions.stream().mapToLong(c -> c.task().prompt().length).sum(),
                bodies.request().promptOnly() ? 0 : completions.stream().mapToLong(Completion::drawn).sum());
    }

    /// The new part of a choice.
    ///
    /// @param begins whether it is the first one, before which the prompt comes where it is asked for
    private OpenAiBodies.Part next(int choice, boolean begins) {
        Completion completion = completions.get(choice / choices);
        CompletionText.Delta delta = bodies.request().promptOnly()
                ? CompletionText.Delta.ofNothing(Optional.of(StopReason.LENGTH))
                : completion.texts().get(choice % choices).next();
        List<CompletionText.Piece> prompt = begins ? completion.promptPieces() : List.of();
        return new OpenAiBodies.Part(begins ? completion.echoed() : "", prompt, delta, completion.names());
    }

    // ---- whole ----

    /// The whole answer. If it takes long, the response begins before its end: then a failure is in the body.
    CompletionStage<ApiResponse> whole() {
        return whole(services, completions, this::body, OpenAiBodies::problem);
    }

    /// The same of any form.
    ///
    /// @param made of the texts, when all are complete
    /// @param problem the form of an error
    static CompletionStage<ApiResponse> whole(GatewayServices services, List<Completion> completions,
            Supplier<Map<String, Object>> made, Function<ApiException, Map<String, Object>> problem) {
        CompletableFuture<Map<String, Object>> body = CompletableFuture.allOf(completions.stream()
                .map(Completion::outcome).map(CompletionStage::toCompletableFuture)
                .toArray(CompletableFuture[]::new)).thenApply(_ -> made.get());
        body.whenComplete((_, failed) -> {
            if (failed != null) completions.forEach(Completion::cancel);
        });
        CompletableFuture<Void> late = new CompletableFuture<Void>().completeOnTimeout(null,
                services.settings().longPoll().toMillis(), TimeUnit.MILLISECONDS);
        return CompletableFuture.anyOf(body, late).thenApply(_ -> {
            if (!body.isDone() || completions.stream().mapToLong(Completion::listed).sum() > MANY_TOKENS)
                return new ApiResponse.Streamed("application/json", written(body, problem), () ->
                        completions.forEach(Completion::cancel));
            var small = new ApiResponse.JsonBody(200, ResponseBodies.arrays(body.getNow(Map.of()), false),
                    true);
            completions.forEach(Completion::release);
            return small;
        });
    }

    private Map<String, Object> body() {
        return bodies.whole(IntStream.range(0, completions.size() * choices).mapToObj(i ->
                bodies.choice(i, next(i, true))), usage());
    }

    /// The answer, when it is there; white space before it.
    private static Source<ByteString, NotUsed> written(CompletableFuture<Map<String, Object>> body,
            Function<ApiException, Map<String, Object>> problem) {
        return Source.completionStage(body.exceptionally(failed -> problem.apply(error(failed))))
                .<Iterable<ByteString>>map(answer -> () ->
                        new JsonBlocks(ResponseBodies.arrays(answer, true)))
                .keepAlive(KEEP_ALIVE, () -> List.of(ByteString.fromString(" ")))
                .mapConcat(blocks -> blocks);
    }

    // ---- events ----

    /// The answer as events. A failure is the last event.
    ApiResponse events() {
        Source<ByteString, ?> texts = events(0);
        for (int i = 1; i < completions.size(); i++) texts = texts.merge(events(i));
        return stream(completions, texts.concatLazy(Source.lazySource(() -> Source.from(end()))), failed ->
                event(OpenAiBodies.problem(failed)));
    }

    /// A stream of events; when nobody reads it any more, the requests that are not finished are ended.
    ///
    /// @param problem the last event, of a failure
    static ApiResponse stream(List<Completion> completions, Source<ByteString, ?> events,
            Function<ApiException, ByteString> problem) {
        return new ApiResponse.Streamed("text/event-stream", events
                .recover(new PFBuilder<Throwable, ByteString>()
                        .matchAny(failed -> problem.apply(error(failed))).build()),
                () -> completions.forEach(Completion::cancel));
    }

    private List<ByteString> end() {
        var events = new ArrayList<ByteString>();
        if (bodies.request().includeUsage()) events.add(event(bodies.usageEvent(usage())));
        events.add(ByteString.fromString("data: [DONE]\n\n"));
        return events;
    }

    private static ByteString event(Map<String, Object> body) {
        return ByteString.fromString("data: ").concat(ByteString.fromArray(JsonWriter.write(body)))
                .concat(ByteString.fromString("\n\n"));
    }

    /// The events of one prompt: each step of its request, when the client wants more.
    private Source<ByteString, NotUsed> events(int prompt) {
        Completion completion = completions.get(prompt);
        return Source.unfoldAsync(false, done -> done
                ? CompletableFuture.completedStage(Optional.<Pair<Boolean, Iterable<ByteString>>>empty())
                : completion.step().thenApply(state -> Optional.of(
                        Pair.create(completion.ended(), parts(prompt, state))))).mapConcat(parts -> parts);
    }

    /// What a step has brought, one choice after another; while there are no tokens, a comment that says why.
    private Iterable<ByteString> parts(int prompt, String state) {
        if (!state.isEmpty())
            return List.of(ByteString.fromArray((": " + state.replaceAll("\\s+", " ") + "\n\n")
                    .getBytes(StandardCharsets.UTF_8)));
        return () -> IntStream.range(prompt * choices, (prompt + 1) * choices).mapToObj(this::part)
                .filter(part -> !part.isEmpty()).iterator();
    }

    private ByteString part(int choice) {
        boolean first = begun.add(choice);
        ByteString role = first && bodies.request().chat()
                ? event(bodies.event(List.of(bodies.role(choice)))) : ByteString.emptyByteString();
        return role.concat(text(choice, first));
    }

    private ByteString text(int choice, boolean first) {
        int offset = offsets.getOrDefault(choice, 0);
        if (offset < 0) return ByteString.emptyByteString();
        OpenAiBodies.Part part = next(choice, first);
        if (part.isEmpty()) return ByteString.emptyByteString();
        offsets.put(choice, part.delta().finishReason().isPresent() ? -1 : offset + part.characters());
        return event(bodies.event(List.of(bodies.part(choice, part, offset))));
    }

    private static ApiException error(Throwable failed) {
        return switch (GatewayServices.cause(failed)) {
            case ApiException known -> known;
            case Invalid invalid -> ApiException.of(invalid);
            case TimeoutException _ -> new ApiException(ErrorCode.UNAVAILABLE,
                    "the worker does not answer; retry later");
            case Throwable other -> {
                LOG.atError().setCause(other).log("a completion failed");
                yield ApiException.of(Fault.server("sampling_failed", "the service failed; see its log"));
            }
        };
    }
}
