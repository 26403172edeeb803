package bios.coordinator.simulation;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.model.TargetModule;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RequestId;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.pekko.actor.typed.ActorRef;

/// The user of one run, with the gateway. The client submits numbered operations, several at a time, repeats
/// those without an answer, retrieves results repeatedly, deletes checkpoints, and in some histories unloads
/// the run at the end.
final class Client {
    private static final String OWNER = "alice";
    private static final long SILENCE = 4_000;

    /// An operation that the client submits.
    private final class PlannedOperation {
        final long seq;
        final Operation operation;
        final byte[] encoded;
        final String digest;
        final boolean inBlob;
        boolean asked;
        boolean accepted;
        Optional<RunReply> outcome = Optional.empty();
        boolean lost;

        PlannedOperation(long seq, Operation operation, boolean inBlob) {
            this.seq = seq;
            this.operation = operation;
            this.inBlob = inBlob;
            encoded = StoredOperations.encode(operation);
            digest = StoredOperations.digest(encoded);
            cluster.remember(digest, operation);
        }

        boolean over() {
            return outcome.isPresent() || lost;
        }
    }

    private static final Pattern SEQ = Pattern.compile("\"seq_id\": (\\d+)");
    /// Milliseconds.
    private static final long REPEATED_AFTER = 30_000;

    private final SimulatedCluster cluster;
    private final EventLoop loop;
    private final RunId run;
    private final Optional<RunId> other;
    private final boolean lends;
    private final List<PlannedOperation> wanted = new ArrayList<>();
    /// Weights to which samplers are pinned.
    private final List<BlobId> pinned = new ArrayList<>();
    private int nextBlob;
    private final boolean unloads;
    private boolean created;
    private boolean unloaded;
    private boolean described;
    private int submitted;

    /// @param other a run whose checkpoints are sometimes loaded
    /// @param fatal whether some operations end the process that executes them
    /// @param lends whether another run loads checkpoints of this one, which are deleted the more often
    Client(SimulatedCluster cluster, RunId run, Optional<RunId> other, int operations, boolean fatal,
            boolean lends) {
        this.cluster = cluster;
        this.loop = cluster.loop;
        this.run = run;
        this.other = other;
        this.lends = lends;
        this.unloads = loop.oneIn(4);
        long seq = 0;
        for (int i = 0; i < operations; i++) {
            wanted.add(new PlannedOperation(seq, randomOperation(fatal), loop.oneIn(5)));
            seq += loop.oneIn(8) ? loop.between(2, 5) : 1;
        }
    }

    RunId run() {
        return run;
    }

    private Operation randomOperation(boolean fatal) {
        if (other.isPresent() && loop.oneIn(8)) return load(other.get());
        if (lends && loop.oneIn(4)) return save();
        return switch (loop.below(20)) {
            case 0, 1, 2, 3, 4 -> train(Map.of(), false);
            case 5, 6, 7, 8, 9 -> new Operation.OptimStep(Optional.empty());
            case 10, 11 -> train(Map.of(), true);
            case 12, 13 -> save();
            case 14 -> new Operation.SaveSamplerWeights(Optional.of(new CheckpointName("s")),
                    Optional.empty(), Optional.empty());
            case 15 -> new Operation.SaveSamplerWeights(Optional.empty(), Optional.empty(),
                    loop.oneIn(2) ? Optional.of("session-2") : Optional.empty());
            case 16, 17 -> load(run);
            case 18 -> loop.oneIn(2) ? train(Map.of(loop.any(List.of(ModelEngine.FAIL, ModelEngine.TOO_LARGE,
                    ModelEngine.REFUSED, ModelEngine.REFUSED)), 1.0), loop.oneIn(3))
                    : train(Map.of(), false);
            default -> fatal && loop.oneIn(2) ? train(Map.of(ModelEngine.KILL, 1.0), loop.oneIn(3))
                    : new Operation.OptimStep(Optional.empty());
        };
    }

    private Operation load(RunId from) {
        return new Operation.LoadState(new CheckpointPath(from,
                loop.oneIn(3) ? Optional.of(CheckpointKind.SAMPLER) : Optional.empty(),
                new CheckpointName(loop.any(List.of("a", "a", "b", "s", "missing")))), loop.oneIn(2));
    }

    private Operation save() {
        return new Operation.SaveState(new CheckpointName(loop.oneIn(2) ? "a" : "b"), "{}",
                loop.oneIn(4) ? Optional.of(loop.between(5, 60)) : Optional.empty());
    }

    private Operation train(Map<String, Double> settings, boolean forwardOnly) {
        return new Operation.ForwardBackward(List.of(new Datum(new int[] {loop.below(1000)}, Map.of())),
                LossFunction.CROSS_ENTROPY, settings, forwardOnly);
    }

    /// Whether all operations are finished.
    boolean over() {
        return created && wanted.stream().allMatch(PlannedOperation::over) && (unloaded || !unloads);
    }

    /// A description of the unfinished operations, for messages.
    String waits() {
        return !created ? "to be created" : wanted.stream().filter(w -> !w.over())
                .map(w -> w.seq + (w.accepted ? " accepted" : " not accepted")).toList().toString();
    }

    void begin() {
        loop.in(loop.between(0, 300), this::act);
    }

    private void act() {
        if (over()) return;
        if (loop.oneIn(12)) sample();
        if (!created) create();
        else if (!unloads || !wanted.stream().allMatch(PlannedOperation::over)) work();
        else unload();
        loop.in(loop.oneIn(12) ? loop.between(1_000, 15_000) : loop.between(5, 400), this::act);
    }

    private void create() {
        var config = new RunConfig(run, OWNER, new ModelName("ultrasafe/usf-finance"),
                new LoraSpec(8, 32, 7, List.of(TargetModule.Q, TargetModule.V)), true, Optional.empty(), "{}",
                "session-1", loop.now());
        cluster.send(run, replyTo -> new RunCommand.Create(config, replyTo), (_, _) -> {},
                reply -> created = true);
    }

    private void work() {
        int unfinished = (int) wanted.subList(0, submitted).stream().filter(w -> !w.over()).count();
        switch (loop.below(16)) {
            case 0, 1, 2, 3, 4 -> {
                if (submitted < wanted.size() && unfinished < 10) submit(wanted.get(submitted++));
                else again();
            }
            case 5, 6 -> again();
            case 7 -> repeat();
            case 8 -> {
                if (lends) manage();
                else conflict();
            }
            case 9 -> manage();
            default -> ask();
        }
    }

    // Submissions

    private void submit(PlannedOperation w) {
        w.asked = true;
        Optional<StoredOperation> stored = stored(w.seq, w.operation, w.encoded, w.inBlob);
        loop.in(SILENCE, () -> w.asked = false);
        if (stored.isEmpty()) return;
        // Some are sent so late that their blobs may have been considered abandoned.
        long late = loop.oneIn(15) ? loop.between(300, loop.oneIn(2) ? 2_500 : 80_000) : 0;
        long then = loop.now();
        loop.in(late, () -> send(w, stored.get(),
                cluster.mutation == Mutation.SUBMISSION_HIDES_ITS_AGE ? then : loop.now()));
    }

    private void send(PlannedOperation w, StoredOperation stored, long now) {
        cluster.send(run,
                replyTo -> new RunCommand.Submit(OWNER, w.seq, stored, w.digest, now, replyTo),
                (reply, stale) -> cluster.oracle(run).submitted(w.seq, w.digest, anew(w, reply), stale),
                reply -> {
                    if (reply instanceof RunReply.Accepted) w.accepted = true;
                    // Only an operation that can no longer be accepted is abandoned.
                    if (reply instanceof RunReply.Refused(var reason, var message)
                            && (reason == Reason.CLOSED || message.contains("no longer kept"))) w.lost = true;
                });
    }

    private RunReply anew(PlannedOperation w, RunReply reply) {
        return cluster.mutation == Mutation.REPEATED_SUBMISSION_IS_ANSWERED_ANEW && w.accepted
                && reply instanceof RunReply.Accepted
                ? new RunReply.Accepted(new RequestId(run, w.seq + 1000)) : reply;
    }

    private Optional<StoredOperation> stored(long seq, Operation operation, byte[] encoded, boolean inBlob) {
        var kind = StoredOperations.kind(operation);
        if (operation instanceof Operation.ForwardBackward f && f.settings().containsKey(ModelEngine.REFUSED))
            return Optional.of(new StoredOperation.Refused(kind, Fault.user("invalid_request", "no token")));
        if (!inBlob || operation instanceof Operation.LoadState
                || operation instanceof Operation.SaveSamplerWeights)
            return Optional.of(new StoredOperation.Inline(kind, encoded));
        try {
            String scope = BlobScope.operation(run, seq, loop.now(), "r" + nextBlob++);
            BlobRef blob = cluster.blobs.put(scope, encoded);
            return Optional.of(new StoredOperation.InBlob(kind, blob));
        } catch (RuntimeException storeFailed) {
            return Optional.empty();
        }
    }

    /// Submits the first operation without an answer again.
    private void again() {
        wanted.subList(0, submitted).stream().filter(w -> !w.accepted && !w.over() && !w.asked).findFirst()
                .ifPresent(this::submit);
    }

    private void repeat() {
        if (submitted > 0) submit(wanted.get(loop.below(submitted)));
    }

    /// Submits another operation under a sequence number that is in use.
    private void conflict() {
        if (submitted == 0) return;
        PlannedOperation w = wanted.get(loop.below(submitted));
        if (!w.accepted) return;
        var other = new PlannedOperation(w.seq, train(Map.of(), false), false);
        cluster.send(run, replyTo -> new RunCommand.Submit(OWNER, w.seq,
                new StoredOperation.Inline(StoredOperations.kind(other.operation), other.encoded),
                other.digest, loop.now(), replyTo),
                (reply, stale) -> cluster.oracle(run).submitted(w.seq, other.digest, reply, stale), _ -> {});
    }

    // Results

    private void ask() {
        if (submitted == 0) return;
        int from = Math.max(0, submitted - 12);
        PlannedOperation w = loop.oneIn(3) ? wanted.get(loop.below(submitted))
                : wanted.subList(from, submitted).stream().filter(x -> !x.over() && x.accepted).findFirst()
                        .orElse(wanted.get(loop.below(submitted)));
        ask(w);
    }

    private void ask(PlannedOperation w) {
        long wait = loop.any(List.of(0L, 300L, 2_000L, 10_000L));
        cluster.send(run, replyTo -> new RunCommand.Retrieve(OWNER, w.seq, wait, replyTo),
                (reply, stale) -> cluster.oracle(run).retrieved(w.seq, mutated(reply), stale),
                reply -> received(w, reply));
    }

    /// The number that a failure tells of the operation that is set aside.
    private static long namedIn(Fault why) {
        Matcher named = SEQ.matcher(why.message());
        if (!named.find()) throw new IllegalStateException("names no operation: " + why);
        return Long.parseLong(named.group(1));
    }

    /// Tells the run a decision, and again later: another operation may be set aside by then.
    private void decide(Function<ActorRef<RunReply>, RunCommand> command) {
        tell(command);
        loop.in(REPEATED_AFTER, () -> tell(command));
    }

    private RunReply mutated(RunReply reply) {
        return cluster.mutation == Mutation.FAILURE_BECOMES_SUCCESS
                && reply instanceof RunReply.Failed(var request, _)
                ? new RunReply.Completed(request, new OperationResult.Loaded("x", 1)) : reply;
    }

    private void received(PlannedOperation w, RunReply reply) {
        switch (reply) {
            // No outcome: the owner tries it again, gives it up, or goes on.
            case RunReply.Failed(_, var why) when why.message().contains("is set aside") -> {
                Optional<Long> seq = Optional.of(namedIn(why));
                if (loop.oneIn(3)) {
                    cluster.oracle(run).triesAgain(seq.get());
                    decide(to -> new RunCommand.Retry(OWNER, seq, to));
                } else if (loop.oneIn(2) || submitted == wanted.size()) {
                    cluster.oracle(run).givesUp(seq.get());
                    decide(to -> new RunCommand.GiveUp(OWNER, seq, to));
                }
            }
            case RunReply.Completed _, RunReply.Failed _ -> {
                if (reply instanceof RunReply.Completed(_, OperationResult.Saved(var manifest))
                        && w.outcome.isEmpty()) pinned.add(manifest.adapter().id());
                if (w.outcome.isPresent() && !w.outcome.get().equals(reply)) cluster.violated(
                        "run " + run + " gives " + reply + " for seq " + w.seq + " after " + w.outcome.get());
                w.outcome = Optional.of(reply);
            }
            // A client waits for all its results, so it meets the one that is set aside.
            case RunReply.Stalled(_, var why) when why.message().contains("is set aside") -> loop.in(
                    loop.between(100, 1_000), () -> ask(loop.any(wanted.subList(0, submitted).stream()
                            .filter(x -> x == w || x.accepted && !x.over()).toList())));
            case RunReply.Refused(_, var message) -> {
                if (w.accepted && message.contains("no longer kept")) w.lost = true;
            }
            default -> {}
        }
    }

    /// Says that a sampler is in use.
    private void sample() {
        if (!pinned.isEmpty()) cluster.keep(OWNER, loop.any(pinned), false, _ -> {});
    }

    // Other commands

    private void manage() {
        var kind = loop.oneIn(2) ? CheckpointKind.TRAINING : CheckpointKind.SAMPLER;
        var name = new CheckpointName(loop.any(List.of("a", "b", "s")));
        switch (loop.below(lends ? 3 : 6)) {
            case 0 -> tell(to -> new RunCommand.DeleteCheckpoint(OWNER, kind, name, to));
            case 1 -> {
                Optional<Long> at = loop.oneIn(3)
                        ? Optional.empty() : Optional.of(loop.now() + loop.between(1_000, 60_000));
                tell(to -> new RunCommand.SetExpiry(OWNER, kind, name, at, to));
            }
            case 2 -> tell(to -> new RunCommand.ReleaseSnapshots(OWNER,
                    loop.oneIn(2) ? "session-1" : "session-2", to));
            case 3 -> tell(to -> new RunCommand.Describe(OWNER, to));
            case 4 -> cluster.find(OWNER, new CheckpointPath(run, Optional.of(kind), name), _ -> {});
            default -> tell(to -> new RunCommand.Describe("mallory", to));
        }
    }

    private void tell(Function<ActorRef<RunReply>, RunCommand> command) {
        cluster.send(run, command, (_, _) -> {}, _ -> {});
    }

    private void unload() {
        cluster.oracle(run).unloads();
        cluster.send(run, replyTo -> new RunCommand.Unload(OWNER, replyTo), (_, _) -> {}, reply -> {
            if (reply instanceof RunReply.Done) unloaded = true;
        });
    }

    /// Retrieves and compares all results again at the end.
    void compareAgain() {
        for (PlannedOperation w : wanted) if (!w.lost) ask(w);
        // By then all replays are finished.
        loop.in(60_000, this::describe);
    }

    private void describe() {
        if (described) return;
        listen(to -> new RunCommand.Describe(OWNER, to), reply -> {
            cluster.oracle(run).described(reply);
            described = true;
        });
        loop.in(SILENCE, this::describe);
    }

    private void listen(Function<ActorRef<RunReply>, RunCommand> command, Consumer<RunReply> onReply) {
        cluster.send(run, command, (reply, _) -> onReply.accept(reply), _ -> {});
    }

    boolean described() {
        return described;
    }

    static String shown(Object message) {
        return switch (message) {
            case RunCommand.Submit s -> "submit " + s.seq() + " " + s.operation().kind() + " "
                    + s.digest().substring(0, 4);
            case RunCommand.Retrieve r -> "retrieve " + r.seq() + " wait " + r.waitMillis();
            case RunCommand.DeleteCheckpoint d -> "delete " + d.kind() + " " + d.name();
            case RunCommand other -> other.getClass().getSimpleName();
            case RunReply.Completed c -> "completed " + c.request().seq() + " "
                    + c.result().getClass().getSimpleName();
            case RunReply.Described d -> "described at step " + d.step();
            case RunReply.Resolved r -> "resolved " + r.manifest().contentId().substring(0, 6);
            default -> message.toString();
        };
    }
}
