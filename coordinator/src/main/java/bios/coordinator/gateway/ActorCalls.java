package bios.coordinator.gateway;

import bios.coordinator.Metrics;
import bios.protocol.Fault;
import bios.protocol.client.Answer;
import bios.protocol.client.Problem;
import bios.protocol.client.Request;
import bios.protocol.wire.ClientSerializer;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executor;
import java.util.function.LongConsumer;

/// Carries out the requests of the actor protocol with the endpoints of HTTP.
final class ActorCalls {
    /// Requests up to this size are decoded by the caller.
    private static final int SMALL = 1 << 14;
    private static final Map<String, String> HEADERS = Map.of("user-agent", "bios-java",
            "content-type", "application/vnd.bios.actors");

    private final Gateway.Dependencies parts;
    private final Executor readers;
    private final Admission admission;
    private final ActorForms forms;
    private final Map<String, Endpoint> endpoints = new HashMap<>();

    ActorCalls(Gateway.Dependencies parts, GatewaySettings settings, Executor readers,
            Admission admission, List<Endpoint> endpoints) {
        this.parts = parts;
        this.readers = readers;
        this.admission = admission;
        this.forms = new ActorForms(new JsonReader(settings.maxNesting(), settings.maxBodyBytes()));
        endpoints.forEach(endpoint ->
                this.endpoints.put(endpoint.method() + " " + String.join("/", endpoint.pattern()), endpoint));
    }

    /// Throws an [ApiException] if no account has this key.
    void checkKey(Optional<String> key) {
        admission.caller(key);
    }

    /// The encoded answer to an encoded request; the stage never fails.
    ///
    /// @param key is looked up again for each request, because keys are taken away
    /// @param heap is told the bytes that the request takes before they are taken
    CompletionStage<byte[]> answer(Optional<String> key, byte[] request, LongConsumer heap) {
        String id = parts.ids().get().toString();
        CompletionStage<Answer> answer = request.length <= SMALL ? answer(id, key, request, heap)
                : CompletableFuture.supplyAsync(() -> answer(id, key, request, heap), readers)
                        .thenCompose(stage -> stage);
        return answer.exceptionally(failed -> new Answer.Refused(problem(id, failed)))
                .thenApply(ClientSerializer::encode);
    }

    private CompletionStage<Answer> answer(String id, Optional<String> key, byte[] encoded,
            LongConsumer heap) {
        try {
            Request request = decode(encoded, heap);
            ActorForms.Form form = forms.of(request);
            Endpoint endpoint = endpoints.get(form.method() + " " + form.pattern());
            var call = new ApiRequest(id, admission.of(endpoint, key), form.pathParameters(), form.query(),
                    HEADERS, form.body(), heap, Optional.empty());
            Metrics.ACTOR_REQUESTS.labelValues(request.getClass().getSimpleName()).inc();
            CompletionStage<ApiResponse> response = HttpHandler.callHandler(() ->
                    endpoint.handler().answer(call));
            return (endpoint.readsBody() ? ApiException.withField(call, response) : response)
                    .thenApply(ActorCalls::typed);
        } catch (RuntimeException refused) {
            return CompletableFuture.failedStage(refused);
        }
    }

    private static Request decode(byte[] encoded, LongConsumer heap) {
        try {
            if (ClientSerializer.decode(encoded, heap) instanceof Request request) return request;
        } catch (ApiException refused) { // the heap
            throw refused;
        } catch (RuntimeException wrong) { // Kryo, and the constructors of records
            throw new ApiException(ErrorCode.MALFORMED_BODY, "the request cannot be read: "
                    + wrong.getMessage() + "; the client may be of a newer version");
        }
        throw new ApiException(ErrorCode.MALFORMED_BODY,
                "the payload is not a request of the actor protocol");
    }

    private static Answer typed(ApiResponse response) {
        return switch (response) {
            case ApiResponse.Typed(var typed, _) -> typed.get();
            case ApiResponse.NoContent _ -> new Answer.Done();
            case ApiResponse.JsonBody(int status, _, _) when status == 200 -> new Answer.Done();
            case ApiResponse.JsonBody _, ApiResponse.JsonStream _, ApiResponse.Binary _,
                    ApiResponse.ByteStream _, ApiResponse.Streamed _, ApiResponse.Redirect _ ->
                    throw new IllegalStateException("the endpoint has no answer for actors");
        };
    }

    /// Why a request is refused.
    static Problem problem(String id, Throwable failed) {
        ApiException error = HttpHandler.error(id, failed);
        ErrorCode code = error.code();
        return new Problem(code.status() < 500 ? Fault.Kind.USER : Fault.Kind.SERVER, error.wireCode(),
                error.getMessage(), error.field(), Optional.of(id), code.retryAfterSeconds());
    }
}
