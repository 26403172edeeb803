package bios.coordinator.simulation;

import bios.coordinator.run.ResultsPage;
import bios.coordinator.run.RunEvent;
import bios.coordinator.run.RunEvent.*;
import bios.coordinator.simulation.ModelEngine.Done;
import bios.coordinator.simulation.ModelEngine.Loaded;
import bios.coordinator.simulation.ModelEngine.State;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Function;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/// The oracle of one run: computes the expected state from the events in the journal, and compares it with
/// all replies, stored blobs and deletions. It shares no code with the code under test.
final class RunOracle {
    /// An accepted operation.
    private static final class Accepted {
        final long seq;
        final StoredOperation stored;
        final Operation operation;
        final String digest;
        final long acceptedAtMillis;
        Optional<CheckpointManifest> loads = Optional.empty();
        Optional<CheckpointManifest> saved = Optional.empty();
        Optional<Fault> failed = Optional.empty();
        boolean drops;
        boolean applied;
        boolean aside;
        int deaths;
        boolean told;

        Accepted(OperationAccepted e, Operation operation) {
            seq = e.seq();
            stored = e.operation();
            digest = e.digest();
            acceptedAtMillis = e.timeMillis();
            this.operation = operation;
        }

        boolean loading() {
            return operation instanceof Operation.LoadState;
        }

        boolean saving() {
            return stored.kind() == OperationKind.SAVE_STATE
                    || stored.kind() == OperationKind.SAVE_SAMPLER_WEIGHTS;
        }
    }

    /// @param nextStep whether it blocks the next step, whenever that was accepted
    /// @param stepAfter the next step is one after this position
    /// @param lacks whether the gradient sum lacks a part
    private record BlockingFailure(int position, Fault why, long until, boolean nextStep, int stepAfter,
            boolean lacks) {
        BlockingFailure(int position, Fault why, long until, boolean nextStep, boolean lacks) {
            this(position, why, until, nextStep, position, lacks);
        }

        BlockingFailure until(long seen) {
            return until < Long.MAX_VALUE ? this
                    : new BlockingFailure(position, why, seen, nextStep, stepAfter, lacks);
        }
    }

    private record Named(CheckpointKind kind, CheckpointName name) {
        static Named of(CheckpointManifest m) {
            return new Named(m.kind(), m.name().orElseThrow());
        }
    }

    private record Snapshot(String session, CheckpointManifest manifest, long at) {}

    private final SimulatedCluster cluster;
    private final RunId run;
    private final List<Accepted> operations = new ArrayList<>(); // position p is at p - 1
    private final Map<Long, Integer> positions = new HashMap<>();
    private final List<State> states = new ArrayList<>(); // after each position, as far as needed
    private final List<CheckpointManifest> versions = new ArrayList<>();
    private final List<Snapshot> snapshots = new ArrayList<>();
    /// Versions that were removed, for other runs that have loaded them.
    private final List<CheckpointManifest> retained = new ArrayList<>();
    /// Per name the last position whose load may have found the checkpoint expired before its expiry was
    /// extended.
    private final Map<CheckpointName, Integer> kept = new HashMap<>();
    /// The last time that somebody was told of an adapter, or that another run has loaded it.
    private final Map<BlobId, Long> used = new HashMap<>();
    private final Map<BlobId, Long> loaded = new HashMap<>();
    private Optional<RunConfig> config = Optional.empty();
    private Optional<BlockingFailure> blocking = Optional.empty();
    private Optional<BlobRef> point = Optional.empty();
    private List<BlobRef> results = List.of();
    private int recovery;
    private Optional<BlockingFailure> aside = Optional.empty();
    private boolean closed;
    private boolean unloading;
    /// The numbers of what the owner tries again, and of what it gives up.
    private final Set<Long> retried = new HashSet<>();
    private final Set<Long> givenUp = new HashSet<>();

    RunOracle(SimulatedCluster cluster, RunId run) {
        this.cluster = cluster;
        this.run = run;
    }

    // Queries

    boolean created() {
        return config.isPresent();
    }

    boolean closed() {
        return closed;
    }

    int accepted() {
        return operations.size();
    }

    /// The number of operations that a recovery would replay.
    int unsettledOperations() {
        int count = 0;
        for (Accepted op : operations.subList(recovery, operations.size()))
            if ((op.failed.isEmpty() || op.drops) && op.saved.isEmpty()) count++;
        return count;
    }

    boolean holds(long seq) {
        return positions.containsKey(seq);
    }

    private static boolean kills(Operation operation) {
        return operation instanceof Operation.ForwardBackward f
                && f.settings().containsKey(ModelEngine.KILL);
    }

    void unloads() {
        unloading = true;
    }

    void triesAgain(long seq) {
        retried.add(seq);
    }

    void givesUp(long seq) {
        givenUp.add(seq);
    }

    // Events of the journal

    void happened(RunEvent event) {
        switch (event) {
            case RunCreated(var created, _) -> {
                check(config.isEmpty(), "is created twice");
                config = Optional.of(created);
                states.add(State.fresh(created.lora()));
            }
            case OperationAccepted e -> accepted(e);
            case LoadResolved(var at, var manifest) -> {
                Accepted op = op(at);
                check(op.loading() && op.loads.isEmpty() && op.failed.isEmpty(),
                        "resolves " + at + " anew");
                op.loads = Optional.of(manifest);
                if (own(manifest)) blobs(manifest).forEach(this::mustExist);
            }
            case LoadApplied(var at, _) -> {
                check(op(at).loads.isPresent() && op(at).failed.isEmpty(), "applies " + at);
                op(at).applied = true;
                blocking = blocking.filter(p -> p.position() > at);
            }
            case OperationFailed(var at, var why, _, var drops, var rest) ->
                    failed((int) at, why, drops.isPresent(), rest.isPresent());
            case ErrorSeen(var upTo) -> {
                blocking = blocking.map(p -> p.until(upTo));
                aside = aside.map(p -> p.until(upTo));
            }
            case OperationSetAside(var at, var why, _) -> setAside((int) at, why);
            case OperationRetried(var at, _) -> {
                check(aside.filter(p -> p.position() == at).isPresent()
                        && retried.contains(op((int) at).seq), "tries " + at + " again");
                aside = Optional.empty();
            }
            case CheckpointCommitted(var at, var manifest, var session, _) ->
                    committed((int) at, manifest, session);
            case CheckpointDeleted(var kind, var name, _, var stay) ->
                    remove(v -> Named.of(v).equals(new Named(kind, name)), stay);
            case ExpirySet(var kind, var name, var at, _) -> {
                versions.replaceAll(v -> Named.of(v).equals(new Named(kind, name)) ? expiring(v, at) : v);
                kept.put(name, operations.size());
            }
            case CheckpointsExpired(var time, _, var stay) -> {
                check(time <= cluster.loop.now(), "lets expire what is not over");
                Set<Named> gone = versions.stream().map(Named::of).filter(name -> newest(name.kind(),
                        name.name()).filter(n -> over(n, time)).isPresent()).collect(Collectors.toSet());
                remove(v -> over(v, time) || gone.contains(Named.of(v)), stay);
                snapshots.removeIf(s -> over(s.manifest(), time));
            }
            case SnapshotsReleased(var session) -> snapshots.removeIf(s -> s.session().equals(session));
            case WeightsReleased(var weights) -> released(weights);
            case RecoveryPointReached e -> reached(e);
            case RunClosed _ -> {
                for (int at = 1; at <= operations.size(); at++)
                    check(operations.get(at - 1).failed.isPresent() || !operations.get(at - 1).saving()
                            || operations.get(at - 1).saved.isPresent(), "is closed before " + at
                            + " is saved");
                closed = true;
                recovery = operations.size();
                point = Optional.empty();
                results = List.of();
                blocking = Optional.empty();
                aside = Optional.empty();
            }
            default -> {} // events without effect on operations, states or blobs
        }
    }

    /// Removes versions, except for the runs that have loaded them.
    private void remove(Predicate<CheckpointManifest> which, List<BlobId> stay) {
        for (CheckpointManifest v : versions.stream().filter(which).toList()) {
            BlobId id = v.adapter().id();
            check(stay.contains(id) || !inUse(loaded, id), "removes " + Blobs.shown(id)
                    + ", which another run has loaded");
            if (stay.contains(id)) retained.add(v);
            versions.remove(v);
        }
    }

    private void accepted(OperationAccepted e) {
        check(e.position() == operations.size() + 1, "accepts " + e.position() + " behind "
                + operations.size());
        check(!positions.containsKey(e.seq()), "accepts seq " + e.seq() + " twice");
        check(!closed, "accepts seq " + e.seq() + " although it is closed");
        // A part with a lower number than a failed one whose failure was told belongs to its batch.
        boolean rest = e.operation().kind() == OperationKind.FORWARD_BACKWARD && blocking.filter(failure ->
                failure.lacks() && failure.until() != Long.MAX_VALUE
                        && e.seq() < op(failure.position()).seq).isPresent();
        check(rest == e.rest().isPresent(), "accepts seq " + e.seq() + " as a rest: " + e.rest());
        if (rest) blocking = blocking.map(failure -> failure.nextStep() ? failure
                : new BlockingFailure(failure.position(), failure.why(), failure.until(), true,
                        (int) e.position(), failure.lacks()));
        operations.add(new Accepted(e, cluster.operation(e.digest())));
        positions.put(e.seq(), operations.size());
    }

    private void failed(int at, Fault why, boolean drops, boolean rest) {
        Accepted op = op(at);
        check(op.failed.isEmpty() && op.saved.isEmpty() && !op.applied,
                at + " fails once more: " + why);
        check(!op.told, at + " fails after its result was told: " + why);
        check(states.size() <= at, at + " fails after others were told what comes behind it: " + why);
        boolean blocked = blocked(at) && !op.loading();
        if (blocked) check(why.equals(blocking.get().why()), at + " must fail by " + blocking.get().why());
        else check(legitimate(at, op, why), at + " " + op.stored.kind() + " fails for no reason: " + why);
        op.failed = Optional.of(why);
        boolean step = op.stored.kind() == OperationKind.OPTIM_STEP;
        boolean pass = op.stored.kind() == OperationKind.FORWARD_BACKWARD;
        boolean refused = op.stored instanceof StoredOperation.Refused;
        check(drops == (blocked && step && blocking.get().lacks()), at + " drops the gradient: " + drops);
        check(rest == (op.loading() && blocking.filter(BlockingFailure::nextStep).isPresent()
                || pass && !blocked && !refused && open(at)), at + " leaves a rest of a batch: " + rest);
        op.drops = drops;
        if (step) blocking = blocking.map(p ->
                new BlockingFailure(p.position(), p.why(), p.until(), false, p.lacks()));
        check(aside.filter(p -> p.position() == at && p.until() >= operations.size()).isEmpty() || unloading
                || givenUp.contains(op.seq), at + " is given up for no reason");
        aside = aside.filter(p -> p.position() != at);
        boolean changes = op.stored.kind().changesState() && !why.code().equals("no_gradient");
        if (changes && !blocked) blocking = Optional.of(new BlockingFailure(at, why, Long.MAX_VALUE,
                refused || rest, pass || rest));
    }

    /// Whether the gradient sum before a position holds what no step has applied.
    private boolean open(int at) {
        for (Accepted before : operations.subList(0, at - 1).reversed()) {
            boolean done = before.failed.isEmpty();
            if (before.stored.kind() == OperationKind.FORWARD_BACKWARD && done) return true;
            boolean ends = before.loading() || before.stored.kind() == OperationKind.OPTIM_STEP;
            if (ends && (done || before.drops)) return false;
        }
        return false;
    }

    private void setAside(int at, Fault why) {
        Accepted op = op(at);
        check(aside.isEmpty() && op.failed.isEmpty() && op.saved.isEmpty() && !op.told,
                at + " is set aside and has an outcome");
        check(switch (why.code()) {
            case "worker_lost" -> kills(op.operation) && op.deaths > 0;
            case "out_of_memory" -> op.operation instanceof Operation.ForwardBackward f
                    && f.settings().containsKey(ModelEngine.TOO_LARGE);
            case "blob_damaged" -> op.stored instanceof StoredOperation.InBlob && cluster.faults.damage > 0;
            default -> false;
        }, at + " is set aside for no reason: " + why);
        op.aside = true;
        aside = Optional.of(new BlockingFailure(at, why, Long.MAX_VALUE, false, false));
    }

    private boolean blocked(int at) {
        return blocking.isPresent() && at > blocking.get().position() && (at <= blocking.get().until()
                || blocking.get().nextStep() && at > blocking.get().stepAfter()
                && op(at).stored.kind() == OperationKind.OPTIM_STEP);
    }

    private boolean legitimate(int at, Accepted op, Fault why) {
        return switch (why.code()) {
            case "out_of_memory" -> op.aside;
            case "invalid_request" -> op.stored instanceof StoredOperation.Refused;
            case "bad_data", "no_gradient" -> {
                Done done = ModelEngine.execute(state(at - 1), op.operation, op.digest, Optional.empty());
                yield !op.loading() && done.fault().filter(why::equals).isPresent();
            }
            case "checkpoint_not_found" -> op.operation instanceof Operation.LoadState(var path, _)
                    && (!path.run().equals(run) || at <= kept.getOrDefault(path.name(), 0)
                            || !found(path));
            case "weights_only" ->
                    op.operation instanceof Operation.LoadState(_, var optimizer) && optimizer;
            case "worker_lost", "blob_damaged" -> op.aside;
            case "store_failed" -> unloading || givenUp.contains(op.seq);
            case "checkpoint_unavailable" -> op.loading() && givenUp.contains(op.seq);
            default -> false;
        };
    }

    private boolean found(CheckpointPath path) {
        return path.kind().isPresent() ? current(path.kind().get(), path.name())
                : current(CheckpointKind.TRAINING, path.name())
                        || current(CheckpointKind.SAMPLER, path.name());
    }

    private boolean current(CheckpointKind kind, CheckpointName name) {
        return newest(kind, name).filter(v -> !over(v, cluster.loop.now())).isPresent();
    }

    private Optional<CheckpointManifest> newest(CheckpointKind kind, CheckpointName name) {
        return versions.stream().filter(v -> Named.of(v).equals(new Named(kind, name)))
                .reduce((_, later) -> later);
    }

    private void committed(int at, CheckpointManifest m, Optional<String> session) {
        Accepted op = op(at);
        check(op.saving() && op.saved.isEmpty() && op.failed.isEmpty(), at + " is saved once more");
        check(!blocked(at), at + " is saved although " + blocking + " blocks it");
        blobs(m).forEach(this::mustExist);
        State state = state(at - 1);
        check(cluster.blobs.archived(m.adapter().id()).equals(state.weights())
                && m.optimizer().stream().allMatch(o -> cluster.blobs.archived(o.id())
                        .equals(state.optimizer())), at + " saves another state than that before it");
        var expected = ModelEngine.manifest(config.get(), state, op.operation, m.adapter(), m.optimizer(),
                op.acceptedAtMillis);
        check(expected.equals(m), at + " is saved as " + m + " instead of " + expected);
        op.saved = Optional.of(m);
        if (m.name().isEmpty()) {
            String owner = session.orElseThrow();
            snapshots.removeIf(s -> s.session().equals(owner)
                    && s.manifest().adapter().equals(m.adapter()));
            snapshots.add(new Snapshot(owner, m, cluster.loop.now()));
            return;
        }
        newest(m.kind(), m.name().get()).filter(v -> v.adapter().equals(m.adapter())
                && v.optimizer().equals(m.optimizer())).ifPresent(versions::remove);
        versions.add(m);
    }

    private void reached(RecoveryPointReached e) {
        int at = (int) e.position();
        check(at >= recovery && at <= operations.size(), "has a recovery point outside its op at " + at);
        mustExist(e.state().id());
        e.pages().forEach(page -> mustExist(page.blob().id()));
        State expected = state(at);
        check(cluster.blobs.archived(e.state().id()).equals(expected.text()),
                "has a recovery point at " + at + " of another state: "
                        + cluster.blobs.archived(e.state().id()) + " instead of " + expected.text());
        check(e.step() == expected.step() && e.lora().equals(expected.lora()),
                "has a recovery point at " + at + " with step " + e.step() + " of " + expected.step());
        recovery = at;
        point = Optional.of(e.state());
        results = e.pages().stream().map(ResultsPage::blob).toList();
        check(aside.filter(p -> p.position() <= at).isEmpty(), "has a point past what is set aside");
    }

    // Expected states

    /// The expected state after a position. Once it was used, no operation up to it may change its outcome.
    private State state(int position) {
        while (states.size() <= position) {
            int at = states.size();
            Accepted op = op(at);
            State before = states.getLast();
            if (op.failed.isPresent()) {
                states.add(op.drops ? before.withoutGradient() : before);
                continue;
            }
            check(!blocked(at) || op.loading(), at + " is passed although " + blocking + " blocks it");
            check(!op.loading() || op.loads.isPresent(), at + " is passed before it is resolved");
            states.add(execute(before, op).state());
        }
        return states.get(position);
    }

    private Done execute(State before, Accepted op) {
        Done done = ModelEngine.execute(before, op.operation, op.digest, op.loads.map(m ->
                new Loaded(m, cluster.blobs.archived(m.adapter().id()),
                        m.optimizer().map(o -> cluster.blobs.archived(o.id())))));
        check(done.fault().isEmpty(), "passes seq " + op.seq + " as if it had not failed: " + done.fault());
        return done;
    }

    // Blobs

    private boolean own(CheckpointManifest m) {
        return m.run().equals(run);
    }

    private static Stream<BlobId> blobs(CheckpointManifest m) {
        return Stream.concat(Stream.of(m.adapter()), m.optimizer().stream()).map(BlobRef::id);
    }

    /// The blobs that a recovery or a reader of this run may still read.
    private Set<BlobId> referenced() {
        var all = new HashSet<BlobId>();
        Stream.concat(versions.stream(), retained.stream()).forEach(m -> blobs(m).forEach(all::add));
        snapshots.forEach(s -> blobs(s.manifest()).forEach(all::add));
        point.ifPresent(p -> all.add(p.id()));
        results.forEach(r -> all.add(r.id()));
        for (Accepted op : operations.subList(recovery, operations.size())) {
            if (op.failed.isPresent() || op.saved.isPresent()) continue;
            if (op.stored instanceof StoredOperation.InBlob(_, var blob)) all.add(blob.id());
            op.loads.filter(this::own).ifPresent(m -> blobs(m).forEach(all::add));
        }
        return all;
    }

    /// Checks that a blob that is deleted or missing is not one that this run needs, of its own or of another
    /// run.
    void gone(BlobId id, String how) {
        check(!referenced().contains(id) && foreign().noneMatch(id::equals),
                how + Blobs.shown(id) + ", which is referred to");
    }

    /// The blobs of other runs that a recovery may have to load again.
    private Stream<BlobId> foreign() {
        return operations.subList(recovery, operations.size()).stream().filter(op -> op.failed.isEmpty())
                .flatMap(op -> op.loads.stream()).filter(m -> !own(m)).flatMap(RunOracle::blobs);
    }

    // Leases

    /// What no name refers to, except the newest snapshots.
    private Set<Unnamed> unnamed() {
        var all = new HashSet<Unnamed>();
        for (CheckpointManifest v : retained) all.add(new Unnamed(v.adapter().id(), Optional.empty()));
        for (CheckpointManifest v : versions)
            if (newest(v.kind(), v.name().get()).filter(n -> n == v).isEmpty())
                all.add(new Unnamed(v.adapter().id(), Optional.empty()));
        for (int i = 0; i < snapshots.size() - cluster.settings().newestSnapshots(); i++)
            all.add(new Unnamed(snapshots.get(i).manifest().adapter().id(),
                    Optional.of(snapshots.get(i).session())));
        return all;
    }

    /// Records that the run told somebody of weights, who may use them for a lease.
    void used(BlobId adapter, boolean loads) {
        used.put(adapter, cluster.loop.now());
        if (loads) loaded.put(adapter, cluster.loop.now());
    }

    /// Checks the answer to a use of weights.
    void kept(BlobId adapter, boolean loads, RunReply reply, boolean stale) {
        if (stale) return;
        boolean holds = Stream.of(versions.stream(), snapshots.stream().map(Snapshot::manifest),
                loads ? retained.stream() : Stream.<CheckpointManifest>empty()).flatMap(Function.identity())
                .anyMatch(m -> m.adapter().id().equals(adapter));
        check(reply instanceof RunReply.Done ? holds : reply instanceof RunReply.Refused(var reason, _)
                && reason == Reason.EXPIRED && !holds, "answers a use of " + Blobs.shown(adapter) + ": "
                + reply);
        if (holds) used(adapter, loads);
    }

    private boolean inUse(Map<BlobId, Long> uses, BlobId adapter) {
        return uses.getOrDefault(adapter, 0L) + cluster.settings().lease().toMillis() > cluster.loop.now();
    }

    private void released(List<Unnamed> weights) {
        Set<Unnamed> unnamed = unnamed();
        boolean many = unnamed.size() > cluster.settings().maxUnnamed();
        for (Unnamed each : weights) {
            BlobId id = each.adapter();
            boolean fresh = snapshots.stream().anyMatch(s -> s.manifest().adapter().id().equals(id)
                    && each.session().equals(Optional.of(s.session()))
                    && s.at() + cluster.settings().lease().toMillis() > cluster.loop.now());
            check(!inUse(loaded, id) && (many || !fresh && !inUse(used, id)),
                    "releases " + Blobs.shown(id) + ", which is in use");
            check(unnamed.contains(each), "releases " + Blobs.shown(id) + ", which has a name or is new");
        }
        List<CheckpointManifest> named = versions.stream().filter(v ->
                newest(v.kind(), v.name().get()).filter(n -> n == v).isPresent()).toList();
        versions.removeIf(v -> named.stream().noneMatch(n -> n == v)
                && weights.contains(new Unnamed(v.adapter().id(), Optional.empty())));
        snapshots.removeIf(s -> weights.contains(new Unnamed(s.manifest().adapter().id(),
                Optional.of(s.session()))));
        retained.removeIf(v -> weights.contains(new Unnamed(v.adapter().id(), Optional.empty())));
    }

    private void mustExist(BlobId id) {
        check(cluster.blobs.exists(id), "refers to " + Blobs.shown(id) + ", which does not exist");
    }

    // Replies

    /// Records that an operation ended its process.
    ///
    /// @param others ends of processes by other causes, after which the count may start again
    void died(long position, int others) {
        Accepted op = op(position);
        op.deaths++;
        check(op.deaths <= (cluster.attempts() + 3) * (others + 3),
                position + " has killed " + op.deaths + " times");
    }

    /// Checks the reply to a submission.
    ///
    /// @param stale whether the replying entity is on a node that is cut off
    void submitted(long seq, String digest, RunReply reply, boolean stale) {
        switch (reply) {
            case RunReply.Accepted(var request) -> {
                check(holds(seq), "acknowledges seq " + seq + ", which the journal does not hold");
                check(request.seq() == seq && request.run().equals(run), "answers " + seq + " by " + request);
                int at = positions.get(seq);
                check(at <= recovery || operations.get(at - 1).digest.equals(digest),
                        "acknowledges another operation as seq " + seq);
            }
            case RunReply.Refused(var reason, var message) -> {
                boolean known = holds(seq);
                boolean fine = switch (reason) {
                    case CONFLICT -> known && (!operations.get(positions.get(seq) - 1).digest.equals(digest)
                            || message.contains("no longer kept") && (closed || cluster.forgetsResults()));
                    case TOO_MANY, LIMIT -> !known || stale;
                    case CLOSED -> (closed || unloading) && (!known || stale);
                    case NOT_FOUND -> !created() || stale;
                    case UNAVAILABLE -> true;
                    case INVALID, DAMAGED, EXPIRED -> false;
                };
                check(fine, "refuses seq " + seq + ": " + reason + " " + message);
            }
            default -> check(false, "answers a submission by " + reply);
        }
    }

    /// Checks the reply to a request for a result.
    void retrieved(long seq, RunReply reply, boolean stale) {
        switch (reply) {
            case RunReply.Completed(var request, var result) -> {
                check(holds(seq) && request.seq() == seq, "has a result of " + request + " for " + seq);
                int at = positions.get(seq);
                Accepted op = op(at);
                check(op.failed.isEmpty(), at + " failed and has a result");
                check(op.told || !blocked(at) || op.loading(),
                        at + " has a result although " + blocking + " blocks it");
                OperationResult expected = op.saving()
                        ? new OperationResult.Saved(op.saved.orElseThrow(() ->
                                new Violation("a save at " + at + " is told before it is stored")))
                        : execute(state(at - 1), op).result().orElseThrow();
                check(expected.equals(result), at + " gives " + result + " instead of " + expected);
                state(at);
                op.told = true;
            }
            case RunReply.Failed(_, var why) when why.message().contains("is set aside") -> check(holds(seq)
                    && (stale || op(positions.get(seq)).failed.isPresent() || aside.filter(p ->
                            p.position() <= positions.get(seq)).isPresent()),
                    seq + " is not set aside: " + why);
            case RunReply.Failed(_, var why) -> check(holds(seq)
                    && op(positions.get(seq)).failed.filter(why::equals).isPresent(),
                    "tells of a failure of " + seq + " that the journal does not hold: " + why);
            case RunReply.Pending _, RunReply.Stalled _ ->
                check(holds(seq), "waits for seq " + seq + ", which it never accepted");
            case RunReply.Refused(var reason, var message) -> check(stale || reason == Reason.NOT_FOUND
                    && (!holds(seq) || closed || cluster.forgetsResults()),
                    "does not give the result of seq " + seq + ": " + reason + " " + message);
            default -> check(false, "answers a question for a result by " + reply);
        }
    }

    /// Checks the description of a run at the end of a history.
    void described(RunReply reply) {
        check(reply instanceof RunReply.Described, "is not described: " + reply);
        var described = (RunReply.Described) reply;
        long now = cluster.loop.now();
        var current = new ArrayList<CheckpointManifest>();
        for (CheckpointManifest v : versions)
            if (newest(v.kind(), v.name().get()).filter(n -> n == v).isPresent() && !over(v, now))
                current.add(v);
        check(described.checkpoints().equals(current),
                "has checkpoints " + described.checkpoints() + " instead of " + current);
        check(described.closed() == closed, "is closed: " + described.closed());
        if (closed) return;
        State last = state(operations.size());
        check(described.step() == last.step(), "is at step " + described.step() + " of " + last.step());
        check(described.lora().equals(last.lora()), "has the shape " + described.lora());
    }

    /// Checks that all referenced blobs exist, that what nobody uses is not kept, and that no other blob of
    /// the run is older than those in flight.
    void settled() {
        Set<BlobId> referenced = referenced();
        referenced.forEach(this::mustExist);
        check(unnamed().isEmpty(), "keeps weights that nobody uses: " + unnamed());
        long before = cluster.loop.now() - cluster.settings().sweepAfter().toMillis();
        cluster.blobs.all(BlobScope.run(run)).filter(b -> b.modifiedMillis() <= before).forEach(b ->
                check(referenced.contains(b.ref().id()), "leaves " + Blobs.shown(b.ref().id())
                        + ", which nothing refers to"));
        if (!closed) state(operations.size());
    }

    // Helpers

    private Accepted op(long position) {
        check(position >= 1 && position <= operations.size(), position + " is outside its op");
        return operations.get((int) position - 1);
    }

    private static boolean over(CheckpointManifest m, long now) {
        return m.expiresAtMillis().filter(at -> at <= now).isPresent();
    }

    private static CheckpointManifest expiring(CheckpointManifest m, Optional<Long> at) {
        return new CheckpointManifest(m.run(), m.kind(), m.name(), m.baseModel(), m.lora(), m.contentId(),
                m.adapter(), m.optimizer(), m.step(), m.settings(), m.optimizerType(), m.userMetadata(),
                m.parent(), m.createdAtMillis(), at);
    }

    private void check(boolean holds, String otherwise) {
        if (!holds) {
            cluster.violated("run " + run + " " + otherwise);
            throw new Violation("run " + run + " " + otherwise);
        }
    }
}
