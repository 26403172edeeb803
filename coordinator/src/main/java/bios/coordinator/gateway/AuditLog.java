package bios.coordinator.gateway;

import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.owner.OwnerCommand;
import bios.protocol.owner.OwnerCommand.AuditEntry;
import bios.protocol.run.RunId;
import java.util.Optional;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Writes the audit logs of accounts: each event after the request was executed and before it is answered.
/// The methods return the stage that is put between both. If an audit log cannot be written, the process logs
/// the entry, and the request is answered.
final class AuditLog {
    private static final Logger LOG = LoggerFactory.getLogger(AuditLog.class);
    /// An answer does not wait longer for the log, which is written nevertheless if it answers later.
    private static final long MOST_WAIT_SECONDS = 2;
    private final GatewayServices services;

    AuditLog(GatewayServices services) {
        this.services = services;
    }

    /// Records an event of a run.
    <T> Function<T, CompletionStage<T>> record(ApiRequest call, String event, RunId run) {
        return record(call, event, Optional.of(run), Optional.empty(), "");
    }

    /// Records an event of a checkpoint.
    <T> Function<T, CompletionStage<T>> record(ApiRequest call, String event, CheckpointPath path) {
        return record(call, event, Optional.of(path.run()), Optional.of(path), "");
    }

    /// Records an event whose request a client may send again.
    ///
    /// @param key the entry is written once for each key
    <T> Function<T, CompletionStage<T>> record(ApiRequest call, String event, Optional<RunId> run,
            Optional<CheckpointPath> path, String key) {
        return reply -> {
            var entry = new AuditEntry(services.clock().millis(), event, run.map(RunId::value),
                    path.map(CheckpointPath::biosUri), call.caller().keyId());
            return services.owner(call.account(), replyTo -> new OwnerCommand.Record(entry, key, replyTo))
                    .handle((_, failed) -> {
                        if (failed != null) LOG.warn("the audit log of account {} cannot be written ({}): {}",
                                call.account(), failed.toString(), entry);
                        return reply;
                    }).toCompletableFuture().completeOnTimeout(reply, MOST_WAIT_SECONDS,
                            TimeUnit.SECONDS);
        };
    }
}
