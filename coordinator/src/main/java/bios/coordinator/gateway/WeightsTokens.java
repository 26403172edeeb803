package bios.coordinator.gateway;

import bios.protocol.checkpoint.CheckpointPath;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;

/// The field `weights_access_token`: a key of the account whose checkpoint another account loads or copies.
/// It opens nothing, because such a checkpoint has to be published; it is checked, so that a caller learns
/// why.
final class WeightsTokens {
    static final String FIELD = "weights_access_token";
    private final Callers callers;
    private final RunClient runs;

    WeightsTokens(Callers callers, RunClient runs) {
        this.callers = callers;
        this.runs = runs;
    }

    /// Fails if the token is of no account, or of another one and the caller may not read the checkpoint.
    CompletionStage<Void> check(ApiRequest call, CheckpointPath path, Optional<String> token) {
        if (token.isEmpty()) return CompletableFuture.completedStage(null);
        Accounts.Caller of = callers.of(token).orElseThrow(() -> new ApiException(
                ErrorCode.INVALID, FIELD, "is neither a key nor a token of this service"));
        if (of.account().equals(call.account())) return CompletableFuture.completedStage(null);
        return runs.resolve(call.account(), path).<Void>handle((_, failed) -> {
            if (failed != null) throw new ApiException(ErrorCode.UNSUPPORTED, FIELD, path + " belongs to"
                    + " another account: a run loads it only while it is published; ask its owner to");
            return null;
        });
    }
}
