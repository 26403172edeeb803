package bios.coordinator.gateway;

import bios.coordinator.run.Checkpoints;
import bios.protocol.Fault;
import bios.protocol.Invalid;
import bios.protocol.run.RunCommand;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;

/// Ends the handling of a request with an error response. It never leaves the gateway.
final class ApiException extends RuntimeException {
    private static final long serialVersionUID = 1;
    private final ErrorCode code;
    private final String wireCode;
    private final String field;
    private final transient Set<String> allowed;
    private boolean aboutSession;

    private ApiException(ErrorCode code, String wireCode, String field, String message) {
        this(code, wireCode, field, message, Set.of());
    }

    private ApiException(ErrorCode code, String wireCode, String field, String message, Set<String> allowed) {
        super(message, null, false, false);
        this.allowed = allowed;
        this.code = code;
        this.wireCode = wireCode;
        this.field = field;
    }

    ApiException(ErrorCode code, String message) {
        this(code, code.wireName(), null, message);
    }

    ApiException(ErrorCode code, String field, String message) {
        this(code, code.wireName(), field, field + ": " + message);
    }

    /// The path exists, but not with this method.
    static ApiException methodNotAllowed(Set<String> allowed, String method) {
        return new ApiException(ErrorCode.METHOD_NOT_ALLOWED, ErrorCode.METHOD_NOT_ALLOWED.wireName(), null,
                "this endpoint accepts " + String.join(" or ", allowed) + ", not " + method, allowed);
    }

    static ApiException of(Invalid invalid) {
        return new ApiException(ErrorCode.INVALID, ErrorCode.INVALID.wireName(), invalid.field(),
                invalid.getMessage());
    }

    /// A fault of another part of the service; the response keeps its code.
    static ApiException of(Fault fault) {
        ErrorCode code = switch (fault.kind()) {
            case USER -> switch (fault.code()) {
                case "not_found" -> ErrorCode.NOT_FOUND;
                case Checkpoints.SNAPSHOT_EXPIRED -> ErrorCode.SNAPSHOT_EXPIRED;
                case "limit_reached" -> ErrorCode.LIMIT_REACHED;
                case "queue_full", "too_many" -> ErrorCode.QUEUE_FULL;
                default -> ErrorCode.INVALID;
            };
            case SERVER -> switch (fault.code()) {
                case "queue_full" -> ErrorCode.QUEUE_FULL;
                case "session_damaged" -> ErrorCode.SESSION_DAMAGED;
                default -> ErrorCode.UNAVAILABLE;
            };
        };
        return new ApiException(code, fault.code(), null, fault.message());
    }

    static ApiException of(RunCommand.RunReply.Refused refused) {
        ErrorCode code = switch (refused.reason()) {
            case NOT_FOUND -> ErrorCode.NOT_FOUND;
            case CONFLICT -> ErrorCode.CONFLICT;
            case CLOSED -> ErrorCode.RUN_CLOSED;
            case TOO_MANY -> ErrorCode.QUEUE_FULL;
            case UNAVAILABLE -> ErrorCode.UNAVAILABLE;
            case INVALID -> ErrorCode.INVALID;
            case LIMIT -> ErrorCode.LIMIT_REACHED;
            case EXPIRED -> ErrorCode.SNAPSHOT_EXPIRED;
            case DAMAGED -> ErrorCode.RUN_DAMAGED;
        };
        return new ApiException(code, refused.message());
    }

    /// The same stage; an [ApiException] without a field gets the field of the body that names its subject.
    static <T> CompletionStage<T> withField(ApiRequest call, CompletionStage<T> reply) {
        return reply.exceptionallyCompose(failed -> CompletableFuture.failedStage(
                GatewayServices.cause(failed) instanceof ApiException error && error.field == null
                        ? error.withFieldOf(call) : failed));
    }

    private ApiException withFieldOf(ApiRequest call) {
        List<String> subjects = switch (code) {
            case NOT_FOUND, RUN_CLOSED, SNAPSHOT_EXPIRED -> aboutSession
                    ? List.of("sampling_session_id", "session_id")
                    : List.of("request_id", "model_id", "path", "model_path", "tinker_path");
            case CONFLICT -> List.of("seq_id");
            default -> List.of();
        };
        return subjects.stream().filter(call::bodyHas).findFirst().map(this::withField).orElse(this);
    }

    /// Marks this exception as about a session, and returns it.
    ApiException aboutSession() {
        aboutSession = true;
        return this;
    }

    /// A copy with a field.
    ApiException withField(String subject) {
        return new ApiException(code, wireCode, subject, subject + ": " + getMessage(), allowed);
    }

    ErrorCode code() {
        return code;
    }

    String wireCode() {
        return wireCode;
    }

    /// The allowed methods, for a 405.
    Set<String> allowed() {
        return allowed;
    }

    Optional<String> field() {
        return Optional.ofNullable(field);
    }
}
