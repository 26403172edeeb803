package bios.coordinator.gateway;

import bios.coordinator.Metrics;
import bios.protocol.Invalid;
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
import java.util.function.Supplier;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.http.javadsl.model.ContentTypes;
import org.apache.pekko.http.javadsl.model.HttpEntities;
import org.apache.pekko.http.javadsl.model.HttpHeader;
import org.apache.pekko.http.javadsl.model.HttpRequest;
import org.apache.pekko.http.javadsl.model.HttpResponse;
import org.apache.pekko.http.javadsl.model.headers.RawHeader;
import org.apache.pekko.japi.Pair;
import org.apache.pekko.stream.Materializer;
import org.apache.pekko.stream.SystemMaterializer;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// From HTTP request to HTTP response: finds the call, knows the caller, reads the body, writes the answer.
/// Whatever goes wrong becomes a problem in JSON.
final class HttpHandler {
    private static final Logger LOG = LoggerFactory.getLogger(HttpHandler.class);
    private static final int SMALL = 1 << 16;

    private final Gateway.Parts parts;
    private final Executor readers;
    private final List<Endpoint> endpoints;
    private final Materializer materializer;
    private final Bodies bodies;
    private final JsonReader reader;

    HttpHandler(ActorSystem<?> system, Gateway.Parts parts, GatewaySettings settings, Executor readers,
            List<Endpoint> endpoints) {
        this.parts = parts;
        this.readers = readers;
        this.endpoints = endpoints;
        this.materializer = SystemMaterializer.get(system).materializer();
        this.bodies = new Bodies(settings.maxBodyBytes(), settings.maxBytesInWork());
        this.reader = new JsonReader(settings.maxNesting(), settings.maxBodyBytes());
    }

    private record Found(Endpoint endpoint, List<String> parts) {}

    /// What a request adds to the metrics. The route is a pattern, so that no id becomes a label.
    private static final class Measure {
        private final String method;
        private final long began = System.nanoTime(); // edge: measures, decides nothing
        private Optional<String> route = Optional.empty();

        Measure(String method) {
            this.method = method;
        }

        HttpResponse of(HttpResponse response) {
            double seconds = (System.nanoTime() - began) / 1e9; // edge: measures, decides nothing
            String name = route.orElse("none");
            Metrics.HTTP_REQUESTS.labelValues(route.isPresent() ? method : "any", name,
                    Integer.toString(response.status().intValue())).inc();
            Metrics.HTTP_SECONDS.labelValues(name).observe(seconds);
            return response;
        }
    }

    /// Answers a request; never fails.
    CompletionStage<HttpResponse> answer(HttpRequest request) {
        var measure = new Measure(request.method().value());
        return answered(request, measure).thenApply(measure::of);
    }

    private CompletionStage<HttpResponse> answered(HttpRequest request, Measure measure) {
        String id = parts.ids().get().toString();
        Found found;
        String account;
        Map<String, String> headers = headers(request);
        try {
            found = find(request.method().value(), path(request));
            measure.route = Optional.of(String.join("/", found.endpoint().pattern()));
            account = found.endpoint().keyed() ? account(headers) : Accounts.DEFAULT;
            if (found.endpoint().read()) checkType(headers);
        } catch (RuntimeException refused) {
            return drained(request, problem(id, refused));
        }
        CompletionStage<Reply> reply;
        if (found.endpoint().read()) {
            reply = bodies.read(request, materializer).thenCompose(body -> withBody(body, () -> {
                Call call = call(id, account, found, request, headers,
                        Optional.of(reader.read(body.bytes())));
                return Refusal.located(call, guarded(() -> found.endpoint().handler().answer(call)));
            }));
        } else {
            reply = request.discardEntityBytes(materializer).completionStage()
                    .thenCompose(_ -> guarded(() -> found.endpoint().handler()
                            .answer(call(id, account, found, request, headers, Optional.empty()))));
        }
        return reply.thenCompose(this::render).handle((response, failed) -> failed == null
                ? response.addHeader(RawHeader.create("X-Request-Id", id)) : problem(id, failed));
    }

    private CompletionStage<HttpResponse> drained(HttpRequest request, HttpResponse response) {
        return request.discardEntityBytes(materializer).completionStage().handle((_, _) -> response);
    }

    private CompletionStage<Reply> withBody(Bodies.Body body,
            Supplier<CompletionStage<Reply>> work) {
        CompletionStage<Reply> reply = body.length() <= SMALL ? guarded(work)
                : CompletableFuture.supplyAsync(() -> guarded(work), readers).thenCompose(stage -> stage);
        return reply.whenComplete((_, _) -> body.release());
    }

    private static CompletionStage<Reply> guarded(Supplier<CompletionStage<Reply>> work) {
        try {
            return work.get();
        } catch (Throwable failed) {
            return CompletableFuture.failedStage(failed);
        }
    }

    private static Call call(String id, String account, Found found, HttpRequest request,
            Map<String, String> headers, Optional<Json> body) {
        var query = new HashMap<String, String>();
        try {
            for (Pair<String, String> parameter : request.getUri().query().toList())
                query.putIfAbsent(parameter.first(), parameter.second());
        } catch (RuntimeException malformed) {
            throw new Refusal(Code.INVALID, "query", "is malformed: " + malformed.getMessage());
        }
        return new Call(id, account, found.parts(), query, headers, body);
    }

    private static Map<String, String> headers(HttpRequest request) {
        var headers = new HashMap<String, String>();
        for (HttpHeader header : request.getHeaders()) headers.put(header.lowercaseName(), header.value());
        headers.put("content-type", request.entity().getContentType().mediaType().toString());
        return headers;
    }

    /// The decoded segments below `/api/v1`; a checkpoint id that came as one segment is two.
    private static List<String> path(HttpRequest request) {
        var segments = new ArrayList<String>();
        try {
            request.getUri().pathSegments().forEach(segments::add);
        } catch (RuntimeException malformed) {
            throw none(request.getUri().path());
        }
        if (segments.size() < 3 || !segments.get(0).equals("api") || !segments.get(1).equals("v1"))
            throw none(request.getUri().path());
        var path = new ArrayList<>(segments.subList(2, segments.size()));
        int slash = path.size() > 3 && path.get(2).equals("checkpoints") ? path.get(3).indexOf('/') : -1;
        if (slash > 0) {
            String both = path.remove(3);
            path.addAll(3, List.of(both.substring(0, slash), both.substring(slash + 1)));
        }
        return path;
    }

    private static Refusal none(String path) {
        return new Refusal(Code.NO_SUCH_CALL,
                "there is nothing at '" + path + "'; the calls are below /api/v1");
    }

    private Found find(String method, List<String> path) {
        var others = new TreeSet<String>();
        for (Endpoint endpoint : endpoints) {
            Optional<List<String>> matched = endpoint.match(path);
            if (matched.isEmpty()) continue;
            if (endpoint.method().equals(method)) return new Found(endpoint, matched.get());
            others.add(endpoint.method());
        }
        if (others.isEmpty()) throw none("/api/v1/" + String.join("/", path));
        throw Refusal.methods(others, method);
    }

    private String account(Map<String, String> headers) {
        return parts.accounts().of(Optional.ofNullable(headers.get("x-api-key")))
                .orElseThrow(() -> new Refusal(Code.UNAUTHENTICATED, headers.containsKey("x-api-key")
                        ? "the key in X-API-Key is not known here"
                        : "this service needs a key; send it as X-API-Key"));
    }

    private static void checkType(Map<String, String> headers) {
        String type = headers.get("content-type");
        if (!type.equals("application/json"))
            throw new Refusal(Code.NOT_JSON, "the body is " + type + "; send it as application/json");
    }

    private CompletionStage<HttpResponse> render(Reply reply) {
        return switch (reply) {
            case Reply.Value(int status, var body, boolean large) when large ->
                CompletableFuture.supplyAsync(() -> json(status, body), readers);
            case Reply.Value(int status, var body, _) -> CompletableFuture.completedStage(json(status, body));
            case Reply.Nothing _ -> CompletableFuture.completedStage(HttpResponse.create().withStatus(204));
            case Reply.Stream(var type, var name, var bytes) ->
                    CompletableFuture.completedStage(HttpResponse.create()
                            .withEntity(HttpEntities.create(ContentTypes.parse(type), bytes))
                            .addHeader(RawHeader.create("Content-Disposition",
                                    "attachment; filename=\"" + name + "\"")));
        };
    }

    private static HttpResponse json(int status, Object body) {
        return HttpResponse.create().withStatus(status).withEntity(ContentTypes.APPLICATION_JSON,
                JsonWriter.write(body));
    }

    private static HttpResponse problem(String id, Throwable failed) {
        Throwable cause = Backend.cause(failed);
        Refusal refusal = switch (cause) {
            case Refusal known -> known;
            case Invalid invalid -> Refusal.of(invalid);
            case TimeoutException _ -> new Refusal(Code.UNAVAILABLE,
                    "the run, session or worker does not answer; it may be starting or moving. Try again in"
                    + " a moment");
            default -> {
                LOG.atError().addKeyValue("request", id).setCause(cause).log("a request failed");
                yield new Refusal(Code.INTERNAL,
                        "the service failed at this request; its log says why under request " + id);
            }
        };
        Code code = refusal.code();
        if (code.status() == 429) Metrics.HTTP_THROTTLED.labelValues(refusal.word()).inc();
        LOG.atDebug().addKeyValue("request", id).log("refused: {}", refusal.getMessage());
        HttpResponse response = json(code.status(), Reply.object("error", refusal.word(),
                "category", code.status() < 500 ? "user" : "server", "message", refusal.getMessage(),
                "field", refusal.field(), "detail", refusal.getMessage(), "request_id", id))
                .addHeader(RawHeader.create("X-Request-Id", id));
        if (!refusal.allowed().isEmpty())
            response = response.addHeader(RawHeader.create("Allow", String.join(", ", refusal.allowed())));
        return code.retryAfterSeconds() == 0 ? response : response.addHeader(RawHeader.create("Retry-After",
                Integer.toString(code.retryAfterSeconds())));
    }
}
