package bios.coordinator.simulation;

import bios.coordinator.run.NodeMemory;
import bios.coordinator.run.RunSettings;
import bios.coordinator.run.RunEnvironment;
import bios.coordinator.run.ExclusiveReplay;
import bios.coordinator.run.TrainingRunEntity;
import bios.persistence.index.ListingPage;
import bios.persistence.index.RunIndex;
import bios.persistence.index.RunSummary;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.engine.EngineCommand;
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

/// The nodes, their engines and entities, and the network between them and the clients, in one history. It
/// does for entities what sharding does: one home for each run, a new one when its node dies or is taken
/// for dead, another start of an entity that has failed.
final class World {
    /// A process that may hold entities and has one engine.
    final class Node {
        final int id;
        private final SimulatedEngine engine = new SimulatedEngine(World.this, this);
        /// One for each entity: several watchers of one actor would be told of its end in a random order.
        private final List<ActorRef<EngineCommand>> engineRefs = new ArrayList<>();
        private final Map<String, Incarnation> entities = new LinkedHashMap<>();
        private final NodeMemory memory = new NodeMemory(settings.nodeResultBytes());
        private final ExclusiveReplay exclusive = new ExclusiveReplay();
        private boolean dead;
        /// Cut off: the others have given its runs to another node.
        private boolean suspected;

        Node(int id) {
            this.id = id;
            another();
        }

        private ActorRef<EngineCommand> another() {
            engineRefs.add(Adapter.spawnAnonymous(system, engine.behavior()));
            return engineRefs.getLast();
        }

        boolean dead() {
            return dead;
        }

        /// Runs what waits for files. What a dead process had begun may still happen.
        void blocking(Runnable task) {
            long takes = faults.hits(stage, faults.blobSlow)
                    ? stage.between(500, 20_000) : stage.between(0, 60);
            stage.in(takes, () -> {
                if (dead && !stage.oneIn(2)) return;
                acting = Optional.of(this);
                try {
                    task.run();
                } finally {
                    acting = Optional.empty();
                }
            });
        }

        @Override public String toString() {
            return "node " + id;
        }
    }

    /// One life of a run's entity.
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

    /// The index as a map.
    private final class Index implements RunIndex {
        @Override public void put(RunSummary summary, long version) {
            if (faults.hits(stage, faults.indexFails))
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
    /// The node whose blocking work is being done.
    private Optional<Node> acting = Optional.empty();

    final Stage stage;
    final ActorSystem system;
    final Mutation mutation;
    final Faults faults;
    final Journal journal;
    final Blobs blobs;
    private final RunSettings settings;
    private final Consumer<ActorRef<?>> stopWatcher;
    private final RunIndex index = new Index();
    private final Map<String, Ledger> ledgers = new TreeMap<>();
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
    int doubts;

    /// @param stopWatcher told of every entity that begins: tells [#ended] when it stops
    World(Stage stage, ActorSystem system, Mutation mutation, RunSettings settings,
            Consumer<ActorRef<?>> stopWatcher) {
        this.stage = stage;
        this.system = system;
        this.mutation = mutation;
        this.settings = settings;
        this.stopWatcher = stopWatcher;
        this.faults = new Faults(stage);
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

    Ledger ledger(RunId run) {
        return ledgers.computeIfAbsent(run.value(), _ -> new Ledger(this, run));
    }

    void violated(String what) {
        stage.trace(() -> "VIOLATION " + what);
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

    /// Keeps an operation, so that it need not be decoded.
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
        while (nodes.size() < NODES) nodes.add(new Node(nodes.size()));
        if (faults.kill > 0) stage.in(stage.between(0, 2L * faults.kill), this::killOne);
        if (faults.suspect > 0) stage.in(stage.between(0, 2L * faults.suspect), this::suspectOne);
        if (faults.forget > 0) stage.in(stage.between(0, 2L * faults.forget), this::forgetOne);
        if (faults.loseDevice > 0) stage.in(stage.between(0, 2L * faults.loseDevice), this::loseDevice);
        if (faults.move > 0) stage.in(stage.between(0, 2L * faults.move), this::moveOne);
    }

    /// No run that replays nothing keeps the turn.
    void turnsAreFree() {
        for (Node node : nodes)
            if (node.exclusive.held()) violated(node + ": a run keeps the turn and replays nothing");
    }

    /// Whether the node that works on blobs now is one that others take for dead.
    boolean cutOff() {
        return acting.filter(node -> node.suspected || node.dead).isPresent();
    }

    /// Ends all faults; nodes that are cut off die.
    void calm() {
        faults.calm = true;
        stage.trace(() -> "all faults end");
        for (Node node : List.copyOf(nodes)) if (node.suspected) kill(node);
    }

    private boolean delicate(Node node) {
        return node.entities.values().stream().anyMatch(i -> ledger(i.run).inLastAttempt());
    }

    private void killOne() {
        if (faults.calm) return;
        Node node = stage.any(nodes);
        if (!delicate(node)) kill(node);
        stage.in(stage.between(0, 2L * faults.kill), this::killOne);
    }

    private void suspectOne() {
        if (faults.calm) return;
        Node node = stage.any(nodes);
        if (!delicate(node) && !node.suspected) suspect(node);
        stage.in(stage.between(0, 2L * faults.suspect), this::suspectOne);
    }

    private void forgetOne() {
        if (faults.calm) return;
        Node node = stage.any(nodes);
        if (!delicate(node)) node.engine.forget();
        stage.in(stage.between(0, 2L * faults.forget), this::forgetOne);
    }

    /// Ends the engine of a node, and the node soon after: its runs move.
    private void loseDevice() {
        if (faults.calm) return;
        Node node = stage.any(nodes);
        if (!delicate(node)) {
            stage.trace(() -> node + " loses its device");
            node.engineRefs.forEach(World::stop);
            stage.in(stage.between(0, 3_000), () -> kill(node));
        }
        stage.in(stage.between(0, 2L * faults.loseDevice), this::loseDevice);
    }

    /// Gives a run to another node, as rebalancing does: its entity ends first.
    private void moveOne() {
        if (faults.calm) return;
        Node node = stage.any(nodes);
        if (!delicate(node)) for (Incarnation each : List.copyOf(node.entities.values())) {
            stage.trace(() -> each + " is moved");
            each.leaving = true;
            homes.remove(each.run.value(), node);
            stop(each.ref);
        }
        stage.in(stage.between(0, 2L * faults.move), this::moveOne);
    }

    private void kill(Node node) {
        if (node.dead) return;
        stage.trace(() -> node + " dies with " + node.entities.values());
        node.dead = true;
        nodes.remove(node);
        node.engineRefs.forEach(World::stop);
        for (Incarnation each : node.entities.values()) stop(each.ref);
        if (!node.suspected) abandon(node);
        nodes.add(new Node(lives++ + NODES));
    }

    /// Others take a node for dead while it lives.
    private void suspect(Node node) {
        stage.trace(() -> node + " is cut off");
        node.suspected = true;
        doubts++;
        // One that begins last is the one that counts: of two, the one that is not cut off.
        for (Incarnation each : node.entities.values()) if (!each.wrote) stop(each.ref);
        abandon(node);
        nodes.add(new Node(lives++ + NODES));
        stage.in(stage.between(1_000, 40_000), () -> kill(node));
    }

    private void abandon(Node node) {
        homes.values().removeIf(home -> home == node);
        for (Incarnation each : node.entities.values())
            stage.in(stage.between(0, 8_000), () -> home(each.run));
    }

    /// An operation has ended the process that executed it.
    void killedBy(Node node, RunId run, long position) {
        stage.trace(() -> node + " is killed by operation " + position + " of " + shown(run));
        ledger(run).died(position, doubts > 0 || node.suspected);
        if (stage.oneIn(3)) {
            node.engineRefs.forEach(World::stop);
            stage.in(stage.between(0, 3_000), () -> kill(node));
        } else kill(node);
    }

    private static void stop(ActorRef<?> ref) {
        ((InternalActorRef) Adapter.toClassic(ref)).stop();
    }

    /// Ends everything.
    void end() {
        for (Node node : nodes) {
            node.dead = true;
            node.engineRefs.forEach(World::stop);
            for (Incarnation each : node.entities.values()) stop(each.ref);
        }
    }

    // Entities

    private Incarnation home(RunId run) {
        Node node = homes.computeIfAbsent(run.value(),
                _ -> stage.any(nodes.stream().filter(n -> !n.suspected).toList()));
        Incarnation there = node.entities.get(run.value());
        return there != null ? there : begin(run, node);
    }

    private Incarnation begin(RunId run, Node node) {
        var incarnation = new Incarnation(run, lives++, node);
        var world = new RunEnvironment(node.another(), blobs, index, this::resolve,
                () -> Instant.ofEpochMilli(stage.now()), node::blocking, settings, node.memory,
                node.exclusive, () -> stage.now() * 1_000_000,
                resting -> woken.add(resting.value()));
        ActorRef<ClusterSharding.ShardCommand> shard = function("shard", _ -> leave(incarnation));
        incarnation.ref = Adapter.spawnAnonymous(system,
                TrainingRunEntity.create(run, persistenceId(run), world, Optional.of(shard)));
        stage.trace(() -> incarnation + " begins");
        incarnations.put(Adapter.toClassic(incarnation.ref), incarnation);
        node.entities.put(run.value(), incarnation);
        stopWatcher.accept(incarnation.ref);
        return incarnation;
    }

    private void leave(Incarnation incarnation) {
        if (incarnation.leaving) return;
        stage.trace(() -> incarnation + " goes to rest");
        incarnation.leaving = true;
        incarnation.ref.tell(new RunCommand.Leave());
    }

    /// An entity has stopped.
    void ended(ActorRef<?> ref) {
        Incarnation gone = incarnations.get(Adapter.toClassic(ref));
        if (gone == null || gone.node.dead) return;
        stage.trace(() -> gone + " has ended");
        gone.node.entities.remove(gone.run.value(), gone);
        boolean again = woken.remove(gone.run.value());
        if (gone.node.suspected || !again && gone.leaving && homes.get(gone.run.value()) == gone.node) return;
        // One that has failed begins again, and one that is moved elsewhere.
        stage.in(gone.leaving ? 0 : 2_000, () -> home(gone.run));
    }

    Optional<Incarnation> incarnation(org.apache.pekko.actor.ActorRef ref) {
        return Optional.ofNullable(incarnations.get(ref));
    }

    /// Whether the run's entity has left memory.
    boolean atRest(RunId run) {
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

    /// Sends a command to the entity of a run, as a client does. It may come never, late or twice, and so may
    /// its answer.
    ///
    /// @param heard called when an entity answers, with whether it is one that others take for dead:
    ///     before the network has the answer
    void send(RunId run, Function<ActorRef<RunReply>, RunCommand> command,
            BiConsumer<RunReply, Boolean> heard, Consumer<RunReply> received) {
        travel(() -> deliver(run, command, heard, received));
    }

    private void travel(Runnable arrival) {
        int times = faults.hits(stage, faults.drop) ? 0 : faults.hits(stage, faults.repeat) ? 2 : 1;
        for (int i = 0; i < times; i++) {
            long takes = faults.hits(stage, faults.slowNetwork) ? stage.between(500, 8_000)
                    : stage.between(0, 30);
            stage.in(takes, arrival);
        }
    }

    private void deliver(RunId run, Function<ActorRef<RunReply>, RunCommand> command,
            BiConsumer<RunReply, Boolean> heard, Consumer<RunReply> received) {
        Optional<Incarnation> cutOff = nodes.stream().filter(n -> n.suspected)
                .flatMap(n -> Optional.ofNullable(n.entities.get(run.value())).stream()).findFirst();
        Incarnation to = cutOff.isPresent() && stage.oneIn(2) ? cutOff.get() : home(run);
        if (to.leaving) return;
        ActorRef<RunReply> replyTo = function("client", reply -> {
            if (to.node.dead) return;
            stage.trace(() -> to + " answers " + Client.shown(reply));
            heard.accept(reply, to.node.suspected);
            travel(() -> received.accept(reply));
        });
        RunCommand told = command.apply(replyTo);
        stage.trace(() -> to + " is told " + Client.shown(told));
        if (mutation == Mutation.ACKNOWLEDGED_BEFORE_STORED && told instanceof RunCommand.Submit submit)
            replyTo.tell(new RunReply.Accepted(
                    new RequestId(run, submit.seq())));
        to.ref.tell(told);
    }

    private CompletionStage<RunReply> resolve(String owner, CheckpointPath path) {
        var answer = new CompletableFuture<RunReply>();
        if (!ledgers.containsKey(path.run().value()))
            return CompletableFuture.completedFuture(new RunReply.Refused(Reason.NOT_FOUND, "no such run"));
        if (!faults.hits(stage, faults.resolverFails))
            send(path.run(), replyTo -> new RunCommand.Resolve(owner, path, replyTo), (_, _) -> {},
                    answer::complete);
        stage.in(5_000, () -> answer.completeExceptionally(new IOException("nobody answers")));
        return answer;
    }
}
