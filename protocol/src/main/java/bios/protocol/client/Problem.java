package bios.protocol.client;

import bios.protocol.Fault;
import java.util.Optional;

/// Why a request was refused or an operation failed, with the codes of docs/reference/errors.md.
///
/// @param kind who has to act
/// @param field path of the wrong value, as in the JSON of the same request
/// @param request id of the refused request, as in the service's log
/// @param retryAfterSeconds after which the same request may succeed; 0: repeating it does not help
public record Problem(Fault.Kind kind, String code, String message, Optional<String> field,
        Optional<String> request, int retryAfterSeconds) {
    /// A failed operation.
    public static Problem of(Fault fault) {
        String code = fault.code();
        return new Problem(fault.kind(), code, fault.message(), Optional.empty(), Optional.empty(), 0);
    }
}
