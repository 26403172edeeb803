package bios.coordinator.simulation;

import bios.coordinator.run.CheckpointResolver;
import bios.coordinator.run.NodeMemory;
import bios.coordinator.run.RunSettings;
import bios.coordinator.run.RunEnvironment;
import bios.coordinator.run.SimulatedRegister;
import bios.coordinator.run.SimulatedRegister.Mark;
import bios.coordinator.run.TrainingRunEntity;
import bios.persistence.index.ListingPage;
import bios.persistence.index.RunIndex;
import bios.persistence.index.RunSummary;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.engine.EngineCommand;
import bios.protocol.run.DeathReport;
import bios.protocol.run.Operation;
import bios.protocol.run.RequestId;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunId;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.BiConsumer;
import java.util.function.Consumer;
import java.util.function.Function;
import org.apache.pekko.actor.ActorSystem;
import org.apache.pekko.actor.InternalActorRef;
import org.apache.pekko.actor.testkit.typed.internal.FunctionRef;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.javadsl.Adapter;
import org.apache.pekko.cluster.sharding.typed.javadsl.ClusterSharding;
import org.apache.pekko.persistence.typed.PersistenceId;
import scala.runtime.BoxedUnit;

/// The nodes with their engines and entities, and the network between them and the clients, in one history.
/// It replaces cluster sharding: each run has one node, and another one when its node ends or is considered
/// dead; an entity that has failed is started again.
final class SimulatedCluster {
    /// A process with one engine and the entities of runs.
    final class Node {
        final int id;
        private final SimulatedEngine engine = new SimulatedEngine(SimulatedCluster.this, this);
        /// One reference for each entity: several watchers of one actor would receive its termination in
        /// random order.
        private final List<ActorRef<EngineCommand>> engineRefs = new ArrayList<>();
        private final Map<String, Incarnation> entities = new LinkedHashMap<>();
        private final NodeMemory memory = new NodeMemory(settings.nodeResultBytes());
        final SimulatedRegister register;
        /// What it was executing together when an operation ended it.
        private Optional<List<Mark>> killedDuring = Optional.empty();
        private boolean dead;
        /// Whether the node is cut off: its runs are started on another node.
        private boolean suspected;

        Node(int id, SimulatedRegister register) {
            this.id = id;
            this.register = register;
            newEngineRef();
        }

        private ActorRef<EngineCommand> newEngineRef() {
            engineRefs.add(Adapter.spawnAnonymous(system, engine.behavior()));
            return engineRefs.getLast();
        }

        boolean dead() {
            return dead;
        }

        /// Runs blocking work after a delay. Work of a dead process may still be executed.
        void blocking(Runnable task) {
            long takes = faults.hits(loop, faults.blobSlow)
                    ? loop.between(500, 20_000) : loop.between(0, 60);
            loop.in(takes, () -> {
                if (dead && !loop.oneIn(2)) return;
                task.run();
            });
        }

        @Override public String toString() {
            return "node " + id;
        }
    }

    /// An incarnation of a run's entity.
    final class Incarnation {
        final RunId run;
        private final int number;
        private final Node node;
        private ActorRef<RunCommand> ref;
        private boolean leaving;
        boolean wrote;

        Incarnation(RunId run, int number, Node node) {
            this.run = run;
            this.number = number;
            this.node = node;
        }

        boolean dead() {
            return node.dead;
        }

        @Override public String toString() {
            return "entity " + number + " of " + shown(run) + " on " + node;
        }
    }

    /// A run index in a map.
    private final class Index implements RunIndex {
        @Override public void put(RunSummary summary, long version) {
            if (faults.hits(loop, faults.indexFails))
                throw new UncheckedIOException(new IOException("the index fails"));
            if (versions.merge(summary.config().run().value(), version, Math::max) <= version)
                rows.put(summary.config().run().value(), summary);
        }

        @Override public void remove(RunId run) {
            rows.remove(run.value());
        }

        @Override public ListingPage<RunSummary> runs(String owner, int limit, long offset) {
            return new ListingPage<>(List.copyOf(rows.values()), rows.size());
        }

        @Override public ListingPage<CheckpointManifest> checkpoints(String owner, int limit, long offset) {
            return new ListingPage<>(List.of(), 0);
        }
    }

    private static final int NODES = 2;

    final EventLoop loop;
    final ActorSystem system;
    final Mutation mutation;
    final Faults faults;
    final Journal journal;
    final Blobs blobs;
    private final RunSettings settings;
    /// What the entities use: the same, unless a mutation says otherwise.
    private final RunSettings used;
    private final Consumer<ActorRef<?>> stopWatcher;
    private final RunIndex index = new Index();
    private final Map<String, RunOracle> oracles = new TreeMap<>();
    private final Map<String, Long> versions = new TreeMap<>();
    final Map<String, RunSummary> rows = new TreeMap<>();
    private final Map<String, Operation> operations = new HashMap<>();
    private final List<Node> nodes = new ArrayList<>();
    private final Map<String, Node> homes = new TreeMap<>();
    private final Set<String> woken = new HashSet<>();
    private final Map<org.apache.pekko.actor.ActorRef, Incarnation> incarnations = new HashMap<>();
    private Optional<String> violation = Optional.empty();
    private int lives;
    private int requests;
    int suspicions;
    private int deaths;
    private final List<SimulatedRegister> registers = new ArrayList<>();

    /// @param stopWatcher receives every started entity and calls [#ended] when it stops
    SimulatedCluster(EventLoop loop, ActorSystem system, Mutation mutation, RunSettings settings,
            RunSettings used, boolean calm, Consumer<ActorRef<?>> stopWatcher) {
        this.loop = loop;
        this.system = system;
        this.mutation = mutation;
        this.settings = settings;
        this.used = used;
        this.stopWatcher = stopWatcher;
        this.faults = new Faults(loop, calm);
        this.blobs = new Blobs(this);
        this.journal = new Journal(this);
    }

    static String shown(RunId run) {
        return run.value().substring(run.value().length() - 2);
    }

    static PersistenceId persistenceId(RunId run) {
        return PersistenceId.of("run-" + run.slug(), run.value());
    }

    // The oracle

    RunOracle oracle(RunId run) {
        return oracles.computeIfAbsent(run.value(), _ -> new RunOracle(this, run));
    }

    void violated(String what) {
        loop.trace(() -> "VIOLATION " + what);
        if (violation.isEmpty()) violation = Optional.of(what);
    }

    Optional<String> violation() {
        return violation;
    }

    int attempts() {
        return settings.attempts();
    }

    boolean forgetsResults() {
        return settings.maxResults() < 1000;
    }

    RunSettings settings() {
        return settings;
    }

    /// Stores an operation under its digest, so that it need not be decoded.
    void remember(String digest, Operation operation) {
        operations.put(digest, operation);
    }

    Operation operation(String digest) {
        Operation found = operations.get(digest);
        if (found == null) throw new Violation("an operation that nobody sent: " + digest);
        return found;
    }

    // Nodes

    void begin() {
        while (nodes.size() < NODES) nodes.add(newNode(nodes.size()));
        if (faults.kill > 0) loop.in(loop.between(0, 2L * faults.kill), this::killOne);
        if (faults.suspect > 0) loop.in(loop.between(0, 2L * faults.suspect), this::suspectOne);
        if (faults.forget > 0) loop.in(loop.between(0, 2L * faults.forget), this::forgetOne);
        if (faults.loseDevice > 0) loop.in(loop.between(0, 2L * faults.loseDevice), this::loseDevice);
        if (faults.move > 0) loop.in(loop.between(0, 2L * faults.move), this::moveOne);
    }

    /// Ends all faults and all nodes that are cut off.
    void endFaults() {
        faults.ended = true;
        loop.trace(() -> "all faults end");
        for (Node node : List.copyOf(nodes)) if (node.suspected) kill(node);
    }

    private void killOne() {
        if (faults.ended) return;
        Node node = loop.any(nodes);
        kill(node);
        loop.in(loop.between(0, 2L * faults.kill), this::killOne);
    }

    private void suspectOne() {
        if (faults.ended) return;
        Node node = loop.any(nodes);
        if (!node.suspected) suspect(node);
        loop.in(loop.between(0, 2L * faults.suspect), this::suspectOne);
    }

    private void forgetOne() {
        if (faults.ended) return;
        Node node = loop.any(nodes);
        node.engine.loseRuns();
        loop.in(loop.between(0, 2L * faults.forget), this::forgetOne);
    }

    /// Ends the engine of a node, and soon after the node, so that its runs move.
    private void loseDevice() {
        if (faults.ended) return;
        Node node = loop.any(nodes);
        loop.trace(() -> node + " loses its device");
        node.engineRefs.forEach(SimulatedCluster::stop);
        loop.in(loop.between(0, 3_000), () -> kill(node));
        loop.in(loop.between(0, 2L * faults.loseDevice), this::loseDevice);
    }

    /// Moves the runs of a node, as rebalancing does: their entities stop first.
    private void moveOne() {
        if (faults.ended) return;
        Node node = loop.any(nodes);
        for (Incarnation each : List.copyOf(node.entities.values())) {
            loop.trace(() -> each + " is moved");
            each.leaving = true;
            homes.remove(each.run.value(), node);
            stop(each.ref);
        }
        loop.in(loop.between(0, 2L * faults.move), this::moveOne);
    }

    private void kill(Node node) {
        if (node.dead) return;
        if (node.killedDuring.isEmpty()) deaths++;
        loop.trace(() -> node + " dies with " + node.entities.values());
        node.dead = true;
        nodes.remove(node);
        node.engineRefs.forEach(SimulatedCluster::stop);
        for (Incarnation each : node.entities.values()) stop(each.ref);
        if (!node.suspected) abandon(node);
        startAgain(node);
    }

    /// Ends the process of a node in the register that its next process takes over, which tells the runs.
    private void startAgain(Node node) {
        node.register.died(node.killedDuring.orElseGet(() -> executing(node)));
        nodes.add(new Node(lives++ + NODES, node.register));
        for (DeathReport report : node.register.reports())
            loop.in(loop.between(0, 8_000), () ->
                    home(report.run()).ref.tell(new RunCommand.ReportDeath(report)));
    }

    /// What a node executes at a random moment: nothing, or one operation alone, or several together. A
    /// random end does not meet the same operation alone so often in a row.
    private List<Mark> executing(Node node) {
        List<SimulatedEngine.Work> active = node.engine.executing();
        if (active.isEmpty() || loop.oneIn(2)) return List.of();
        SimulatedEngine.Work one = loop.any(active);
        var marks = new ArrayList<Mark>();
        for (SimulatedEngine.Work other : active)
            if (other == one || !one.alone() && !other.alone() && loop.oneIn(2)) marks.add(other.mark());
        int before = registers.stream().mapToInt(r -> r.alone(one.mark().run(), one.mark().position())).sum();
        return marks.size() == 1 && before >= settings.attempts() - 1 ? List.of() : marks;
    }

    private Node newNode(int id) {
        registers.add(new SimulatedRegister("worker-" + registers.size()));
        return new Node(id, registers.getLast());
    }

    /// Cuts a node off: it continues, but its runs are started on another node.
    private void suspect(Node node) {
        loop.trace(() -> node + " is cut off");
        node.suspected = true;
        suspicions++;
        // The entity that persists EntityBegan last is authoritative. It must not be on this node, so
        // entities that have not written yet are stopped.
        for (Incarnation each : node.entities.values()) if (!each.wrote) stop(each.ref);
        abandon(node);
        nodes.add(newNode(lives++ + NODES));
        loop.in(loop.between(1_000, 40_000), () -> kill(node));
    }

    private void abandon(Node node) {
        homes.values().removeIf(home -> home == node);
        for (Incarnation each : node.entities.values())
            loop.in(loop.between(0, 8_000), () -> home(each.run));
    }

    /// Ends the process of a node because of an operation.
    void killedBy(Node node, SimulatedEngine.Work operation) {
        RunId run = operation.mark().run();
        long position = operation.mark().position();
        loop.trace(() -> node + " is killed by operation " + position + " of " + shown(run));
        oracle(run).died(position, suspicions + deaths);
        var marks = new ArrayList<>(List.of(operation.mark()));
        for (SimulatedEngine.Work other : node.engine.executing())
            if (!other.mark().equals(operation.mark()) && !operation.alone() && !other.alone()
                    && loop.oneIn(2)) marks.add(other.mark());
        node.killedDuring = Optional.of(marks);
        if (loop.oneIn(3)) {
            node.engineRefs.forEach(SimulatedCluster::stop);
            loop.in(loop.between(0, 3_000), () -> kill(node));
        } else kill(node);
    }

    private static void stop(ActorRef<?> ref) {
        ((InternalActorRef) Adapter.toClassic(ref)).stop();
    }

    /// Ends all nodes.
    void end() {
        for (Node node : nodes) {
            node.dead = true;
            node.engineRefs.forEach(SimulatedCluster::stop);
            for (Incarnation each : node.entities.values()) stop(each.ref);
        }
    }

    // Entities

    private Incarnation home(RunId run) {
        Node node = homes.computeIfAbsent(run.value(),
                _ -> loop.any(nodes.stream().filter(n -> !n.suspected).toList()));
        Incarnation there = node.entities.get(run.value());
        return there != null ? there : begin(run, node);
    }

    private Incarnation begin(RunId run, Node node) {
        var incarnation = new Incarnation(run, lives++, node);
        var environment = new RunEnvironment(node.newEngineRef(), blobs, index, new Others(),
                () -> Instant.ofEpochMilli(loop.now()), node::blocking, used, node.memory,
                node.register::report, node.register::executed, (_, _) -> {},
                () -> loop.now() * 1_000_000,
                resting -> woken.add(resting.value()));
        ActorRef<ClusterSharding.ShardCommand> shard = function("shard", _ -> leave(incarnation));
        incarnation.ref = Adapter.spawnAnonymous(system,
                TrainingRunEntity.create(run, persistenceId(run), environment, Optional.of(shard)));
        loop.trace(() -> incarnation + " begins");
        incarnations.put(Adapter.toClassic(incarnation.ref), incarnation);
        node.entities.put(run.value(), incarnation);
        stopWatcher.accept(incarnation.ref);
        return incarnation;
    }

    private void leave(Incarnation incarnation) {
        if (incarnation.leaving) return;
        loop.trace(() -> incarnation + " goes to rest");
        incarnation.leaving = true;
        incarnation.ref.tell(new RunCommand.Leave());
    }

    /// Handles the end of an entity.
    void ended(ActorRef<?> ref) {
        Incarnation gone = incarnations.get(Adapter.toClassic(ref));
        if (gone == null || gone.node.dead) return;
        loop.trace(() -> gone + " has ended");
        gone.node.entities.remove(gone.run.value(), gone);
        boolean again = woken.remove(gone.run.value());
        if (gone.node.suspected || !again && gone.leaving && homes.get(gone.run.value()) == gone.node) return;
        // A failed entity is started again, and so is a moved one, on another node.
        loop.in(gone.leaving ? 0 : 2_000, () -> home(gone.run));
    }

    Optional<Incarnation> incarnation(org.apache.pekko.actor.ActorRef ref) {
        return Optional.ofNullable(incarnations.get(ref));
    }

    /// Whether no entity of the run is in memory.
    boolean isPassivated(RunId run) {
        return nodes.stream().noneMatch(n -> n.entities.containsKey(run.value()));
    }

    private <T> ActorRef<T> function(String name, Consumer<T> told) {
        return new FunctionRef<>(Adapter.toClassic(nodes.getFirst().engineRefs.getFirst()).path().root()
                .child(name + requests++), (T message, FunctionRef<T> _) -> {
                    told.accept(message);
                    return BoxedUnit.UNIT;
                });
    }

    // The network

    /// Sends a command to the entity of a run, as a client does. The command and its reply may be lost,
    /// delayed or repeated.
    ///
    /// @param onReply called when the entity replies, before the reply is transmitted; the flag says whether
    ///     its node is cut off
    void send(RunId run, Function<ActorRef<RunReply>, RunCommand> command,
            BiConsumer<RunReply, Boolean> onReply, Consumer<RunReply> received) {
        transmit(() -> deliver(run, command, onReply, received));
    }

    private void transmit(Runnable arrival) {
        int times = faults.hits(loop, faults.drop) ? 0 : faults.hits(loop, faults.repeat) ? 2 : 1;
        for (int i = 0; i < times; i++) {
            long takes = faults.hits(loop, faults.slowNetwork) ? loop.between(500, 8_000)
                    : loop.between(0, 30);
            loop.in(takes, arrival);
        }
    }

    private void deliver(RunId run, Function<ActorRef<RunReply>, RunCommand> command,
            BiConsumer<RunReply, Boolean> onReply, Consumer<RunReply> received) {
        Optional<Incarnation> cutOff = nodes.stream().filter(n -> n.suspected)
                .flatMap(n -> Optional.ofNullable(n.entities.get(run.value())).stream()).findFirst();
        Incarnation to = cutOff.isPresent() && loop.oneIn(2) ? cutOff.get() : home(run);
        if (to.leaving) return;
        ActorRef<RunReply> replyTo = function("client", reply -> {
            if (to.node.dead) return;
            loop.trace(() -> to + " answers " + Client.shown(reply));
            onReply.accept(reply, to.node.suspected);
            transmit(() -> received.accept(reply));
        });
        RunCommand told = command.apply(replyTo);
        loop.trace(() -> to + " is told " + Client.shown(told));
        if (mutation == Mutation.ACKNOWLEDGED_BEFORE_STORED && told instanceof RunCommand.Submit submit)
            replyTo.tell(new RunReply.Accepted(
                    new RequestId(run, submit.seq())));
        to.ref.tell(told);
    }

    private CompletionStage<RunReply> resolve(String owner, CheckpointPath path) {
        var answer = new CompletableFuture<RunReply>();
        if (!oracles.containsKey(path.run().value()))
            return CompletableFuture.completedFuture(new RunReply.Refused(Reason.NOT_FOUND, "no such run"));
        if (!faults.hits(loop, faults.resolverFails)) find(owner, path, reply -> {
            answer.complete(reply);
            if (reply instanceof RunReply.Resolved(var manifest) && loop.oneIn(2))
                loop.in(loop.between(0, 2_000), () -> delete(owner, manifest));
        });
        loop.in(5_000, () -> answer.completeExceptionally(new IOException("nobody answers")));
        return answer;
    }

    /// Deletes a checkpoint that another run is just loading.
    private void delete(String owner, CheckpointManifest m) {
        send(m.run(), to -> new RunCommand.DeleteCheckpoint(owner, m.kind(), m.name().orElseThrow(), to),
                (_, _) -> {}, _ -> {});
    }

    /// Finds a checkpoint, as a client or another run does.
    void find(String owner, CheckpointPath path, Consumer<RunReply> received) {
        send(path.run(), replyTo -> new RunCommand.Resolve(owner, path, replyTo), (reply, stale) -> {
            if (reply instanceof RunReply.Resolved(var manifest) && !stale)
                oracle(path.run()).used(manifest.adapter().id(), false);
        }, received);
    }

    /// Tells a run that weights of it are in use.
    void keep(String owner, BlobId adapter, boolean loaded, Consumer<RunReply> received) {
        RunId run = BlobScope.run(adapter);
        send(run, replyTo -> new RunCommand.KeepWeights(owner, adapter, loaded, replyTo),
                (reply, stale) -> oracle(run).kept(adapter, loaded, reply, stale), received);
    }

    /// Checks that no run refers to a blob that is deleted or missing.
    void gone(BlobId id, String how) {
        oracles.values().forEach(each -> each.gone(id, how));
    }

    /// Other runs, for a run that loads their checkpoints.
    private final class Others implements CheckpointResolver {
        @Override public CompletionStage<RunReply> resolve(String owner, CheckpointPath path) {
            return SimulatedCluster.this.resolve(owner, path);
        }

        @Override public CompletionStage<RunReply> keepWeights(String owner, BlobId adapter, boolean loaded) {
            if (mutation == Mutation.LOADS_ARE_NOT_TOLD)
                return CompletableFuture.completedFuture(new RunReply.Done());
            var answer = new CompletableFuture<RunReply>();
            SimulatedCluster.this.keep(owner, adapter, loaded, answer::complete);
            loop.in(5_000, () -> answer.completeExceptionally(new IOException("nobody answers")));
            return answer;
        }
    }
}
