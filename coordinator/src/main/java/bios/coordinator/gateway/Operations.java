package bios.coordinator.gateway;

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
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;

/// Hands operations to runs, and finds checkpoints.
final class Operations {
    private final Backend backend;

    Operations(Backend backend) {
        this.backend = backend;
    }

    /// Submits an operation; the answer names its future.
    ///
    /// @param suffix what is put behind the request id, see [FutureId]
    CompletionStage<Reply> submit(Call call, RunId run, long seq, Operation operation, String suffix) {
        byte[] encoded = StoredOperations.encode(operation);
        String digest = StoredOperations.digest(encoded);
        return store(call, run, seq, OperationKind.of(operation), encoded)
                .thenCompose(stored -> backend.run(call.account(), run, RunReply.Accepted.class, replyTo ->
                        new RunCommand.Submit(call.account(), seq, stored, digest, backend.clock().millis(),
                                replyTo)).whenComplete((_, failed) -> unstore(stored, failed)))
                .thenApply(accepted -> Answers.future(accepted.request() + suffix, run));
    }

    /// Large operations become blobs; the run is asked first, so that nothing is written under another's.
    private CompletionStage<StoredOperation> store(Call call, RunId run, long seq, OperationKind kind,
            byte[] encoded) {
        if (encoded.length <= StoredOperation.INLINE_LIMIT)
            return CompletableFuture.completedStage(new StoredOperation.Inline(kind, encoded));
        return backend.describe(run, call.account()).thenCompose(_ -> backend.blocking(() -> {
            BlobRef blob = backend.blobs().put(BlobScope.operation(run, seq), encoded);
            return new StoredOperation.InBlob(kind, blob);
        }));
    }

    /// What was refused because the number is another operation's has another digest than that
    /// one: its blob is nobody's.
    private void unstore(StoredOperation stored, Throwable failed) {
        if (failed != null && stored instanceof StoredOperation.InBlob(_, var blob)
                && Backend.cause(failed) instanceof Refusal refusal && refusal.code() == Code.CONFLICT)
            backend.blocking(() -> {
                backend.blobs().delete(blob.id());
                return null;
            });
    }

    /// The checkpoint at a path, as it is now.
    CompletionStage<CheckpointManifest> resolve(String account, CheckpointPath path) {
        return backend.run(account, path.run(), RunReply.Resolved.class, replyTo ->
                new RunCommand.Resolve(account, path, replyTo)).thenApply(RunReply.Resolved::manifest);
    }
}
