package bios.coordinator.gateway;

import java.util.Locale;

/// The error codes of refused requests with their HTTP status. docs/reference/errors.md documents each.
enum ErrorCode {
    MALFORMED_JSON(400), MALFORMED_BODY(400), INVALID(400), UNSUPPORTED(400), WEIGHTS_ONLY(400),
    CONTEXT_LENGTH_EXCEEDED(400), NO_CHAT_TEMPLATE(400),
    CONFLICT(400), LIMIT_REACHED(400),
    RUN_CLOSED(400),
    UNAUTHENTICATED(401), READ_ONLY_KEY(403), OPERATORS_ONLY(403),
    NOT_FOUND(404), UNKNOWN_MODEL(404), LINK_EXPIRED(404), NO_SUCH_CALL(404),
    METHOD_NOT_ALLOWED(405), GONE(410), SNAPSHOT_EXPIRED(410), BODY_TOO_LARGE(413), NOT_JSON(415),
    UNSUPPORTED_ENCODING(415),
    QUEUE_FULL(429), BUSY(429), RATE_LIMITED(429),
    INTERNAL(500), BLOB_MISSING(500), BLOB_DAMAGED(500), RUN_DAMAGED(500), SESSION_DAMAGED(500),
    UNAVAILABLE(503), NO_WORKER(503);

    private final int status;

    ErrorCode(int status) {
        this.status = status;
    }

    /// The HTTP status.
    int status() {
        return status;
    }

    /// The code as responses contain it.
    String wireName() {
        return name().toLowerCase(Locale.ROOT);
    }

    /// Seconds after which the same request may succeed; 0 if repeating it does not help.
    int retryAfterSeconds() {
        return switch (this) {
            case QUEUE_FULL, BUSY, RATE_LIMITED -> 1;
            case UNAVAILABLE, NO_WORKER -> 2;
            default -> 0;
        };
    }
}
