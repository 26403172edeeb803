package bios.coordinator.gateway;

import bios.protocol.Fault;
import bios.protocol.Invalid;
import bios.protocol.run.RunCommand;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;

/// Ends the handling of a request with a problem for the caller. It never leaves the gateway.
final class Refusal extends RuntimeException {
    private static final long serialVersionUID = 1;
    private final Code code;
    private final String word;
    private final String field;
    private final transient Set<String> allowed;
    private boolean aboutSession;

    private Refusal(Code code, String word, String field, String message) {
        this(code, word, field, message, Set.of());
    }

    private Refusal(Code code, String word, String field, String message, Set<String> allowed) {
        super(message, null, false, false);
        this.allowed = allowed;
        this.code = code;
        this.word = word;
        this.field = field;
    }

    Refusal(Code code, String message) {
        this(code, code.wireName(), null, message);
    }

    Refusal(Code code, String field, String message) {
        this(code, code.wireName(), field, field + ": " + message);
    }

    /// A call that exists, but not with this method.
    static Refusal methods(Set<String> allowed, String method) {
        return new Refusal(Code.METHOD_NOT_ALLOWED, Code.METHOD_NOT_ALLOWED.wireName(), null,
                "this call takes " + String.join(" or ", allowed) + ", not " + method, allowed);
    }

    static Refusal of(Invalid invalid) {
        return new Refusal(Code.INVALID, Code.INVALID.wireName(), invalid.field(), invalid.getMessage());
    }

    /// A fault that another part gave, with that part's own word.
    static Refusal of(Fault fault) {
        Code code = switch (fault.kind()) {
            case USER -> switch (fault.code()) {
                case "not_found" -> Code.NOT_FOUND;
                case "queue_full", "too_many" -> Code.QUEUE_FULL;
                default -> Code.INVALID;
            };
            case SERVER -> fault.code().equals("queue_full") ? Code.QUEUE_FULL : Code.UNAVAILABLE;
        };
        return new Refusal(code, fault.code(), null, fault.message());
    }

    static Refusal of(RunCommand.RunReply.Refused refused) {
        Code code = switch (refused.reason()) {
            case NOT_FOUND -> Code.NOT_FOUND;
            case CONFLICT -> Code.CONFLICT;
            case CLOSED -> Code.RUN_CLOSED;
            case TOO_MANY -> Code.QUEUE_FULL;
            case UNAVAILABLE -> Code.UNAVAILABLE;
            case INVALID -> Code.INVALID;
        };
        return new Refusal(code, refused.message());
    }

    /// The same reply; a refusal that names no field gets the one of the body that it is about.
    static <T> CompletionStage<T> located(Call call, CompletionStage<T> reply) {
        return reply.exceptionallyCompose(failed -> CompletableFuture.failedStage(
                Backend.cause(failed) instanceof Refusal refusal && refusal.field == null
                        ? refusal.locatedIn(call) : failed));
    }

    private Refusal locatedIn(Call call) {
        List<String> subjects = switch (code) {
            case NOT_FOUND, RUN_CLOSED -> aboutSession ? List.of("sampling_session_id", "session_id")
                    : List.of("request_id", "model_id", "path", "model_path", "tinker_path");
            case CONFLICT -> List.of("seq_id");
            default -> List.of();
        };
        return subjects.stream().filter(call::has).findFirst().map(this::about).orElse(this);
    }

    /// The same, known to be about a session.
    Refusal aboutSession() {
        aboutSession = true;
        return this;
    }

    /// The same about a field.
    Refusal about(String subject) {
        return new Refusal(code, word, subject, subject + ": " + getMessage(), allowed);
    }

    Code code() {
        return code;
    }

    String word() {
        return word;
    }

    /// The methods that would do, for a 405.
    Set<String> allowed() {
        return allowed;
    }

    Optional<String> field() {
        return Optional.ofNullable(field);
    }
}
