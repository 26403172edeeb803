package bios.coordinator.simulation;

import bios.coordinator.run.SimulatedRegister.Mark;
import bios.coordinator.simulation.ModelEngine.Done;
import bios.coordinator.simulation.ModelEngine.Loaded;
import bios.coordinator.simulation.ModelEngine.State;
import bios.persistence.blob.BlobDamaged;
import bios.persistence.blob.BlobMissing;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.function.Supplier;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.javadsl.Behaviors;

/// The engine of a node: [ModelEngine] behind the real engine's messages. Runs are executed concurrently,
/// each in order. States are written in the background; a save delays later events, a recovery point does
/// not. The engine can lose all states, and it ends with its node.
final class SimulatedEngine {
    private static final int MAX_REFUSALS = 3;
    private static final Fault NOT_OPEN = Fault.server(EngineCommand.RUN_NOT_OPEN, "not here");

    /// The place of a future event in the order of events.
    private static final class Slot {
        final EngineCommand command;
        final ActorRef<EngineEvent> to;
        final boolean overtaken;
        Optional<EngineEvent> event = Optional.empty();

        Slot(EngineCommand command, ActorRef<EngineEvent> to, boolean overtaken) {
            this.command = command;
            this.to = to;
            this.overtaken = overtaken;
        }
    }

    /// A command in a queue.
    record Work(EngineCommand command, Slot slot) {
        /// The operation, as marks name it; only of [EngineCommand.Execute].
        Mark mark() {
            var execute = (EngineCommand.Execute) command;
            return new Mark(execute.run(), execute.position());
        }

        boolean alone() {
            return command instanceof EngineCommand.Execute execute && execute.alone();
        }
    }

    private static final class RunQueue {
        final RunConfig config;
        final long incarnation;
        final Deque<Work> waiting = new ArrayDeque<>();
        final List<Slot> slots = new ArrayList<>();
        Optional<State> state = Optional.empty();
        Optional<State> before = Optional.empty();
        boolean busy;
        Optional<Work> executing = Optional.empty();
        boolean replays;
        boolean interrupted;
        /// The arrival time of the last answer, because answers of a run stay in order.
        long answersUntil;

        RunQueue(RunConfig config, long incarnation) {
            this.config = config;
            this.incarnation = incarnation;
        }
    }

    private final SimulatedCluster cluster;
    private final SimulatedCluster.Node node;
    private final Map<String, RunQueue> queues = new TreeMap<>();
    private final Set<String> known = new HashSet<>();
    private final Map<String, Integer> refused = new TreeMap<>();

    SimulatedEngine(SimulatedCluster cluster, SimulatedCluster.Node node) {
        this.cluster = cluster;
        this.node = node;
    }

    Behavior<EngineCommand> behavior() {
        return Behaviors.receiveMessage(command -> {
            if (!node.dead()) handle(command);
            return Behaviors.same();
        });
    }

    /// Loses all states, like an engine that was restarted, and fails all waiting commands.
    void loseRuns() {
        cluster.loop.trace(() -> node + " forgets its runs");
        List<RunQueue> lost = List.copyOf(queues.values());
        queues.clear();
        lost.forEach(SimulatedEngine::lost);
    }

    /// Answers every command of a queue that has no answer yet.
    private static void lost(RunQueue queue) {
        var run = queue.config.run();
        for (Slot slot : queue.slots) slot.to.tell(switch (slot.command) {
            case EngineCommand.Execute c -> notOpen(run, c.position());
            case EngineCommand.TakeRecoveryPoint c ->
                    new EngineEvent.RecoveryPointFailed(run, c.position(), NOT_OPEN);
            default -> new EngineEvent.OpenFailed(run, NOT_OPEN);
        });
        queue.slots.clear();
    }

    private static EngineEvent notOpen(RunId run, long position) {
        return new EngineEvent.Failed(run, position, NOT_OPEN);
    }

    private void handle(EngineCommand command) {
        switch (command) {
            case EngineCommand.OpenRun open -> {
                var queue = new RunQueue(open.config(), open.incarnation());
                queue.replays = !known.add(open.config().run().value()) || open.recoveryPoint().isPresent()
                        || cluster.oracle(open.config().run()).accepted() > 3;
                queues.put(open.config().run().value(), queue);
                add(queue, command, open.replyTo(), false);
            }
            case EngineCommand.Execute(var run, var position, _, _, _, _, var replyTo) -> {
                RunQueue queue = queues.get(run.value());
                if (queue == null) {
                    replyTo.tell(notOpen(run, position));
                    return;
                }
                add(queue, command, replyTo, false);
            }
            case EngineCommand.TakeRecoveryPoint(var run, var position, var replyTo) -> {
                RunQueue queue = queues.get(run.value());
                if (queue == null) replyTo.tell(new EngineEvent.RecoveryPointFailed(run, position, NOT_OPEN));
                else add(queue, command, replyTo, true);
            }
            case EngineCommand.CloseRun(var run) -> queues.remove(run.value());
            default -> {} // commands that need no reply
        }
    }

    private void add(RunQueue queue, EngineCommand command, ActorRef<EngineEvent> to, boolean overtaken) {
        var slot = new Slot(command, to, overtaken);
        queue.slots.add(slot);
        queue.waiting.add(new Work(command, slot));
        if (cluster.mutation == Mutation.ENGINE_SWAPS_OPERATIONS && queue.waiting.size() > 2
                && cluster.loop.oneIn(4)) {
            Work last = queue.waiting.removeLast();
            Work other = queue.waiting.removeLast();
            queue.waiting.add(last);
            queue.waiting.add(other);
        }
        next(queue);
    }

    /// The operations that are being executed.
    List<Work> executing() {
        return queues.values().stream().filter(q -> q.busy && q.executing.isPresent())
                .flatMap(q -> q.executing.stream())
                .filter(w -> w.command() instanceof EngineCommand.Execute).toList();
    }

    private boolean current(RunQueue queue) {
        return !node.dead() && queues.get(queue.config.run().value()) == queue;
    }

    private void next(RunQueue queue) {
        if (queue.busy || queue.waiting.isEmpty()) return;
        queue.busy = true;
        queue.executing = Optional.ofNullable(queue.waiting.peekFirst());
        long takes = cluster.loop.oneIn(10) ? cluster.loop.between(50, 1_500) : cluster.loop.between(1, 40);
        cluster.loop.in(takes, () -> {
            if (!current(queue)) return;
            Work entry = queue.waiting.removeFirst();
            perform(queue, entry);
            queue.busy = false;
            if (current(queue)) next(queue);
        });
    }

    private void perform(RunQueue queue, Work entry) {
        RunId run = queue.config.run();
        switch (entry.command()) {
            case EngineCommand.OpenRun(_, var lora, var point, _, _) -> {
                if (refuses(run.value())) {
                    boolean full = cluster.loop.oneIn(2);
                    queues.remove(run.value());
                    fill(queue, entry.slot(), new EngineEvent.OpenFailed(run, Fault.server(
                            full ? "out_of_memory" : "store_failed", "no room now")));
                    lost(queue);
                    return;
                }
                try {
                    queue.state = Optional.of(point.isEmpty() ? State.fresh(lora)
                            : State.read(text(point.get()), lora));
                    fill(queue, entry.slot(), new EngineEvent.Opened(run));
                } catch (RuntimeException failed) {
                    var fault = fault(failed);
                    fill(queue, entry.slot(), new EngineEvent.OpenFailed(run, fault));
                    queues.remove(run.value());
                    lost(queue);
                }
            }
            case EngineCommand.TakeRecoveryPoint(_, var position, _) -> takePoint(queue, entry, position);
            case EngineCommand.Execute execute -> execute(queue, entry, execute);
            default -> throw new IllegalStateException("not in a queue: " + entry.command());
        }
    }

    private void takePoint(RunQueue queue, Work entry, long position) {
        RunId run = queue.config.run();
        State state = queue.state.orElseThrow();
        State copied = cluster.mutation == Mutation.POINT_IS_TAKEN_EARLY && queue.before.isPresent()
                && cluster.loop.oneIn(2) ? queue.before.get() : state;
        keep(queue, entry, () -> {
            if (cluster.mutation == Mutation.POINT_NEVER_COMES) throw new BlobMissing(null);
            BlobRef blob = cluster.blobs.put(BlobScope.recovery(run, queue.incarnation),
                    bytes(copied.text()));
            return new EngineEvent.RecoveryPointWritten(run, position, blob, state.step(), state.lora());
        }, fault -> new EngineEvent.RecoveryPointFailed(run, position, fault));
    }

    private void execute(RunQueue queue, Work entry, EngineCommand.Execute c) {
        RunId run = queue.config.run();
        cluster.loop.trace(() -> node + " executes " + c.position() + " " + c.operation().kind());
        if (c.operation() instanceof StoredOperation.Refused(var kind, _)
                && kind == OperationKind.OPTIM_STEP) {
            drop(queue, entry, c);
            return;
        }
        Operation operation;
        String digest;
        Optional<Loaded> loaded;
        try {
            byte[] encoded = switch (c.operation()) {
                case StoredOperation.Inline(_, var inline) -> inline;
                case StoredOperation.InBlob(_, var blob) -> cluster.blobs.readSmall(blob, 1 << 30);
                case StoredOperation.Refused refused ->
                        throw new IllegalStateException("never executed: " + refused);
            };
            digest = StoredOperations.digest(encoded);
            operation = cluster.operation(digest);
            loaded = c.loaded().map(m -> new Loaded(m, text(m.adapter()), m.optimizer().map(this::text)));
        } catch (RuntimeException failed) {
            queue.interrupted = true;
            fill(queue, entry.slot(), new EngineEvent.Failed(run, c.position(), fault(failed)));
            return;
        }
        if (operation instanceof Operation.ForwardBackward f
                && f.settings().containsKey(ModelEngine.KILL)) {
            queue.interrupted = true;
            cluster.killedBy(node, entry);
            return;
        }
        State before = queue.state.orElseThrow();
        Done done = ModelEngine.execute(before, operation, digest, loaded);
        State after = mutated(queue, before, done, operation, digest);
        queue.interrupted |= done.fault().isPresent();
        if (!queue.interrupted) node.register.executed(run, c.position());
        queue.before = Optional.of(before);
        queue.state = Optional.of(after);
        if (done.fault().isPresent())
            fill(queue, entry.slot(), new EngineEvent.Failed(run, c.position(), done.fault().get()));
        else if (done.result().isPresent())
            fill(queue, entry.slot(), new EngineEvent.Executed(
            run, c.position(), shown(done.result().get())));
        else save(queue, entry, c, operation, cluster.mutation == Mutation.SAVE_IS_TAKEN_LATE
                && queue.waiting.peek() instanceof Work(EngineCommand.Execute following, _)
                ? after(after, following) : after);
    }

    private void drop(RunQueue queue, Work entry, EngineCommand.Execute c) {
        State before = queue.state.orElseThrow();
        if (!queue.interrupted) node.register.executed(queue.config.run(), c.position());
        queue.before = Optional.of(before);
        if (cluster.mutation != Mutation.ENGINE_KEEPS_THE_REST_OF_A_BATCH)
            queue.state = Optional.of(before.withoutGradient());
        fill(queue, entry.slot(), new EngineEvent.Executed(queue.config.run(), c.position(),
                new OperationResult.Stepped(before.step(), Map.of())));
    }

    private State mutated(RunQueue queue, State before, Done done, Operation operation, String digest) {
        boolean counts = queue.replays && operation instanceof Operation.ForwardBackward
                && done.result().isPresent() && cluster.loop.oneIn(8);
        if (counts && cluster.mutation == Mutation.ENGINE_LOSES_AN_OPERATION_OF_A_REPLAY) return before;
        if (counts && cluster.mutation == Mutation.ENGINE_REPEATS_AN_OPERATION_OF_A_REPLAY)
            return ModelEngine.execute(done.state(), operation, digest, Optional.empty()).state();
        return done.state();
    }

    private State after(State state, EngineCommand.Execute following) {
        if (!(following.operation() instanceof StoredOperation.Inline(_, var encoded))
                || following.loaded().isPresent()) return state;
        String digest = StoredOperations.digest(encoded);
        return ModelEngine.execute(state, cluster.operation(digest), digest, Optional.empty()).state();
    }

    private OperationResult shown(OperationResult result) {
        return cluster.mutation == Mutation.RESULT_DEPENDS_ON_THE_NODE
                && result instanceof OperationResult.Evaluated(var logprobs, _)
                ? new OperationResult.Evaluated(logprobs, Map.of("loss:sum", (double) node.id)) : result;
    }

    private void save(RunQueue queue, Work entry, EngineCommand.Execute c, Operation operation, State state) {
        RunId run = queue.config.run();
        keep(queue, entry, () -> {
            String scope = BlobScope.checkpoints(run, queue.incarnation);
            BlobRef adapter = cluster.blobs.put(scope, bytes(state.weights()));
            Optional<BlobRef> optimizer = operation instanceof Operation.SaveState
                    ? Optional.of(cluster.blobs.put(scope, bytes(state.optimizer())))
                    : Optional.empty();
            return new EngineEvent.Executed(run, c.position(), new OperationResult.Saved(ModelEngine
                    .manifest(queue.config, state, operation, adapter, optimizer, c.acceptedAtMillis())));
        }, fault -> new EngineEvent.Failed(run, c.position(), fault));
    }

    private interface Refusal {
        EngineEvent of(Fault fault);
    }

    private void keep(RunQueue queue, Work entry, Supplier<EngineEvent> work, Refusal refusal) {
        node.blocking(() -> {
            EngineEvent event;
            try {
                event = work.get();
            } catch (RuntimeException failed) {
                event = refusal.of(fault(failed));
            }
            if (current(queue)) fill(queue, entry.slot(), event);
        });
    }

    private void fill(RunQueue queue, Slot slot, EngineEvent event) {
        slot.event = Optional.of(event);
        for (var each = queue.slots.iterator(); each.hasNext(); ) {
            Slot next = each.next();
            if (next.event.isEmpty() && next.overtaken) continue;
            if (next.event.isEmpty()) return;
            each.remove();
            send(queue, next.to, next.event.get());
        }
    }

    /// Whether the engine refuses to open a run now. The number of consecutive refusals is below the limit at
    /// which operations fail.
    private boolean refuses(String run) {
        boolean refuses = cluster.faults.hits(cluster.loop, cluster.faults.refuse)
                && refused.getOrDefault(run, 0) < MAX_REFUSALS;
        if (refuses) {
            refused.merge(run, 1, Integer::sum);
            cluster.loop.trace(() -> node + " refuses to open " + run);
        } else refused.remove(run);
        return refuses;
    }

    private void send(RunQueue queue, ActorRef<EngineEvent> to, EngineEvent event) {
        long now = cluster.loop.now();
        long late = cluster.faults.hits(cluster.loop, cluster.faults.late)
                ? cluster.loop.between(500, 6_000) : 0;
        queue.answersUntil = Math.max(queue.answersUntil, now + late);
        if (queue.answersUntil == now) tell(to, event);
        else cluster.loop.in(queue.answersUntil - now, () -> {
            cluster.loop.trace(() -> node + " answers late: " + event);
            tell(to, event);
        });
    }

    private static void tell(ActorRef<EngineEvent> to, EngineEvent event) {
        if (event instanceof EngineEvent.Executed(var run, var position, _))
            to.tell(new EngineEvent.Measured(run, position, position));
        to.tell(event);
    }

    private String text(BlobRef blob) {
        return new String(cluster.blobs.readSmall(blob, 1 << 30), StandardCharsets.UTF_8);
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static Fault fault(RuntimeException failed) {
        return Fault.server(switch (failed) {
            case BlobMissing _ -> "blob_missing";
            case BlobDamaged _ -> "blob_damaged";
            case UncheckedIOException _ -> "store_failed";
            default -> throw failed;
        }, String.valueOf(failed.getMessage()));
    }
}
