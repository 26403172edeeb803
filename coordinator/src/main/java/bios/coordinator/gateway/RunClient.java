package bios.coordinator.gateway;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationKind;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;
import java.nio.charset.StandardCharsets;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;

/// Submits operations to runs and resolves checkpoints.
final class RunClient {
    private final GatewayServices services;

    RunClient(GatewayServices services) {
        this.services = services;
    }

    /// Submits an operation; the response contains its request id.
    ///
    /// @param suffix suffix of the request id, see [FutureId]
    CompletionStage<ApiResponse> submit(ApiRequest call, RunId run, long seq, Operation operation,
            String suffix) {
        byte[] encoded = StoredOperations.encode(operation);
        String digest = StoredOperations.digest(encoded);
        return store(call, run, seq, OperationKind.of(operation), encoded)
                .thenCompose(stored -> services.run(call.account(), run, RunReply.Accepted.class, replyTo ->
                        new RunCommand.Submit(call.account(), seq, stored, digest, services.clock().millis(),
                                replyTo)).whenComplete((_, failed) -> unstore(stored, failed)))
                .thenApply(accepted -> ResponseBodies.future(accepted.request() + suffix, run));
    }

    /// Submits a small operation that names a blob of its own, so that a repetition has other bytes.
    ///
    /// @param identity the same for a repetition and for nothing else
    CompletionStage<RunReply.Accepted> submitOnce(ApiRequest call, RunId run, long seq, Operation operation,
            String identity) {
        String digest = StoredOperations.digest(identity.getBytes(StandardCharsets.UTF_8));
        return services.run(call.account(), run, RunReply.Accepted.class, replyTo -> new RunCommand.Submit(
                call.account(), seq, StoredOperations.inline(operation), digest, services.clock().millis(),
                replyTo));
    }

    /// Submits an operation that cannot be executed because of `why`: it fails at its place in the order.
    CompletionStage<ApiResponse> submitRefused(ApiRequest call, RunId run, long seq, OperationKind kind,
            Fault why, String suffix) {
        String digest = StoredOperations.digest((kind + why.code() + why.message())
                .getBytes(StandardCharsets.UTF_8));
        return services.run(call.account(), run, RunReply.Accepted.class, replyTo ->
                new RunCommand.Submit(call.account(), seq, new StoredOperation.Refused(kind, why), digest,
                        services.clock().millis(), replyTo))
                .thenApply(accepted -> ResponseBodies.future(accepted.request() + suffix, run));
    }

    /// Stores a large operation as a blob. The owner is checked first, so that nothing is written in the
    /// scope of another account's run.
    private CompletionStage<StoredOperation> store(ApiRequest call, RunId run, long seq, OperationKind kind,
            byte[] encoded) {
        if (encoded.length <= StoredOperation.INLINE_LIMIT)
            return CompletableFuture.completedStage(new StoredOperation.Inline(kind, encoded));
        return services.checkOwner(run, call.account()).thenCompose(_ -> services.runBlocking(() -> {
            String request = UUID.randomUUID().toString(); // edge: a unique name
            String scope = BlobScope.operation(run, seq, services.clock().millis(), request);
            BlobRef blob = services.blobs().put(scope, encoded);
            return new StoredOperation.InBlob(kind, blob);
        }));
    }

    /// Deletes the blob of an operation that was refused because its number is used by another operation: the
    /// digests differ, so nothing else refers to the blob.
    private void unstore(StoredOperation stored, Throwable failed) {
        if (failed != null && stored instanceof StoredOperation.InBlob(_, var blob)
                && GatewayServices.cause(failed) instanceof ApiException error
                && error.code() == ErrorCode.CONFLICT)
            services.runBlocking(() -> {
                services.blobs().delete(blob.id());
                return null;
            });
    }

    /// The current checkpoint at a path.
    CompletionStage<CheckpointManifest> resolve(String account, CheckpointPath path) {
        return services.run(account, path.run(), RunReply.Resolved.class, replyTo ->
                new RunCommand.Resolve(account, path, replyTo)).thenApply(RunReply.Resolved::manifest);
    }
}
