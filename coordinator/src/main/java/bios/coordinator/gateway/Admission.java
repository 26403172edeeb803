package bios.coordinator.gateway;

import bios.coordinator.gateway.Accounts.Caller;
import java.util.Optional;

/// Authenticates callers, and admits a request if its key is good for the endpoint and its account has not
/// sent too many. HTTP and the actor protocol of a coordinator share one.
final class Admission {
    private final Callers callers;
    private final RequestRates rates;

    Admission(Callers callers, RequestRates rates) {
        this.callers = callers;
        this.rates = rates;
    }

    /// The sender of a key or token; throws an [ApiException] if it is unknown.
    Caller caller(Optional<String> credential) {
        return callers.of(credential).orElseThrow(() -> new ApiException(ErrorCode.UNAUTHENTICATED,
                credential.isPresent() ? "the key in X-API-Key or Authorization is unknown"
                        : "this service needs a key; send it as X-API-Key or as Authorization: Bearer"));
    }

    /// The caller, if its key is good for the endpoint and its account has not sent too many requests.
    Caller of(Endpoint endpoint, Optional<String> credential) {
        Caller caller = caller(credential);
        rates.count(caller.account());
        if (endpoint.changes() && caller.scope() == ApiKey.Scope.READ)
            throw new ApiException(ErrorCode.READ_ONLY_KEY, "the key is for reading only (scope read); this"
                    + " call creates, changes or deletes something");
        return caller;
    }
}
