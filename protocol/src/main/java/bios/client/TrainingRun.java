package bios.client;

import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.client.Answer;
import bios.protocol.client.Request;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Operation;
import bios.protocol.run.RunId;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.Consumer;
import java.util.function.LongFunction;

/// A training run. Its operations are executed in the order of the calls; they may be called without waiting
/// for each other. Thread-safe.
public final class TrainingRun {
    /// Of one answer; what is left comes with the next.
    private static final int MOST = 1000;
    private final BiosClient client;
    private final RunId id;
    private long nextSeq;
    private CompletionStage<Void> accepted = CompletableFuture.completedStage(null);

    TrainingRun(BiosClient client, RunId id, long nextSeq) {
        this.client = client;
        this.id = id;
        this.nextSeq = nextSeq;
    }

    /// The id of the run.
    public RunId id() {
        return id;
    }

    /// The number of the next operation: a program that was killed goes on with it.
    public synchronized long nextSeq() {
        return nextSeq;
    }

    /// Adds the gradient of the batch's loss to the run's gradient sum.
    public CompletionStage<Answer.Evaluated> forwardBackward(Batch batch) {
        return submit(Answer.Evaluated.class, batch.operation(false));
    }

    /// Evaluates the batch and changes nothing.
    public CompletionStage<Answer.Evaluated> forward(Batch batch) {
        return submit(Answer.Evaluated.class, batch.operation(true));
    }

    /// Applies the gradient sum and clears it.
    public CompletionStage<Answer.Stepped> optimStep(AdamParams params) {
        return submit(Answer.Stepped.class, new Operation.OptimStep(Optional.of(params)));
    }

    /// Saves weights, moments, step and settings under a name.
    public CompletionStage<Answer.Saved> saveState(String name) {
        return submit(Answer.Saved.class, new Operation.SaveState(new CheckpointName(name), "{}",
                Optional.empty()));
    }

    /// Saves the weights under a name, to sample from.
    public CompletionStage<Answer.Saved> saveSamplerWeights(String name) {
        return submit(Answer.Saved.class, new Operation.SaveSamplerWeights(
                Optional.of(new CheckpointName(name)), Optional.empty(), Optional.empty()));
    }

    /// A sampler of the weights after the operations so far.
    public CompletionStage<Sampler> sampler() {
        return submit(Answer.Saved.class, 0, seq -> new Request.Snapshot(id.value(), seq,
                BiosClient.number(new Request.Snapshot(id.value(), seq, 0))))
                .thenApply(saved -> new Sampler(client, saved.sampler().orElseThrow()));
    }

    /// Replaces the state of the run by a checkpoint's.
    ///
    /// @param optimizer whether moments, step and settings are loaded too
    public CompletionStage<Answer.Loaded> loadState(String path, boolean optimizer) {
        return submit(Answer.Loaded.class, new Operation.LoadState(CheckpointPath.parse(path), optimizer));
    }

    /// Submits any operation.
    ///
    /// @param expected type of its result
    public <A extends Answer> CompletionStage<A> submit(Class<A> expected, Operation operation) {
        return submit(expected, bytes(operation), seq -> new Request.Submit(id.value(), seq, operation));
    }

    /// The bytes of a batch.
    private static long bytes(Operation operation) {
        return operation instanceof Operation.ForwardBackward pass ? pass.data().stream().mapToLong(datum ->
                (long) Integer.BYTES * datum.tokens().length + datum.lossInputs().values().stream()
                        .mapToLong(tensor -> tensor.data().length).sum()).sum() : 0;
    }

    /// @param bytes that the request holds in memory until it is accepted
    private synchronized <A extends Answer> CompletionStage<A> submit(Class<A> expected, long bytes,
            LongFunction<Request> request) {
        Optional<BiosException> full = client.hold(bytes);
        if (full.isPresent()) return CompletableFuture.failedStage(full.get());
        long seq = nextSeq++;
        CompletionStage<Void> before = accepted;
        var mine = new CompletableFuture<Void>();
        mine.whenComplete((_, _) -> client.release(bytes));
        // The service accepts the operations of a run in the order of the calls.
        accepted = mine;
        CompletionStage<A> result = client.limited(() -> before
                .thenCompose(_ -> client.ask(Answer.Submitted.class, request.apply(seq)))
                .whenComplete((_, _) -> mine.complete(null))
                .thenCompose(sent -> client.result(expected, sent.request())));
        // It may never have been sent; the operations before it have to be accepted all the same.
        result.whenComplete((_, _) -> before.thenRun(() -> mine.complete(null)));
        return result;
    }

    /// The run now.
    public CompletionStage<Answer.Run> describe() {
        return client.ask(Answer.Run.class, new Request.DescribeRun(id.value()));
    }

    /// The checkpoints of the run, the newest first.
    public CompletionStage<List<Answer.Checkpoint>> checkpoints() {
        return client.ask(Answer.Checkpoints.class,
                new Request.ListCheckpoints(Optional.of(id.value()), 0, 0, Map.of()))
                .thenApply(Answer.Checkpoints::checkpoints);
    }

    /// The newest entries of the run's history, the newest last.
    public CompletionStage<List<Answer.HistoryEntry>> history(int most) {
        return client.ask(Answer.History.class, new Request.History(id.value(), most, Optional.empty()))
                .thenApply(Answer.History::entries);
    }

    /// The entries of the run's history after a number, when there are some; empty if none came for a while.
    public CompletionStage<List<Answer.HistoryEntry>> historyAfter(long number) {
        return client.follow(Answer.History.class, new Request.History(id.value(), MOST,
                Optional.of(number))).thenApply(Answer.History::entries).thenApply(entries -> {
                    if (entries.stream().anyMatch(entry -> entry.number().isEmpty()))
                        throw BiosException.Refused.olderGateway("has no subscriptions");
                    return entries;
                });
    }

    /// What the newest operations of the run have reported, the newest last. The service keeps this in
    /// memory only.
    public CompletionStage<List<Answer.OperationMetrics>> metrics(int most) {
        return client.ask(Answer.Metrics.class, new Request.Metrics(id.value(), most, Optional.empty()))
                .thenApply(Answer.Metrics::operations);
    }

    /// What the operations after a position have reported, when some have finished; empty if none did for a
    /// while.
    public CompletionStage<List<Answer.OperationMetrics>> metricsAfter(long position) {
        return client.follow(Answer.Metrics.class, new Request.Metrics(id.value(), MOST,
                Optional.of(position))).thenApply(Answer.Metrics::operations);
    }

    /// Subscribes to the history of the run.
    ///
    /// @param after the number of the last entry that is known; 0: `listener` gets what is kept, then each
    ///     entry that is added
    public Subscription onHistory(long after, Consumer<Answer.HistoryEntry> listener) {
        return Subscription.start(this::historyAfter, entry -> entry.number().orElseThrow(), after, listener);
    }

    /// Subscribes to the metrics of the run's operations.
    ///
    /// @param after the position of the last operation that is known; 0: `listener` gets what is kept, then
    ///     what each operation reports when it has finished
    public Subscription onMetrics(long after, Consumer<Answer.OperationMetrics> listener) {
        return Subscription.start(this::metricsAfter, Answer.OperationMetrics::number, after, listener);
    }

    /// Tries the operation that is set aside now again, with those that wait for it. The run is asked first
    /// which one it is: a call that is repeated may be about another one.
    public CompletionStage<Void> tryAgain() {
        return describe().thenCompose(run ->
                tryAgain(run.waiting().filter(Answer.Waiting::setAside).map(Answer.Waiting::seq)));
    }

    /// Tries an operation again. Does nothing if that was done before; fails with `conflict` if the operation
    /// was given up.
    ///
    /// @param seq its number, as in [Answer.Waiting]
    public CompletionStage<Void> tryAgain(long seq) {
        return tryAgain(Optional.of(seq));
    }

    private CompletionStage<Void> tryAgain(Optional<Long> seq) {
        return client.ask(Answer.Done.class, new Request.TryAgain(id.value(), seq)).thenApply(_ -> null);
    }

    /// Fails the operation that is set aside now, or that waits in vain ([Answer.Waiting]). The run is asked
    /// first which one it is: a call that is repeated may be about another one.
    public CompletionStage<Void> giveUp() {
        return describe().thenCompose(run -> giveUp(run.waiting().map(Answer.Waiting::seq)));
    }

    /// Fails an operation. Does nothing if it has failed; fails with `conflict` if it has succeeded, or is
    /// not the one that can be given up.
    ///
    /// @param seq its number, as in [Answer.Waiting]
    public CompletionStage<Void> giveUp(long seq) {
        return giveUp(Optional.of(seq));
    }

    private CompletionStage<Void> giveUp(Optional<Long> seq) {
        return client.ask(Answer.Done.class, new Request.GiveUp(id.value(), seq)).thenApply(_ -> null);
    }

    /// Closes the run for good; its checkpoints stay.
    public CompletionStage<Void> unload() {
        return client.ask(Answer.Submitted.class, new Request.Unload(id.value()))
                .thenCompose(sent -> client.result(Answer.Unloaded.class, sent.request()))
                .thenApply(_ -> null);
    }
}
