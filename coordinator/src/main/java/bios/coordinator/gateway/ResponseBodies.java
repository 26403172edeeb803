package bios.coordinator.gateway;

import bios.persistence.index.RunSummary;
import bios.protocol.Fault;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.client.Answer;
import bios.protocol.client.Problem;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.TargetModule;
import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationMetrics;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunId;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.OperationTiming;
import bios.protocol.run.WaitingOperation;
import bios.protocol.sampling.SampleResult;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/// Builds the JSON bodies of responses.
final class ResponseBodies {
    /// Up to this many numbers are written on the calling thread; handing them over takes longer.
    private static final int FEW_NUMBERS = 1024;

    /// More numbers than this are written while the client reads them.
    private static final int MANY_NUMBERS = 1 << 16;

    /// More items of a listing than this are, too.
    private static final int MANY_ITEMS = 50;

    /// Heap bytes of a number in a JSON body that is written while the client reads it: the number itself,
    /// and its text, because what belongs to one sequence is written at once.
    private static final long NUMBER_BYTES = 16;

    /// Heap bytes of a number in a protobuf body: in the result, and in the body.
    private static final long PACKED_NUMBER_BYTES = 8;

    /// About the heap bytes of an item of a listing.
    private static final long ITEM_BYTES = 4096;

    private ResponseBodies() {}

    /// The response of an endpoint marked F: the id under which the result can be retrieved.
    static ApiResponse future(String requestId, RunId run) {
        return ApiResponse.typed(new Answer.Submitted(requestId, Optional.of(run.value())), "request_id",
                requestId, "model_id", run.value());
    }

    /// The result of a failed operation.
    static ApiResponse failureResult(Fault fault) {
        return ApiResponse.typed(new Answer.Failed(Problem.of(fault)), "error", fault.message(),
                "category", fault.kind().name().toLowerCase(Locale.ROOT),
                "code", fault.code());
    }

    /// The response to a poll before the result is available.
    static ApiResponse pendingResult(String requestId, String reason) {
        return pending(new Answer.Pending(reason, false), requestId, "active");
    }

    /// The response to a poll while the run is blocked.
    static ApiResponse stalledResult(String requestId, String why) {
        return pending(new Answer.Pending("the run waits and tries again by itself: " + why, true),
                requestId, "paused_capacity");
    }

    private static ApiResponse pending(Answer.Pending answer, String requestId, String state) {
        return new ApiResponse.Typed(() -> answer, () -> new ApiResponse.JsonBody(408, ApiResponse.object(
                "type", "try_again", "request_id", requestId, "queue_state", state, "queue_state_reason",
                answer.why()), false));
    }

    /// @param columns K of each datum with `[N, K]` targets, 0 for one whose targets are a vector; empty: all
    ///     are vectors
    static ApiResponse passResult(ApiRequest call, OperationResult.Evaluated result, List<Integer> columns,
            boolean forwardOnly) {
        return new ApiResponse.Typed(() -> new Answer.Evaluated(result.logprobs(), result.metrics(), columns),
                () -> passBody(call, result, columns, forwardOnly));
    }

    private static ApiResponse passBody(ApiRequest call, OperationResult.Evaluated result,
            List<Integer> columns, boolean forwardOnly) {
        if (readsProtobuf(call, columns)) return protobuf(result.logprobs().size()
                + result.logprobs().stream().mapToLong(l -> l.length).sum(),
                () -> ProtoResults.pass(result, columns));
        boolean packed = call.accepts("application/vnd.bios+json");
        long numbers = result.logprobs().stream().mapToLong(l -> l.length).sum();
        Stream<Map<String, Object>> outputs = IntStream.range(0, result.logprobs().size()).mapToObj(i ->
                Map.of("logprobs", tensor(result.logprobs().get(i), columns.isEmpty() ? 0 : columns.get(i),
                        packed)));
        return numbers(numbers, ApiResponse.object("type", forwardOnly ? "forward" : "forward_backward",
                "loss_fn_output_type", "TensorDict", "loss_fn_outputs", outputs,
                "metrics", result.metrics()));
    }

    private static boolean readsProtobuf(ApiRequest call, List<Integer> columns) {
        return call.acceptsProtobuf()
                && (columns.stream().distinct().count() < 2 || call.readsMixedShapes());
    }

    private static ApiResponse protobuf(long numbers, Supplier<byte[]> body) {
        return new ApiResponse.Binary(ApiRequest.PROTOBUF_TYPES.getFirst(), body,
                PACKED_NUMBER_BYTES * numbers);
    }

    /// An object with this many numbers; its streams become arrays.
    private static ApiResponse numbers(long count, Map<String, Object> object) {
        return count > MANY_NUMBERS
                ? new ApiResponse.JsonStream(arrays(object, true), NUMBER_BYTES * count)
                : new ApiResponse.JsonBody(200, arrays(object, false), count > FEW_NUMBERS);
    }

    /// The object with arrays in place of its streams.
    ///
    /// @param later whether their items are made while they are written
    static Map<String, Object> arrays(Map<String, Object> object, boolean later) {
        object.replaceAll((_, value) -> !(value instanceof Stream<?> items) ? value
                : later ? items.iterator() : items.toList());
        return object;
    }

    /// A page of a listing; a long one is written while the client reads it, because each item may have
    /// metadata.
    static <T> ApiResponse listing(String name, List<T> items, Function<T, Map<String, Object>> body,
            Map<String, Object> cursor) {
        return listing(name, items, body, "cursor", cursor);
    }

    /// A listing whose field about the other pages is named `cursorName`.
    static <T> ApiResponse listing(String name, List<T> items, Function<T, Map<String, Object>> body,
            String cursorName, Map<String, Object> cursor) {
        return listing(ApiResponse.object(name, items.stream().map(body), cursorName, cursor), items.size(),
                ITEM_BYTES);
    }

    /// An object whose streams become arrays; long ones are written while the client reads them.
    ///
    /// @param count items of all of them
    /// @param itemBytes about the heap bytes of one
    static ApiResponse listing(Map<String, Object> object, long count, long itemBytes) {
        return count > MANY_ITEMS ? new ApiResponse.JsonStream(arrays(object, true), itemBytes * count)
                : new ApiResponse.JsonBody(200, arrays(object, false), true);
    }

    /// @param columns 0: a vector
    private static Map<String, Object> tensor(float[] values, int columns, boolean packed) {
        int[] shape = columns == 0 ? new int[] {values.length} : new int[] {values.length / columns, columns};
        if (!packed) return ApiResponse.object("dtype", "float32", "shape", shape, "data", values);
        ByteBuffer bytes = ByteBuffer.allocate(values.length * 4).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asFloatBuffer().put(values);
        // written as base64
        return ApiResponse.object("dtype", "float32", "shape", shape, "data_base64", bytes.array());
    }

    static ApiResponse stepResult(OperationResult.Stepped result) {
        return ApiResponse.typed(new Answer.Stepped(result.step(), result.metrics()), "type", "optim_step",
                "metrics", result.metrics(), "step", result.step());
    }

    static ApiResponse saveResult(ApiRequest call, CheckpointManifest manifest) {
        var answer = new Answer.Saved(manifest.path().map(CheckpointPath::biosUri), Optional.empty(),
                manifest.step(), manifest.userMetadata());
        return manifest.kind() == CheckpointKind.TRAINING
                ? ApiResponse.typed(answer, "type", "save_weights", "path", call.clientPath(manifest),
                        "metadata", JsonWriter.raw(manifest.userMetadata()), "step", manifest.step())
                : ApiResponse.typed(answer, "type", "save_weights_for_sampler", "path",
                        call.clientPath(manifest),
                        "sampling_session_id", null, "step", manifest.step());
    }

    /// Sampler weights that were saved for use elsewhere.
    static ApiResponse externalResult(ApiRequest call, CheckpointManifest manifest) {
        CheckpointPath path = manifest.path().orElseThrow();
        return ApiResponse.ok("type", "save_weights_external", "path", call.isTinkerClient()
                ? "tinker://" + path.run() + "/" + CheckpointKind.EXTERNAL + "/" + path.name()
                : path.biosUri(), "size_bytes", manifest.bytes(), "step", manifest.step());
    }

    /// @param createdByLoad whether the load created the run: the result of load_training_client
    static ApiResponse loadResult(ApiRequest call, RunId run, OperationResult.Loaded result,
            boolean createdByLoad) {
        String path = call.clientPath(CheckpointPath.parse(result.path()));
        return ApiResponse.typed(new Answer.Loaded(run.value(), result.path(), result.step()),
                "type", createdByLoad ? "create_model" : "load_weights", "model_id",
                run.value(),
                "path", path, "step", result.step());
    }

    static ApiResponse sampleResult(ApiRequest call, String request, SampleResult result) {
        return new ApiResponse.Typed(() -> new Answer.Sampled(result), () ->
                sampleBody(call, request, result));
    }

    private static ApiResponse sampleBody(ApiRequest call, String request, SampleResult result) {
        long numbers = FEW_NUMBERS + 1
                + result.sequences().stream().mapToLong(s ->
                        3L * s.tokens().length + numbers(s.topkLogprobs())).sum()
                + numbers(result.topkPromptLogprobs());
        if (call.acceptsProtobuf()) return protobuf(numbers, () -> ProtoResults.sample(result));
        List<String> ids = sequenceIds(request, result.sequences().size());
        Stream<Map<String, Object>> sequences = IntStream.range(0, ids.size()).mapToObj(i ->
                sequence(ids.get(i), result.sequences().get(i)));
        return numbers(numbers, ApiResponse.object("type", "sample", "sequences", sequences,
                "prompt_logprobs", result.promptLogprobs(), "topk_prompt_logprobs",
                result.topkPromptLogprobs().map(rows -> rows.stream().map(ResponseBodies::row))));
    }

    /// The ids of the sequences that a sampling request gives.
    static List<String> sequenceIds(String request, int samples) {
        return IntStream.range(0, samples).mapToObj(i -> request + ":" + i).toList();
    }

    private static long numbers(Optional<List<List<SampleResult.TokenLogprob>>> rows) {
        return 2L * rows.stream().flatMap(List::stream).mapToLong(List::size).sum();
    }

    /// @param id distinct for each sequence, the same each time it is asked for
    private static Map<String, Object> sequence(String id, SampleResult.Sequence s) {
        Map<String, Object> all = new LinkedHashMap<>(ApiResponse.object("tokens", s.tokens(), "logprobs",
                s.logprobs(), "stop_reason", s.stopReason().name().toLowerCase(Locale.ROOT)));
        s.modelLogprobs().ifPresent(own -> all.put("model_logprobs", own));
        s.topkLogprobs().ifPresent(rows -> all.put("topk_logprobs",
                rows.stream().map(ResponseBodies::row).toList()));
        all.put("sequence_id", id);
        return all;
    }

    /// `null` for a position without candidates, such as the first.
    private static List<List<Object>> row(List<SampleResult.TokenLogprob> row) {
        return row.isEmpty() ? null : row.stream().map(cell -> List.<Object>of(cell.token(), cell.logprob()))
                .toList();
    }

    static Map<String, Object> run(ApiRequest call, RunSummary run) {
        return ApiResponse.object("training_run_id", run.config().run().value(),
                "base_model", run.config().baseModel().value(),
                "model_owner", run.config().owner(), "is_lora", true, "lora_rank", run.lora().rank(),
                "corrupted", run.corrupted().isPresent(), "last_request_time", time(run.lastRequestMillis()),
                "last_checkpoint", last(call, run, CheckpointKind.TRAINING),
                "last_sampler_checkpoint", last(call, run, CheckpointKind.SAMPLER),
                "user_metadata", JsonWriter.strings(run.config().userMetadata()),
                "lora_alpha", run.lora().alpha(), "target_modules", targets(run.lora()), "step", run.step(),
                "project_id", run.config().project(),
                "parent_path", run.config().parent()
                .map(path -> call.clientPath(CheckpointPath.parse(path))));
    }

    /// The same, with the operation that can be given up.
    static Map<String, Object> run(ApiRequest call, RunSummary run, Optional<WaitingOperation> waiting) {
        Map<String, Object> all = new LinkedHashMap<>(run(call, run));
        all.put("waiting_operation", waiting.map(w -> ApiResponse.object("seq_id", w.seq(), "operation",
                operation(w.kind()), "set_aside", w.setAside(), "code", w.why().code(), "message",
                w.why().message())).orElse(null));
        return all;
    }

    /// The same for the actor protocol.
    static Answer.Run run(RunSummary run, Optional<WaitingOperation> waiting) {
        return new Answer.Run(run.config().run().value(), run.config().baseModel().value(), run.lora().rank(),
                run.lora().alpha(), targets(run.lora()), run.step(), run.lastRequestMillis(),
                checkpoints(run.checkpoints().stream().filter(c -> c.name().isPresent()).toList()),
                run.closed(), run.config().userMetadata(), run.config().parent(), run.corrupted(),
                waiting.map(w -> new Answer.Waiting(w.seq(), operation(w.kind()), w.setAside(),
                        w.why().code(), w.why().message())));
    }

    /// Named checkpoints for the actor protocol.
    static List<Answer.Checkpoint> checkpoints(List<CheckpointManifest> manifests) {
        return manifests.stream().map(c -> new Answer.Checkpoint(c.path().orElseThrow().biosUri(),
                c.kind() == CheckpointKind.TRAINING, c.bytes(), c.step(), c.createdAtMillis(),
                c.expiresAtMillis(), c.userMetadata(), c.readableByAll())).toList();
    }

    private static Optional<Map<String, Object>> last(ApiRequest call, RunSummary run, CheckpointKind kind) {
        return run.checkpoints().stream().filter(c -> c.kind() == kind && c.name().isPresent())
                .max(Comparator.comparingLong(CheckpointManifest::createdAtMillis))
                .map(c -> checkpoint(call, c));
    }

    static Map<String, Object> checkpoint(ApiRequest call, CheckpointManifest checkpoint) {
        CheckpointPath path = checkpoint.path().orElseThrow();
        return ApiResponse.object("checkpoint_id", checkpoint.kind().segment() + "/" + path.name(),
                "checkpoint_type", checkpoint.kind().name().toLowerCase(Locale.ROOT),
                "time", time(checkpoint.createdAtMillis()), "path", path.biosUri(), "tinker_path",
                path.tinkerUri(),
                "size_bytes", checkpoint.bytes(), "public", checkpoint.readableByAll(),
                "expires_at", checkpoint.expiresAtMillis().map(ResponseBodies::time), "step",
                checkpoint.step(), "base_model", checkpoint.baseModel().value(),
                "metadata", JsonWriter.raw(checkpoint.userMetadata()));
    }

    /// Times in milliseconds, rounded down to microseconds.
    static Map<String, Object> timing(OperationTiming timing) {
        return ApiResponse.object("seq_id", timing.seq(), "operation", operation(timing.kind()),
                "journal_ms", millis(timing.journalNanos()), "queue_ms", millis(timing.queueNanos()),
                "engine_ms", millis(timing.engineNanos()));
    }

    /// The name of the call that submits such an operation.
    static String operation(OperationKind kind) {
        return switch (kind) {
            case FORWARD -> "forward";
            case FORWARD_BACKWARD -> "forward_backward";
            case OPTIM_STEP -> "optim_step";
            case SAVE_STATE -> "save_weights";
            case SAVE_SAMPLER_WEIGHTS -> "save_weights_for_sampler";
            case LOAD_STATE -> "load_weights";
        };
    }

    /// Details of history entries that are numbers.
    private static final Set<String> NUMBERS = Set.of("rank", "step", "bytes", "replay", "operations",
            "first", "struck", "seconds");

    /// One entry of a run's history; `detail` holds the fields of its kind.
    static Map<String, Object> historyEntry(HistoryEntry entry) {
        var detail = new TreeMap<String, Object>();
        entry.detail().forEach((name, text) ->
                detail.put(name, NUMBERS.contains(name) ? JsonWriter.raw(text) : text));
        return ApiResponse.object("time", time(entry.timeMillis()), "node", entry.node(),
                "kind", entry.kind().name().toLowerCase(Locale.ROOT), "position", entry.position(),
                "seq_id", entry.seq(), "detail", detail, "number", entry.number());
    }

    private static double millis(long nanos) {
        return nanos / 1000 / 1e3;
    }

    /// The same for the actor protocol.
    static Answer.HistoryEntry typedEntry(HistoryEntry entry) {
        return new Answer.HistoryEntry(entry.timeMillis(), entry.node(),
                entry.kind().name().toLowerCase(Locale.ROOT), entry.position(), entry.seq(), entry.detail(),
                entry.number());
    }

    /// What an operation has reported.
    static Map<String, Object> operationMetrics(OperationMetrics operation) {
        return ApiResponse.object("number", operation.position(), "seq_id", operation.seq(), "operation",
                operation(operation.kind()), "step", operation.step(), "metrics", operation.metrics(),
                "code", operation.failure(), "time", time(operation.finishedMillis()));
    }

    /// The same for the actor protocol.
    static Answer.OperationMetrics typedMetrics(OperationMetrics operation) {
        return new Answer.OperationMetrics(operation.position(), operation.seq(),
                operation(operation.kind()), operation.step(), operation.metrics(), operation.failure(),
                operation.finishedMillis());
    }

    /// The PEFT names of the target modules.
    static List<String> targets(LoraSpec lora) {
        return lora.targets().stream().map(TargetModule::peftName).toList();
    }

    /// The flags of Tinker's LoraConfig that describe the target modules best.
    static Map<String, Object> flags(LoraSpec lora) {
        return ApiResponse.object("train_unembed", lora.targets().contains(TargetModule.HEAD),
                "train_mlp", lora.targets().stream().anyMatch(t -> t.path().startsWith("mlp.")),
                "train_attn", lora.targets().stream().anyMatch(t -> t.path().startsWith("self_attn.")));
    }

    /// Epoch milliseconds as RFC 3339.
    static String time(long millis) {
        return Instant.ofEpochMilli(millis).toString();
    }

    /// The names in sorted order, so that files are reproducible.
    static List<String> sorted(List<String> names) {
        String[] copy = names.toArray(String[]::new);
        Arrays.sort(copy);
        return List.of(copy);
    }
}
