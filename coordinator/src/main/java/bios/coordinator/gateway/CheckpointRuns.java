package bios.coordinator.gateway;

import bios.protocol.Fault;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunId;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.Function;
import java.util.function.Supplier;

/// Runs that are made for one checkpoint: they load its weights, save them, and are unloaded, so that nothing
/// is trained in them.
final class CheckpointRuns {
    /// The numbers of their operations.
    static final long LOAD = 1;
    static final long SAVE = 2;
    private final GatewayServices services;

    CheckpointRuns(GatewayServices services) {
        this.services = services;
    }

    /// A checkpoint to be made.
    ///
    /// @param parent of the run
    /// @param field of the request that names the run
    /// @param source field of the request, or file, with the weights
    /// @param another what a caller does for whom no checkpoint can be made of this run
    /// @param again what a caller does to wait on
    /// @param submit creates the run and submits [#LOAD] and [#SAVE]; what is there of these already is found
    record Order(RunId run, CheckpointName name, Optional<String> parent, String field, String source,
            String another, String again, Supplier<CompletionStage<?>> submit) {}

    /// The checkpoint of an order. A request that is repeated goes on where the one before has ended.
    CompletionStage<CheckpointManifest> make(ApiRequest call, Order order) {
        return services.describe(order.run(), call.account()).handle((described, failed) ->
                failed == null || isMissing(failed) ? make(call, order, Optional.ofNullable(described))
                        : CompletableFuture.<CheckpointManifest>failedStage(failed))
                .thenCompose(Function.identity());
    }

    private CompletionStage<CheckpointManifest> make(ApiRequest call, Order order,
            Optional<RunReply.Described> begun) {
        if (begun.filter(run -> !run.config().parent().equals(order.parent())).isPresent())
            throw new ApiException(ErrorCode.CONFLICT, order.field(), "is that of other weights; "
                    + order.another());
        Optional<CheckpointManifest> made = begun.flatMap(run -> run.checkpoints().stream()
                .filter(c -> c.name().filter(order.name()::equals).isPresent()).findFirst());
        if (made.isPresent()) return unloaded(call, made.get());
        if (begun.filter(RunReply.Described::closed).isPresent())
            throw new ApiException(ErrorCode.CONFLICT, order.field(), "is that of weights which were refused,"
                    + " or whose checkpoint was deleted since; " + order.another());
        CompletionStage<RunReply> outcome = begun.isEmpty() ? submitted(call, order)
                : outcome(call, order).exceptionallyCompose(failed -> isMissing(failed)
                        ? submitted(call, order) : CompletableFuture.failedStage(failed));
        return outcome.thenCompose(reply -> finished(call, order, reply));
    }

    private static boolean isMissing(Throwable failed) {
        return GatewayServices.cause(failed) instanceof ApiException error
                && error.code() == ErrorCode.NOT_FOUND;
    }

    private CompletionStage<RunReply> submitted(ApiRequest call, Order order) {
        return order.submit().get().thenCompose(_ -> outcome(call, order));
    }

    private CompletionStage<RunReply> outcome(ApiRequest call, Order order) {
        var wait = services.settings().longPoll();
        return services.run(call.account(), order.run(), replyTo -> new RunCommand.Retrieve(call.account(),
                SAVE, wait.toMillis(), replyTo), wait.plus(services.settings().askTimeout()));
    }

    private CompletionStage<CheckpointManifest> finished(ApiRequest call, Order order, RunReply outcome) {
        return switch (outcome) {
            case RunReply.Completed(_, OperationResult.Saved(var manifest)) -> unloaded(call, manifest);
            case RunReply.Failed(_, var why) when why.kind() == Fault.Kind.USER ->
                unload(call, order.run()).thenApply(_ -> {
                    throw new ApiException(ErrorCode.INVALID, order.source(), why.message());
                });
            case RunReply.Failed(_, var why) -> throw ApiException.of(why);
            case RunReply.Stalled(_, var why) -> throw new ApiException(ErrorCode.UNAVAILABLE,
                    "the weights are not loaded yet: " + why.message() + "; " + order.again());
            default -> throw new ApiException(ErrorCode.UNAVAILABLE,
                    "the weights are being loaded; " + order.again() + " for the path");
        };
    }

    private CompletionStage<CheckpointManifest> unloaded(ApiRequest call, CheckpointManifest made) {
        return unload(call, made.run()).thenApply(_ -> made);
    }

    private CompletionStage<RunReply.Done> unload(ApiRequest call, RunId run) {
        return services.run(call.account(), run, RunReply.Done.class,
                replyTo -> new RunCommand.Unload(call.account(), replyTo));
    }
}
