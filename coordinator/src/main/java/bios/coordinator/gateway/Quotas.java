package bios.coordinator.gateway;

import bios.coordinator.OwnerLimits;
import bios.persistence.index.RunSummary;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.run.RunId;
import java.time.Duration;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.LongSupplier;

/// Keeps accounts within the limits of their runs and of the bytes that they store, as the index shows them.
final class Quotas {
    private static final int REMEMBERED = 10_000;
    private final GatewayServices services;
    private final OwnerLimits limits;
    /// The index shows a run within this time, if it is listed at all.
    private static final Duration SHOWN_AFTER = Duration.ofMinutes(1);
    /// Runs that were created here lately, which the index may not show yet.
    private final Map<RunId, Created> created = LruMap.of(REMEMBERED);

    private record Created(String account, long atMillis) {}

    Quotas(GatewayServices services) {
        this.services = services;
        this.limits = services.settings().limits();
    }

    /// Fails if the account has as many runs as it may have, apart from `run`.
    CompletionStage<Void> checkRuns(String account, RunId run) {
        long most = limits.of(account).runs();
        if (most == 0) return CompletableFuture.completedStage(null);
        return services.<Void>runBlocking(() -> {
            Set<RunId> open = new HashSet<>();
            Set<RunId> listed = new HashSet<>();
            services.index().allRuns(account).forEach(summary -> {
                listed.add(summary.config().run());
                if (!summary.closed()) open.add(summary.config().run());
            });
            long now = services.clock().millis();
            synchronized (created) {
                created.forEach((id, made) -> {
                    if (made.account.equals(account) && !listed.contains(id)
                            && now - made.atMillis < SHOWN_AFTER.toMillis()) open.add(id);
                });
            }
            open.remove(run);
            if (open.size() >= most) throw new ApiException(ErrorCode.LIMIT_REACHED, "account '" + account
                    + "' has " + open.size() + " runs, and " + most + " is its limit"
                    + " (bios.gateway.limits.runs); unload those that are finished, their checkpoints stay");
            created.put(run, new Created(account, now));
            return null;
        });
    }

    /// Fails if the account stores as many bytes as it may store.
    CompletionStage<Void> checkStored(String account) {
        return checkStored(account, () -> 0);
    }

    /// The same, where it wants to store more.
    ///
    /// @param more bytes that the index does not show; counted only for an account with a limit, may block
    CompletionStage<Void> checkStored(String account, LongSupplier more) {
        long most = limits.of(account).storedBytes();
        if (most == 0) return CompletableFuture.completedStage(null);
        return services.<Void>runBlocking(() -> {
            long now = services.clock().millis();
            long bytes = more.getAsLong()
                    + services.index().allRuns(account).mapToLong(run -> stored(run, now)).sum();
            if (bytes >= most) throw new ApiException(ErrorCode.LIMIT_REACHED, "account '" + account
                    + "' stores " + bytes + " bytes of checkpoints and states of runs, and " + most
                    + " is its limit (bios.gateway.limits.stored-bytes); delete checkpoints or let them"
                    + " expire, and unload runs that are finished");
            return null;
        });
    }

    /// Bytes of the checkpoints of a run that have not expired, and of its state.
    static long stored(RunSummary run, long nowMillis) {
        return run.stateBytes().orElse(0L) + run.checkpoints().stream().filter(c ->
                c.expiresAtMillis().filter(at -> at <= nowMillis).isEmpty())
                .mapToLong(CheckpointManifest::bytes).sum();
    }
}
