package bios.coordinator.gateway;

import bios.coordinator.chat.TemplateException;
import bios.protocol.Invalid;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingCommand;
import bios.protocol.sampling.SamplingCommand.SamplingReply;
import bios.protocol.sampling.SamplingParams;
import bios.protocol.session.SessionCommand.Sampler;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import java.util.function.Function;
import java.util.stream.Stream;
import org.apache.pekko.actor.typed.ActorRef;

/// The endpoints of OpenAI's clients, below `/v1`: completions, chat completions and models. A model is a
/// base model or a checkpoint; docs/reference/openai.md documents them.
final class OpenAiEndpoints {
    /// Largest prompt or chat, in characters: it travels to a worker as one message.
    private static final int MAX_CHARACTERS = 1 << 20;
    private static final int LISTED_CHECKPOINTS = 1000;
    /// Who owns the base models.
    private static final String BASE_OWNER = "bios";
    /// Of a completion whose request has no limit, as OpenAI defines it; and the least of a chat without one.
    private static final int COMPLETION_TOKENS = 16;

    private final GatewayServices services;
    private final RunClient runs;
    private final OpenAiReader reader;
    private final ChatTemplates templates;

    OpenAiEndpoints(GatewayServices services, RunClient runs) {
        this.services = services;
        this.runs = runs;
        this.reader = new OpenAiReader(services.settings());
        this.templates = new ChatTemplates(services);
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.get("/v1/models", this::models), Endpoint.get("/v1/models/**", this::model),
                Endpoint.post("/v1/chat/completions", call -> complete(call, reader.chat(Fields.of(
                        FieldPath.BODY, call.body().orElseThrow())), this::inOpenAiForm)),
                Endpoint.post("/v1/completions", call -> complete(call, reader.completion(Fields.of(
                        FieldPath.BODY, call.body().orElseThrow())), this::inOpenAiForm)),
                Endpoint.post("/v1/messages", call -> complete(call, MessagesReader.read(Fields.of(
                        FieldPath.BODY, call.body().orElseThrow())), this::asMessage)));
    }

    // ---- models ----

    private CompletionStage<ApiResponse> models(ApiRequest call) {
        return services.runBlocking(() -> services.index().checkpoints(call.account(), LISTED_CHECKPOINTS, 0))
                .thenApply(page -> {
                    Stream<Map<String, Object>> bases = services.directory().servedModels().stream()
                            .map(model -> OpenAiBodies.model(model.name().value(), 0, BASE_OWNER));
                    Stream<Map<String, Object>> own = page.items().stream()
                            .filter(c -> c.kind() == CheckpointKind.SAMPLER && c.path().isPresent())
                            .map(c -> model(call, c));
                    return ApiResponse.ok("object", "list", "data", Stream.concat(bases, own).toList());
                });
    }

    private static Map<String, Object> model(ApiRequest call, CheckpointManifest checkpoint) {
        return OpenAiBodies.model(checkpoint.path().orElseThrow().biosUri(),
                checkpoint.createdAtMillis() / 1000, call.account());
    }

    private CompletionStage<ApiResponse> model(ApiRequest call) {
        // A path has no empty segments: the two slashes of a checkpoint's path arrive as one.
        String id = call.pathParameters().getFirst().replaceFirst("^(bios|tinker):/(?!/)", "$1://");
        return resolve(call, id).thenCompose(served -> (served.sampler().adapter().isEmpty()
                ? CompletableFuture.completedStage(BASE_OWNER)
                : services.describe(CheckpointPath.parse(id).run(), call.account(), true).thenApply(run ->
                        run.config().owner())).thenApply(owner -> new ApiResponse.JsonBody(200,
                        OpenAiBodies.model(id, served.createdAtMillis() / 1000, owner), false)));
    }

    /// What a model's name means.
    private record Served(ModelInfo base, Sampler sampler, long createdAtMillis) {}

    /// The base model or the checkpoint of this name.
    private CompletionStage<Served> resolve(ApiRequest call, String name) {
        FieldPath at = FieldPath.BODY.field("model");
        if (!name.contains("://")) {
            ModelInfo base = Optional.of(name).filter(OpenAiEndpoints::isModelName)
                    .map(given -> services.model(at, given, true))
                    .orElseThrow(() -> new ApiException(ErrorCode.UNKNOWN_MODEL, at.toString(), "'" + name
                            + "' is neither the name of a base model nor the path of a checkpoint"));
            return CompletableFuture.completedStage(new Served(base,
                    new Sampler(base.name(), Optional.empty(), Optional.empty()), 0));
        }
        CheckpointPath path = Fields.reportAt(at, () -> CheckpointPath.parse(name));
        return runs.resolve(call.account(), path).exceptionallyCompose(failed ->
                CompletableFuture.failedStage(GatewayServices.cause(failed) instanceof ApiException error
                        && error.field().isEmpty() ? error.withField("model") : failed))
                .thenApply(manifest -> {
                    ModelInfo base = services.model(at, manifest.baseModel().value(), true);
                    return new Served(base, new Sampler(manifest.baseModel(), Optional.of(name),
                            Optional.of(SampleTask.Adapter.of(manifest))), manifest.createdAtMillis());
                });
    }

    private static boolean isModelName(String name) {
        try {
            return new ModelName(name).value().equals(name);
        } catch (Invalid _) {
            return false;
        }
    }

    // ---- completions ----

    /// Makes the answer of requests that were accepted.
    @FunctionalInterface
    private interface Form {
        CompletionStage<ApiResponse> answer(ApiRequest call, OpenAiRequest request, ModelInfo base,
                List<Completion> running);
    }

    private CompletionStage<ApiResponse> inOpenAiForm(ApiRequest call, OpenAiRequest request, ModelInfo base,
            List<Completion> running) {
        String id = (request.chat() ? "chatcmpl-" : "cmpl-") + call.id();
        var bodies = new OpenAiBodies(request, id, services.clock().millis() / 1000, base.fingerprint());
        var answer = new OpenAiAnswer(services, bodies, running);
        return request.stream() ? CompletableFuture.completedStage(answer.events()) : answer.whole();
    }

    private CompletionStage<ApiResponse> asMessage(ApiRequest call, OpenAiRequest request, ModelInfo base,
            List<Completion> running) {
        var answer = new MessagesAnswer(services, request, "msg_" + call.id(), running.getFirst());
        return request.stream() ? CompletableFuture.completedStage(answer.events()) : answer.whole();
    }

    private CompletionStage<ApiResponse> complete(ApiRequest call, OpenAiRequest request, Form form) {
        return resolve(call, request.model()).thenCompose(served -> {
            KnownSamplers.keepWeights(services, call.account(), served.sampler());
            return prompts(request, served.base()).thenCompose(prompts ->
                    start(call, request, served, prompts, form));
        });
    }

    private CompletionStage<ApiResponse> start(ApiRequest call, OpenAiRequest request, Served served,
            List<EncodedPrompt> prompts, Form form) {
        var tasks = new ArrayList<SampleTask>();
        for (EncodedPrompt prompt : prompts)
            tasks.add(task(call, request, served, prompt, tasks.size()));
        checkMemory(request, served.base(), tasks);
        var submitted = new ArrayList<CompletionStage<Completion>>();
        for (EncodedPrompt prompt : prompts)
            submitted.add(submit(call, tasks.get(submitted.size()), request, prompt));
        return all(submitted).thenCompose(running -> form.answer(call, request, served.base(), running));
    }

    /// All values; if one fails, the requests that were accepted are cancelled.
    private static CompletionStage<List<Completion>> all(List<CompletionStage<Completion>> submitted) {
        List<CompletableFuture<Completion>> futures = submitted.stream()
                .map(CompletionStage::toCompletableFuture).toList();
        return CompletableFuture.allOf(futures.toArray(CompletableFuture[]::new)).handle((_, failed) -> {
            if (failed == null) return futures.stream().map(CompletableFuture::join).toList(); // edge: done
            for (CompletableFuture<Completion> future : futures)
                future.whenComplete((accepted, _) -> {
                    if (accepted != null) accepted.cancel();
                });
            throw GatewayServices.cause(failed) instanceof ApiException known ? known
                    : new CompletionException(failed);
        });
    }

    private SampleTask task(ApiRequest call, OpenAiRequest request, Served served, EncodedPrompt encoded,
            int index) {
        int[] prompt = encoded.tokens();
        String id = "openai:" + call.id() + ":" + index;
        SamplingParams given = request.params();
        int room = Math.max(1, served.base().contextLength() - prompt.length);
        var params = new SamplingParams(limit(request, served.base(), room), given.seed(),
                given.stopStrings(), given.stopTokens(), given.temperature(), given.topK(), given.topP());
        long seed = given.seed().orElseGet(() ->
                ByteBuffer.wrap(DerivedIds.sha256("seed:" + id)).getLong());
        checkLength(request, served.base(), encoded);
        return new SampleTask(id, served.sampler().baseModel(), served.sampler().adapter(), prompt, params,
                request.promptOnly() ? 1 : request.choices(), seed, request.scoresPrompt(),
                request.scoresPrompt() ? request.tops() : 0, request.tops());
    }

    /// Most tokens of a sequence; empty: up to the end of the context. If the request has no limit, a chat
    /// goes on as far as the context, the memory of one request and the likeliest tokens of one allow.
    ///
    /// @param room tokens up to the end of the context
    private Optional<Integer> limit(OpenAiRequest request, ModelInfo model, int room) {
        if (request.maxTokens().isPresent())
            return request.maxTokens().map(max -> Math.max(1, max.limit()));
        int most = Math.min(COMPLETION_TOKENS, room);
        if (!request.chat()) return Optional.of(most);
        if (fits(request, model, room)) return Optional.empty();
        for (int step = Integer.highestOneBit(room); step > 0; step /= 2)
            if (most + step < room && fits(request, model, most + step)) most += step;
        return Optional.of(most);
    }

    /// Whether a chat may have sequences of so many tokens.
    private boolean fits(OpenAiRequest request, ModelInfo model, long each) {
        long tokens = each * request.choices();
        return tokens * request.tops() <= SampleReader.MAX_SAMPLED_CANDIDATES
                && heapBytes(request, model, tokens, each) <= services.memory().mostOfOne();
    }

    private static long heapBytes(OpenAiRequest request, ModelInfo model, long tokens, long longest) {
        return Completion.heapBytes(request, tokens, tokens, longest,
                Math.min(model.vocabularySize(), tokens * request.tops()));
    }

    private static void checkLength(OpenAiRequest request, ModelInfo model, EncodedPrompt encoded) {
        int[] prompt = encoded.tokens();
        if (prompt.length == 0) throw encoded.at().invalid("is empty; at least one token is needed");
        if (prompt.length > model.contextLength())
            throw new ApiException(ErrorCode.CONTEXT_LENGTH_EXCEEDED, encoded.at().toString(), "has "
                    + prompt.length + " tokens; the context of " + model.name() + " is "
                    + model.contextLength());
        request.maxTokens().filter(max -> max.limit() > 1
                && (long) prompt.length + max.limit() > model.contextLength()).ifPresent(max -> {
            throw new ApiException(ErrorCode.CONTEXT_LENGTH_EXCEEDED, max.field().toString(), "a prompt of "
                    + prompt.length + " tokens and " + max.limit() + " drawn ones are more than the context"
                    + " of " + model.name() + ", " + model.contextLength());
        });
    }

    /// Refuses what would be drawn in vain: more tokens than the memory of one request can ever hold.
    private void checkMemory(OpenAiRequest request, ModelInfo model, List<SampleTask> tasks) {
        long tokens = 0;
        long longest = 0;
        for (SampleTask task : tasks) {
            long prompt = request.scoresPrompt() ? task.prompt().length : 0;
            long most = task.params().maxTokens().orElse(Math.max(1,
                    model.contextLength() - task.prompt().length));
            checkTops(request, most * task.numSamples());
            tokens += most * task.numSamples() + prompt;
            longest = Math.max(longest, most + prompt);
        }
        long bytes = heapBytes(request, model, tokens, longest);
        long mostBytes = services.memory().mostOfOne();
        if (bytes > mostBytes) throw new ApiException(ErrorCode.LIMIT_REACHED, sizeField(request).toString(),
                "up to " + tokens + " tokens of the answer take " + bytes + " bytes of memory, and one"
                + " request may use " + mostBytes + " here (bios.gateway.max-bytes-in-work); lower n"
                + (request.tops() > 0 ? ", " + request.topsField() : "")
                + " or max_tokens, or send several requests");
    }

    /// The field of the request that makes an answer large.
    private static FieldPath sizeField(OpenAiRequest request) {
        return request.maxTokens().map(OpenAiRequest.MaxTokens::field).orElseGet(() ->
                request.tops() > 0 ? request.topsField()
                        : request.choices() > 1 ? FieldPath.BODY.field("n") : request.inputField());
    }

    private static void checkTops(OpenAiRequest request, long tokens) {
        if (tokens * request.tops() > SampleReader.MAX_SAMPLED_CANDIDATES)
            throw new ApiException(ErrorCode.LIMIT_REACHED, request.topsField().toString(), request.tops()
                    + " for each of up to " + tokens + " drawn tokens are more than the "
                    + SampleReader.MAX_SAMPLED_CANDIDATES + " of one request; lower it, n or max_tokens");
    }

    private CompletionStage<Completion> submit(ApiRequest call, SampleTask task, OpenAiRequest asked,
            EncodedPrompt prompt) {
        return services.router(replyTo -> new SamplingCommand.Submit(call.account(), task, replyTo),
                services.settings().askTimeout()).thenApply(reply -> switch (reply) {
                    case SamplingReply.Accepted(var request) ->
                            new Completion(services, call.account(), task, request, asked, prompt);
                    case SamplingReply.Refused(var fault) -> throw ApiException.of(fault);
                    case SamplingReply.Completed _, SamplingReply.Drawn _, SamplingReply.Failed _,
                            SamplingReply.Pending _, SamplingReply.Foreign _, SamplingReply.Gone _ ->
                            throw new IllegalStateException("unexpected reply to a sampling request: "
                                    + reply.getClass().getSimpleName());
                });
    }

    // ---- prompts ----

    private CompletionStage<List<EncodedPrompt>> prompts(OpenAiRequest request, ModelInfo model) {
        return switch (request.input()) {
            case OpenAiRequest.Input.Chat(var messages, var arguments) ->
                    templates.of(model).thenCompose(template -> services.runBlocking(() -> {
                        try {
                            return template.render(messages, arguments);
                        } catch (TemplateException refused) {
                            throw new ApiException(ErrorCode.INVALID, "messages",
                                    "the chat template of the model refuses them: " + refused.getMessage());
                        }
                    })).thenCompose(text -> tokens(request.inputField(), model, text, false))
                            .thenApply(tokens ->
                                    List.of(new EncodedPrompt(request.inputField(), tokens, "")));
            case OpenAiRequest.Input.Prompts(var prompts, _) -> {
                CompletionStage<List<EncodedPrompt>> done =
                        CompletableFuture.completedStage(new ArrayList<>());
                for (OpenAiRequest.Prompt prompt : prompts)
                    done = done.thenCompose(before -> encode(request, model, prompt).thenApply(encoded -> {
                        before.add(encoded);
                        return before;
                    }));
                yield done;
            }
        };
    }

    private CompletionStage<EncodedPrompt> encode(OpenAiRequest request, ModelInfo model,
            OpenAiRequest.Prompt prompt) {
        return switch (prompt) {
            case OpenAiRequest.Prompt.Text(var at, var text) -> {
                checkCharacters(at, text);
                yield request.scoresPrompt() ? aligned(at, model, replyTo ->
                                new EngineCommand.AlignText(model.name(), text, replyTo))
                        : tokens(at, model, text, true).thenApply(tokens ->
                                new EncodedPrompt(at, tokens, request.echo() ? text : ""));
            }
            case OpenAiRequest.Prompt.Tokens ids -> {
                int[] tokens = ids.of(model);
                checkLength(request, model, new EncodedPrompt(ids.at(), tokens, ""));
                yield request.scoresPrompt() ? aligned(ids.at(), model, replyTo ->
                                new EngineCommand.AlignTokens(model.name(), tokens, replyTo))
                        : !request.echo()
                        ? CompletableFuture.completedStage(new EncodedPrompt(ids.at(), tokens, ""))
                        : services.engine(model.name(), EngineReply.Detokenized.class, replyTo ->
                                new EngineCommand.Detokenize(model.name(), tokens, false, replyTo))
                                .thenApply(reply -> new EncodedPrompt(ids.at(), tokens, reply.text()));
            }
        };
    }

    /// A prompt with the part of each token in its text.
    private CompletionStage<EncodedPrompt> aligned(FieldPath at, ModelInfo model,
            Function<ActorRef<EngineReply>, EngineCommand> command) {
        return services.engine(model.name(), EngineReply.Aligned.class, command).thenApply(reply ->
                new EncodedPrompt(at, reply.tokens(), reply.text(), reply.ends()));
    }

    /// @param special whether the tokenizer adds its special tokens; a chat's text has them
    private CompletionStage<int[]> tokens(FieldPath at, ModelInfo model, String text, boolean special) {
        checkCharacters(at, text);
        return services.engine(model.name(), EngineReply.Tokenized.class,
                replyTo -> new EngineCommand.Tokenize(model.name(), text, special, replyTo))
                .thenApply(EngineReply.Tokenized::tokens);
    }

    private static void checkCharacters(FieldPath at, String text) {
        if (text.length() > MAX_CHARACTERS)
            throw at.invalid("has " + text.length() + " characters; at most " + MAX_CHARACTERS);
    }
}
