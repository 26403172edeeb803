package bios.client;

import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.client.Answer;
import bios.protocol.client.Request;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Operation;
import bios.protocol.run.RunId;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Consumer;
import java.util.function.LongFunction;

/// A training run. Its operations are executed in the order of the calls; they may be called without waiting
/// for each other. Thread-safe.
public final class TrainingRun {
    private static final int NEWEST = 1000;
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
        long number = client.nextSampler();
        return submit(Answer.Saved.class, seq -> new Request.Snapshot(id.value(), seq, number))
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
        return submit(expected, seq -> new Request.Submit(id.value(), seq, operation));
    }

    private synchronized <A extends Answer> CompletionStage<A> submit(Class<A> expected,
            LongFunction<Request> request) {
        long seq = nextSeq++;
        CompletionStage<Void> before = accepted;
        var mine = new CompletableFuture<Void>();
        // The service accepts the operations of a run in the order of the calls.
        accepted = mine;
        CompletionStage<A> result = client.limited(() -> before
                .thenCompose(_ -> client.ask(Answer.Submitted.class, request.apply(seq)))
                .whenComplete((_, _) -> mine.complete(null))
                .thenCompose(sent -> client.result(expected, sent.request())));
        result.whenComplete((_, _) -> mine.complete(null)); // it may never have been sent
        return result;
    }

    /// The run now.
    public CompletionStage<Answer.Run> describe() {
        return client.ask(Answer.Run.class, new Request.DescribeRun(id.value()));
    }

    /// The checkpoints of the run, the newest first.
    public CompletionStage<List<Answer.Checkpoint>> checkpoints() {
        return client.ask(Answer.Checkpoints.class,
                new Request.ListCheckpoints(Optional.of(id.value()), 0, 0))
                .thenApply(Answer.Checkpoints::checkpoints);
    }

    /// The newest entries of the run's history, the newest last.
    public CompletionStage<List<Answer.HistoryEntry>> history(int most) {
        return client.ask(Answer.History.class, new Request.History(id.value(), most))
                .thenApply(Answer.History::entries);
    }

    /// Subscribes to the history of the run: `listener` gets the newest entries, then each that is added.
    ///
    /// @param interval how often the run is asked
    /// @return ends the subscription
    public AutoCloseable onHistory(Duration interval, Consumer<Answer.HistoryEntry> listener) {
        var open = new AtomicBoolean(true);
        follow(List.of(), interval, listener, open);
        return () -> open.set(false);
    }

    private void follow(List<Answer.HistoryEntry> seen, Duration interval,
            Consumer<Answer.HistoryEntry> listener, AtomicBoolean open) {
        history(NEWEST).whenComplete((now, failed) -> {
            if (!open.get() || BiosClient.cause(failed) instanceof BiosException.Disconnected) return;
            List<Answer.HistoryEntry> known = failed == null ? now : seen;
            if (failed == null) BiosStreams.added(seen, now).forEach(listener);
            CompletableFuture.delayedExecutor(interval.toMillis(), TimeUnit.MILLISECONDS)
                    .execute(() -> follow(known, interval, listener, open));
        });
    }

    /// Tries the operation that was set aside again, with those that wait for it.
    public CompletionStage<Void> tryAgain() {
        return client.ask(Answer.Done.class, new Request.TryAgain(id.value())).thenApply(_ -> null);
    }

    /// Fails the operation that was set aside.
    public CompletionStage<Void> giveUp() {
        return client.ask(Answer.Done.class, new Request.GiveUp(id.value())).thenApply(_ -> null);
    }

    /// Closes the run for good; its checkpoints stay.
    public CompletionStage<Void> unload() {
        return client.ask(Answer.Submitted.class, new Request.Unload(id.value()))
                .thenCompose(sent -> client.result(Answer.Unloaded.class, sent.request()))
                .thenApply(_ -> null);
    }
}
