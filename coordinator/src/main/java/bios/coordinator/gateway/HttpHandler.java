package bios.coordinator.gateway;

import bios.coordinator.Metrics;
import bios.coordinator.gateway.Accounts.Caller;
import bios.coordinator.gateway.ApiRequest.BodyStream;
import bios.protocol.Invalid;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Function;
import java.util.function.LongConsumer;
import java.util.function.Supplier;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.http.javadsl.model.ContentType;
import org.apache.pekko.http.javadsl.model.ContentTypes;
import org.apache.pekko.http.javadsl.model.DateTime;
import org.apache.pekko.http.javadsl.model.HttpEntities;
import org.apache.pekko.http.javadsl.model.HttpHeader;
import org.apache.pekko.http.javadsl.model.HttpRequest;
import org.apache.pekko.http.javadsl.model.HttpResponse;
import org.apache.pekko.http.javadsl.model.ResponseEntity;
import org.apache.pekko.http.javadsl.model.headers.Expires;
import org.apache.pekko.http.javadsl.model.headers.Location;
import org.apache.pekko.http.javadsl.model.headers.RawHeader;
import org.apache.pekko.http.scaladsl.model.EntityStreamException;
import org.apache.pekko.japi.Pair;
import org.apache.pekko.stream.Materializer;
import org.apache.pekko.stream.SystemMaterializer;
import org.apache.pekko.stream.javadsl.StreamConverters;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Handles HTTP requests: finds the endpoint, authenticates the caller, reads the body and writes the
/// response. Every failure becomes an error response in JSON.
final class HttpHandler {
    private static final Logger LOG = LoggerFactory.getLogger(HttpHandler.class);
    private static final int SMALL = 1 << 16;
    /// A streamed body of which nothing comes for so long has ended.
    private static final Duration LONGEST_SILENCE = Duration.ofSeconds(60);
    private static final Caller ANYBODY = new Caller(Accounts.DEFAULT, ApiKey.Scope.WRITE, "");

    private final Gateway.Dependencies parts;
    private final Executor readers;
    private final List<Endpoint> endpoints;
    private final Materializer materializer;
    private final BodyReader bodies;
    private final ResponseMemory responses;
    private final JsonReader reader;
    private final int maxBodyBytes;
    private final Admission admission;

    HttpHandler(ActorSystem<?> system, Gateway.Dependencies parts, GatewaySettings settings, Executor readers,
            Admission admission, List<Endpoint> endpoints) {
        this.parts = parts;
        this.admission = admission;
        this.readers = readers;
        this.endpoints = endpoints;
        this.materializer = SystemMaterializer.get(system).materializer();
        this.bodies = new BodyReader(settings.maxBodyBytes(), parts.memory());
        this.responses = new ResponseMemory(parts.memory(), (delay, task) ->
                system.scheduler().scheduleOnce(delay, task, system.executionContext()));
        this.maxBodyBytes = settings.maxBodyBytes();
        this.reader = new JsonReader(settings.maxNesting(), settings.maxBodyBytes());
    }

    private record Match(Endpoint endpoint, List<String> pathParameters) {}

    /// Records the metrics of one request. The route label is a pattern, so that no id becomes a label.
    private static final class RequestMetrics {
        private final String method;
        private final long began = System.nanoTime(); // edge: measures, decides nothing
        private Optional<String> route = Optional.empty();

        RequestMetrics(String method) {
            this.method = method;
        }

        HttpResponse of(HttpResponse response) {
            double seconds = (System.nanoTime() - began) / 1e9; // edge: measures, decides nothing
            String name = route.orElse("none");
            Metrics.HTTP_REQUESTS.labelValues(route.isPresent() ? method : "any", name,
                    Integer.toString(response.status().intValue())).inc();
            Metrics.HTTP_REQUEST_SECONDS.labelValues(name).observe(seconds);
            return response;
        }
    }

    /// Handles a request; the stage never fails.
    CompletionStage<HttpResponse> answer(HttpRequest request) {
        var metrics = new RequestMetrics(request.method().value());
        return handle(request, metrics).thenApply(metrics::of);
    }

    private CompletionStage<HttpResponse> handle(HttpRequest request, RequestMetrics metrics) {
        String id = parts.ids().get().toString();
        Match match;
        Caller caller;
        Map<String, String> headers = headers(request);
        try {
            match = match(request.method().value(), path(request));
            metrics.route = Optional.of(String.join("/", match.endpoint().pattern()));
            caller = match.endpoint().authenticated() ? admission.of(match.endpoint(),
                    Accounts.keyIn(headers.get("x-api-key"), headers.get("authorization"))) : ANYBODY;
            if (match.endpoint().readsBody()) checkType(match.endpoint(), headers);
        } catch (RuntimeException refused) {
            return discardBody(request, problem(id, request, refused));
        }
        CompletionStage<ApiResponse> reply;
        if (match.endpoint().streamsBody()) {
            reply = streamed(request, stream -> match.endpoint().handler().answer(call(id, caller, match,
                    request, headers, Optional.empty(), _ -> { }, Optional.of(stream))));
        } else if (match.endpoint().readsBody()) {
            boolean zstd = headers.getOrDefault("content-encoding", "").equals("zstd");
            reply = bodies.read(request, materializer).thenCompose(body -> withBody(body, zstd, () -> {
                ApiRequest call = call(id, caller, match, request, headers,
                        Optional.of(parse(body, zstd, headers)), body.share()::take, Optional.empty());
                return ApiException.withField(
                        call, callHandler(() -> match.endpoint().handler().answer(call)));
            }));
        } else {
            reply = request.discardEntityBytes(materializer).completionStage()
                    .thenCompose(_ -> callHandler(() -> match.endpoint().handler()
                            .answer(call(id, caller, match, request, headers, Optional.empty(), _ -> { },
                                    Optional.empty()))));
        }
        return reply.thenCompose(this::render).handle((response, failed) -> failed == null
                ? response.addHeader(RawHeader.create("X-Request-Id", id)) : problem(id, request, failed));
    }

    /// Calls a handler that reads the body itself. What it does not begin to read is discarded.
    private CompletionStage<ApiResponse> streamed(HttpRequest request,
            Function<BodyStream, CompletionStage<ApiResponse>> handler) {
        var opened = new AtomicBoolean();
        var stream = new BodyStream(request.entity().getContentLengthOption(), () -> {
            opened.set(true);
            return request.entity().withoutSizeLimit().getDataBytes()
                    .runWith(StreamConverters.asInputStream(LONGEST_SILENCE), materializer);
        });
        return callHandler(() -> handler.apply(stream)).exceptionallyCompose(failed -> opened.get()
                ? CompletableFuture.failedStage(failed)
                : request.discardEntityBytes(materializer).completionStage()
                        .thenCompose(_ -> CompletableFuture.failedStage(failed)));
    }

    private CompletionStage<HttpResponse> discardBody(HttpRequest request, HttpResponse response) {
        return request.discardEntityBytes(materializer).completionStage().handle((_, _) -> response);
    }

    private Json parse(BodyReader.Body body, boolean zstd, Map<String, String> headers) {
        byte[] bytes = zstd ? ZstdBody.content(body.takeBytes(), maxBodyBytes, body.share())
                : body.takeBytes();
        return ApiRequest.PROTOBUF_TYPES.contains(headers.get("content-type"))
                ? ProtoBatch.read(bytes, body.share()::take) : reader.read(bytes, body.share()::take);
    }

    private CompletionStage<ApiResponse> withBody(BodyReader.Body body, boolean expands,
            Supplier<CompletionStage<ApiResponse>> work) {
        CompletionStage<ApiResponse> reply = body.length() <= SMALL && !expands ? callHandler(work)
                : CompletableFuture.supplyAsync(() -> callHandler(work), readers).thenCompose(stage -> stage);
        return reply.whenComplete((_, _) -> body.release());
    }

    /// Calls a handler; what it throws fails the stage.
    static CompletionStage<ApiResponse> callHandler(Supplier<CompletionStage<ApiResponse>> work) {
        try {
            return work.get();
        } catch (Throwable failed) {
            return CompletableFuture.failedStage(failed);
        }
    }

    private static ApiRequest call(String id, Caller caller, Match match, HttpRequest request,
            Map<String, String> headers, Optional<Json> body, LongConsumer heap,
            Optional<BodyStream> stream) {
        var query = new HashMap<String, String>();
        try {
            for (Pair<String, String> parameter : request.getUri().query().toList())
                query.putIfAbsent(parameter.first(), parameter.second());
        } catch (RuntimeException malformed) {
            throw new ApiException(ErrorCode.INVALID, "query", "is malformed: " + malformed.getMessage());
        }
        return new ApiRequest(id, caller, match.pathParameters(), query, headers, body, heap, stream);
    }

    private static Map<String, String> headers(HttpRequest request) {
        var headers = new HashMap<String, String>();
        for (HttpHeader header : request.getHeaders()) headers.put(header.lowercaseName(), header.value());
        headers.put("content-type", request.entity().getContentType().mediaType().toString());
        return headers;
    }

    /// The decoded path segments below `/api/v1`, or those of `/v1` after an empty one; a checkpoint id that
    /// is one escaped segment is split in two.
    private static List<String> path(HttpRequest request) {
        var segments = new ArrayList<String>();
        try {
            request.getUri().pathSegments().forEach(segments::add);
        } catch (RuntimeException malformed) {
            throw noEndpoint(request.getUri().path());
        }
        if (isOpenAi(request)) {
            segments.addFirst("");
            return segments;
        }
        if (segments.size() < 3 || !segments.get(0).equals("api") || !segments.get(1).equals("v1"))
            throw noEndpoint(request.getUri().path());
        var path = new ArrayList<>(segments.subList(2, segments.size()));
        int slash = path.size() > 3 && path.get(2).equals("checkpoints") ? path.get(3).indexOf('/') : -1;
        if (slash > 0) {
            String both = path.remove(3);
            path.addAll(3, List.of(both.substring(0, slash), both.substring(slash + 1)));
        }
        return path;
    }

    /// Whether a request is one of OpenAI's clients: they expect errors in another form.
    private static boolean isOpenAi(HttpRequest request) {
        return request.getUri().path().startsWith("/v1/");
    }

    private static ApiException noEndpoint(String path) {
        return new ApiException(ErrorCode.NO_SUCH_CALL,
                "there is no endpoint at '" + path + "'; the endpoints are below /api/v1 and /v1");
    }

    private Match match(String method, List<String> path) {
        var others = new TreeSet<String>();
        for (Endpoint endpoint : endpoints) {
            Optional<List<String>> matched = endpoint.match(path);
            if (matched.isEmpty()) continue;
            if (endpoint.method().equals(method)) return new Match(endpoint, matched.get());
            others.add(endpoint.method());
        }
        if (others.isEmpty()) throw noEndpoint((path.getFirst().isEmpty() ? "" : "/api/v1/")
                + String.join("/", path));
        throw ApiException.methodNotAllowed(others, method);
    }

    private static void checkType(Endpoint endpoint, Map<String, String> headers) {
        String type = headers.get("content-type");
        boolean known = type.equals("application/json")
                || endpoint.takesProtobuf() && ApiRequest.PROTOBUF_TYPES.contains(type);
        if (!known)
            throw new ApiException(ErrorCode.NOT_JSON, "the body is " + type
            + "; send it as application/json"
            + (endpoint.takesProtobuf() ? " or " + ApiRequest.PROTOBUF_TYPES.getFirst() : ""));
        String encoding = headers.getOrDefault("content-encoding", "identity");
        if (!encoding.equals("identity") && !encoding.equals("zstd"))
            throw new ApiException(ErrorCode.UNSUPPORTED_ENCODING, "the body is encoded as " + encoding
            + "; send it as it is, or as zstd");
    }

    private CompletionStage<HttpResponse> render(ApiResponse reply) {
        return switch (reply) {
            case ApiResponse.Typed(_, var http) -> render(http.get());
            case ApiResponse.JsonBody(int status, var body, boolean large) when large ->
                CompletableFuture.supplyAsync(() -> counted(status, body), readers);
            case ApiResponse.JsonBody(int status, var body, _) ->
                    CompletableFuture.completedStage(counted(status, body));
            case ApiResponse.JsonStream(var fields, long heapBytes) ->
                    CompletableFuture.completedStage(HttpResponse.create().withEntity(HttpEntities.create(
                            ContentTypes.APPLICATION_JSON,
                            responses.hold(heapBytes).written(() -> new JsonBlocks(fields)))));
            case ApiResponse.Binary(var type, var body, long heapBytes)
                    when heapBytes <= ResponseMemory.SMALL -> CompletableFuture.completedStage(
                            HttpResponse.create().withEntity(ContentTypes.parse(type), body.get()));
            case ApiResponse.Binary(var type, var body, long heapBytes) -> {
                ResponseMemory.Held held = responses.hold(heapBytes);
                yield CompletableFuture.supplyAsync(body, readers).whenComplete((_, failed) -> {
                    if (failed != null) held.release();
                }).thenApply(bytes -> HttpResponse.create().withEntity(entity(ContentTypes.parse(type), bytes,
                        held)));
            }
            case ApiResponse.Streamed(var type, var bytes, var end) -> CompletableFuture.completedStage(
                    HttpResponse.create().withEntity(HttpEntities.create(ContentTypes.parse(type),
                            responses.ending(bytes, end)))
                            .addHeader(RawHeader.create("Cache-Control", "no-cache")));
            case ApiResponse.NoContent _ ->
                    CompletableFuture.completedStage(HttpResponse.create().withStatus(204));
            case ApiResponse.Redirect(var location, long expires) -> CompletableFuture.completedStage(
                    HttpResponse.create().withStatus(302).addHeader(Location.create(location))
                            .addHeader(Expires.create(DateTime.create(expires))));
            case ApiResponse.ByteStream download -> CompletableFuture.completedStage(stream(download));
        };
    }

    private static HttpResponse stream(ApiResponse.ByteStream download) {
        var type = ContentTypes.parse(download.contentType());
        HttpResponse response = HttpResponse.create()
                .addHeader(RawHeader.create("Content-Disposition",
                        "attachment; filename=\"" + download.fileName() + "\""))
                .addHeader(RawHeader.create("ETag", "\"" + download.tag() + "\""))
                .addHeader(RawHeader.create("Accept-Ranges", "bytes"));
        return download.part().map(part -> response.withStatus(206)
                .addHeader(RawHeader.create("Content-Range",
                        "bytes " + part.from() + "-" + (part.total() - 1) + "/" + part.total()))
                .withEntity(HttpEntities.create(type, part.total() - part.from(), download.bytes())))
                .orElseGet(() -> response.withEntity(HttpEntities.create(type, download.bytes())));
    }

    private static HttpResponse json(int status, Object body) {
        return HttpResponse.create().withStatus(status).withEntity(ContentTypes.APPLICATION_JSON,
                JsonWriter.write(body));
    }

    /// A JSON response whose bytes, if they are many, count in the memory of requests until they are written.
    /// Throws an [ApiException] (429) if there is no memory for them.
    private HttpResponse counted(int status, Object body) {
        byte[] bytes = JsonWriter.write(body);
        HttpResponse response = HttpResponse.create().withStatus(status);
        return bytes.length <= ResponseMemory.SMALL
                ? response.withEntity(ContentTypes.APPLICATION_JSON, bytes)
                : response.withEntity(entity(ContentTypes.APPLICATION_JSON, bytes,
                        responses.hold(bytes.length)));
    }

    private static ResponseEntity entity(ContentType type, byte[] bytes, ResponseMemory.Held held) {
        return HttpEntities.create(type, bytes.length, held.written(bytes));
    }

    /// The error that a failure is to a client; one that is none is logged with the id of the request.
    static ApiException error(String id, Throwable failed) {
        Throwable cause = GatewayServices.cause(failed);
        return switch (cause) {
            case ApiException known -> known;
            case Invalid invalid -> ApiException.of(invalid);
            case EntityStreamException _ -> new ApiException(ErrorCode.MALFORMED_JSON,
                    "the connection ended before the body did");
            case TimeoutException _ -> new ApiException(ErrorCode.UNAVAILABLE,
                    "the run, session or worker does not answer; it may be starting or moving; retry later");
            default -> {
                LOG.atError().addKeyValue("request", id).setCause(cause).log("request failed");
                yield new ApiException(ErrorCode.INTERNAL,
                        "the service failed to process this request; see its log for request " + id);
            }
        };
    }

    private static HttpResponse problem(String id, HttpRequest request, Throwable failed) {
        ApiException error = error(id, failed);
        ErrorCode code = error.code();
        if (code.status() == 429) Metrics.HTTP_THROTTLED.labelValues(error.wireCode()).inc();
        LOG.atDebug().addKeyValue("request", id).log("request refused: {}", error.getMessage());
        HttpResponse response = json(code.status(), request.getUri().path().equals("/v1/messages")
                ? MessagesAnswer.problem(error) : isOpenAi(request) ? OpenAiBodies.problem(error)
                : ApiResponse.object("error", error.wireCode(),
                "category", code.status() < 500 ? "user" : "server", "message", error.getMessage(),
                "field", error.field(), "detail", error.getMessage(), "request_id", id))
                .addHeader(RawHeader.create("X-Request-Id", id));
        if (!error.allowed().isEmpty())
            response = response.addHeader(RawHeader.create("Allow", String.join(", ", error.allowed())));
        return code.retryAfterSeconds() == 0 ? response : response.addHeader(RawHeader.create("Retry-After",
                Integer.toString(code.retryAfterSeconds())));
    }
}
