package bios.coordinator.gateway;

import bios.persistence.index.ListingPage;
import bios.persistence.index.RunIndex;
import bios.persistence.index.RunSummary;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationMetrics;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RequestId;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.RunUsage;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.StoredOperation;
import bios.protocol.run.OperationTiming;
import bios.protocol.stored.StoredOperations;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeoutException;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;

/// Runs without engine or journal: every operation is finished when it is accepted. Owners are not checked
/// here; [OwnershipTest] checks the real ones.
final class FakeRuns implements RunDirectory, RunIndex {
    private final MemoryBlobs blobs;
    final Map<RunId, Run> runs = new LinkedHashMap<>();
    /// Runs that never answer.
    boolean silent;
    /// Whether operations stay pending.
    boolean slow;
    /// The fault by which the runs are stalled.
    Fault stalled;
    /// The fault of the next retrieval.
    Fault fault;
    Reason refuse;
    /// Whether the weights of samplers have been released.
    boolean released;
    int submitted;
    /// How often a run was described with its checkpoints.
    int descriptions;

    static final class Run {
        RunConfig config;
        long step;
        boolean closed;
        Optional<String> corrupted = Optional.empty();
        Optional<RunUsage> usage = Optional.empty();
        final Map<Long, String> digests = new HashMap<>();
        final Map<Long, Operation> operations = new TreeMap<>();
        final Map<Long, Fault> refused = new HashMap<>();
        final Map<Long, OperationResult> results = new HashMap<>();
        final List<CheckpointManifest> checkpoints = new ArrayList<>();
    }

    FakeRuns(MemoryBlobs blobs) {
        this.blobs = blobs;
    }

    @Override public synchronized CompletionStage<RunReply> ask(RunId run,
            Function<ActorRef<RunReply>, RunCommand> message, Duration timeout) {
        if (silent) return CompletableFuture.failedStage(new TimeoutException("silent"));
        if (refuse != null)
            return CompletableFuture.completedStage(new RunReply.Refused(refuse, "refused for the test"));
        return CompletableFuture.completedStage(answer(run, message.apply(null)));
    }

    private RunReply answer(RunId id, RunCommand command) {
        Run run = runs.get(id);
        return switch (command) {
            case RunCommand.Create(var config, _) -> {
                if (run != null && !same(run.config, config))
                    yield new RunReply.Refused(Reason.CONFLICT, "created otherwise before");
                Run created = runs.computeIfAbsent(id, _ -> new Run());
                created.config = config;
                yield described(created);
            }
            case RunCommand.Submit c -> existing(run, () -> submit(id, run, c));
            case RunCommand.Retrieve(_, long seq, _, _) ->
                    existing(run, () -> retrieve(id, run, seq));
            case RunCommand.CheckOwner(_, _) -> existing(run, RunReply.Done::new);
            case RunCommand.Summarize _ -> existing(run, () ->
                    new RunReply.Summary(run.config, run.config.lora(), run.step, run.closed));
            case RunCommand.Describe _ -> {
                descriptions++;
                yield existing(run, () -> described(run));
            }
            case RunCommand.Resolve(_, var path, _) -> existing(run, () ->
                    run.checkpoints.stream().filter(c -> c.name().equals(Optional.of(path.name()))
                            && path.kind().map(k -> k == c.kind()).orElse(true))
                    .findFirst().<RunReply>map(RunReply.Resolved::new)
                    .orElse(new RunReply.Refused(Reason.NOT_FOUND, "no checkpoint at " + path)));
            case RunCommand.KeepWeights _ -> released
                    ? new RunReply.Refused(Reason.EXPIRED, "these weights were released")
                    : new RunReply.Refused(Reason.NOT_FOUND, "none");
            case RunCommand.ReleaseSnapshots _ -> new RunReply.Refused(Reason.NOT_FOUND, "none");
            case RunCommand.DeleteCheckpoint(_, var kind, var name, _) -> existing(run, () ->
                run.checkpoints.removeIf(c -> c.kind() == kind && c.name().equals(Optional.of(name)))
                        ? new RunReply.Done() : new RunReply.Refused(Reason.NOT_FOUND, "no checkpoint"));
            case RunCommand.SetExpiry _, RunCommand.Publish _, RunCommand.SetProject _ ->
                existing(run, RunReply.Done::new);
            case RunCommand.Retry _, RunCommand.GiveUp _ -> existing(run, () ->
                    new RunReply.Refused(Reason.CONFLICT, "no operation is set aside"));
            case RunCommand.ReportDeath _, RunCommand.Leave _ ->
                    throw new IllegalStateException("not from the gateway");
            case RunCommand.GetTimings(_, _) -> existing(run, () -> new RunReply.Timings(List.of(
                    new OperationTiming(7, OperationKind.FORWARD_BACKWARD, 1_250_000, 500, 2_000_000,
                            9),
                    new OperationTiming(8, OperationKind.SAVE_SAMPLER_WEIGHTS, 0, 0, 3_000_000, 9))));
            case RunCommand.GetMetrics _ -> existing(run, () -> new RunReply.Metrics(List.of(
                    new OperationMetrics(1, 7, OperationKind.OPTIM_STEP, 1, Map.of("grad_norm", 0.5),
                            Optional.empty(), 9))));
            case RunCommand.GetHistory _ -> existing(run, () -> new RunReply.History(List.of(
                    new HistoryEntry(1_000, Optional.of("node-1"), HistoryEntry.Kind.CREATED,
                            Optional.empty(),
                            Optional.empty(), Map.of("rank", "32", "base_model", "ultrasafe/usf-tiny")),
                    new HistoryEntry(2_000, Optional.of("node-1"), HistoryEntry.Kind.RECOVERY_POINT,
                            Optional.of(7L),
                            Optional.of(9L), Map.of("step", "3", "bytes", "100")).numbered(2))));
            case RunCommand.Unload(_, _) -> existing(run, () -> {
                run.closed = true;
                return new RunReply.Done();
            });
        };
    }

    private static boolean same(RunConfig a, RunConfig b) {
        return a.lora().equals(b.lora()) && a.userMetadata().equals(b.userMetadata());
    }

    private interface Answer {
        RunReply get();
    }

    private static RunReply existing(Run run, Answer answer) {
        return run == null ? new RunReply.Refused(Reason.NOT_FOUND, "no such run") : answer.get();
    }

    private static RunReply described(Run run) {
        return new RunReply.Described(run.config, run.config.lora(), run.step,
                run.config.createdAtMillis() + 5, run.checkpoints, run.closed, run.corrupted,
                Optional.empty(), Optional.empty());
    }

    private RunReply submit(RunId id, Run run, RunCommand.Submit c) {
        String first = run.digests.putIfAbsent(c.seq(), c.digest());
        if (first != null && !first.equals(c.digest()))
            return new RunReply.Refused(Reason.CONFLICT, "another operation has this number");
        if (first != null) return new RunReply.Accepted(new RequestId(id, c.seq()));
        submitted++;
        if (c.operation() instanceof StoredOperation.Refused(_, var why)) {
            run.refused.put(c.seq(), why);
            return new RunReply.Accepted(new RequestId(id, c.seq()));
        }
        byte[] encoded = switch (c.operation()) {
            case StoredOperation.Inline(_, var bytes) -> bytes;
            case StoredOperation.InBlob(_, var blob) -> blobs.readSmall(blob, 1 << 30);
            case StoredOperation.Refused refused ->
                    throw new IllegalStateException("never executed: " + refused);
        };
        Operation operation = StoredOperations.decode(c.operation().kind(), encoded);
        run.operations.put(c.seq(), operation);
        run.results.put(c.seq(), execute(id, run, operation, c.nowMillis()));
        return new RunReply.Accepted(new RequestId(id, c.seq()));
    }

    private OperationResult execute(RunId id, Run run, Operation operation, long now) {
        return switch (operation) {
            case Operation.ForwardBackward f -> {
                var values = new OperationResult.Evaluated(f.data().stream().map(d -> {
                    float[] logprobs = new float[d.targets().elements()];
                    Arrays.fill(logprobs, -0.5f);
                    return logprobs;
                }).toList(), Map.of("loss:sum", 1.5, "tokens:sum", 2.0, "weights:sum", 2.0));
                boolean vectors = f.data().stream().allMatch(d -> d.targets().shape().length == 1);
                yield vectors ? values : new OperationResult.EvaluatedMatrix(values, f.data().stream()
                        .map(d -> d.targets().shape().length == 1 ? 0 : d.targetsEach()).toList());
            }
            case Operation.OptimStep _ ->
                    new OperationResult.Stepped(++run.step, Map.of("grad_norm", 0.25, "learning_rate", 1e-4));
            case Operation.SaveState(var name, var metadata, _) ->
                    save(id, run, CheckpointKind.TRAINING, Optional.of(name), metadata, now);
            case Operation.SaveSamplerWeights(var name, _, _) ->
                    save(id, run, CheckpointKind.SAMPLER, name, "{}", now);
            case Operation.LoadState(var path, _) -> new OperationResult.Loaded(path.biosUri(), 7);
            case Operation.LoadUpload(var name, _, _) -> new OperationResult.Loaded("bios://" + id
                    + "/sampler_weights/" + name, 0);
        };
    }

    private OperationResult save(RunId id, Run run, CheckpointKind kind, Optional<CheckpointName> name,
            String metadata, long now) {
        byte[] adapter = ("adapter of " + id + " at " + run.step).repeat(5000)
                .getBytes(StandardCharsets.UTF_8);
        BlobRef blob = blobs.put(BlobScope.checkpoints(id, 0), adapter);
        var manifest = new CheckpointManifest(id, kind, name, run.config.baseModel(), run.config.lora(),
                blob.id().sha256(), blob, Optional.empty(), run.step, AdamParams.DEFAULT, "adamw", metadata,
                run.config.parent(), now, Optional.empty());
        if (name.isPresent()) run.checkpoints.add(manifest);
        return new OperationResult.Saved(manifest);
    }

    private RunReply retrieve(RunId id, Run run, long seq) {
        var request = new RequestId(id, seq);
        if (run.refused.containsKey(seq)) return new RunReply.Failed(request, run.refused.get(seq));
        OperationResult result = run.results.get(seq);
        if (result == null) return new RunReply.Refused(Reason.NOT_FOUND, "no such request");
        if (stalled != null) return new RunReply.Stalled(request, stalled);
        if (slow) return new RunReply.Pending(request, 2);
        if (fault != null) return new RunReply.Failed(request, fault);
        return new RunReply.Completed(request, result);
    }

    @Override public void put(RunSummary summary, long version) {
        throw new UnsupportedOperationException();
    }

    @Override public void remove(RunId run) {
        throw new UnsupportedOperationException();
    }

    @Override public synchronized ListingPage<RunSummary> runs(String owner, int limit, long offset) {
        List<RunSummary> all = runs.values().stream().filter(r -> r.config.owner().equals(owner))
                .map(r -> new RunSummary(r.config, r.config.lora(), r.step, r.config.createdAtMillis() + 5,
                        r.checkpoints, r.closed, r.corrupted, r.usage, Optional.empty(),
                        Optional.empty())).toList();
        return new ListingPage<>(all.stream().skip(offset).limit(limit).toList(), all.size());
    }

    @Override public synchronized ListingPage<CheckpointManifest> checkpoints(String owner, int limit,
            long offset) {
        List<CheckpointManifest> all = runs.values().stream().filter(r -> r.config.owner().equals(owner))
                .flatMap(r -> r.checkpoints.stream()).toList();
        return new ListingPage<>(all.stream().skip(offset).limit(limit).toList(), all.size());
    }
}
