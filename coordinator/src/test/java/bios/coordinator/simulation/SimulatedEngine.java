package bios.coordinator.simulation;

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

/// The engine of a node: [ModelEngine] behind the real engine's messages. Runs are executed side by side,
/// each in order; states are written in the background, saves hold up the events behind them, recovery points
/// do not. It may forget everything, and it dies with its node.
final class SimulatedEngine {
    private static final int MOST_REFUSALS = 3;
    private static final Fault NOT_HERE = Fault.server(EngineCommand.RUN_NOT_OPEN, "not here");

    /// The place of an event that is still to come.
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

    private record Work(EngineCommand command, Slot slot) {}

    private static final class Line {
        final RunConfig config;
        final Deque<Work> waiting = new ArrayDeque<>();
        final List<Slot> slots = new ArrayList<>();
        Optional<State> state = Optional.empty();
        Optional<State> before = Optional.empty();
        boolean busy;
        boolean replays;
        /// When the last answer arrives: answers of a run stay in order.
        long answersUntil;

        Line(RunConfig config) {
            this.config = config;
        }
    }

    private final World world;
    private final World.Node node;
    private final Map<String, Line> lines = new TreeMap<>();
    private final Set<String> known = new HashSet<>();
    private final Map<String, Integer> refused = new TreeMap<>();

    SimulatedEngine(World world, World.Node node) {
        this.world = world;
        this.node = node;
    }

    Behavior<EngineCommand> behavior() {
        return Behaviors.receiveMessage(command -> {
            if (!node.dead()) obey(command);
            return Behaviors.same();
        });
    }

    /// Loses all states, as an engine that was started again; says so to those that wait.
    void forget() {
        world.stage.trace(() -> node + " forgets its runs");
        List<Line> lost = List.copyOf(lines.values());
        lines.clear();
        lost.forEach(SimulatedEngine::lost);
    }

    /// Answers whatever a line still owes.
    private static void lost(Line line) {
        var run = line.config.run();
        for (Slot slot : line.slots) slot.to.tell(switch (slot.command) {
            case EngineCommand.Execute c -> notOpen(run, c.position());
            case EngineCommand.TakeRecoveryPoint c ->
                    new EngineEvent.RecoveryPointFailed(run, c.position(), NOT_HERE);
            default -> new EngineEvent.OpenFailed(run, NOT_HERE);
        });
        line.slots.clear();
    }

    private static EngineEvent notOpen(RunId run, long position) {
        return new EngineEvent.Failed(run, position, NOT_HERE);
    }

    private void obey(EngineCommand command) {
        switch (command) {
            case EngineCommand.OpenRun open -> {
                var line = new Line(open.config());
                line.replays = !known.add(open.config().run().value()) || open.recoveryPoint().isPresent()
                        || world.ledger(open.config().run()).accepted() > 3;
                lines.put(open.config().run().value(), line);
                add(line, command, open.replyTo(), false);
            }
            case EngineCommand.Execute(var run, var position, _, _, _, var replyTo) -> {
                Line line = lines.get(run.value());
                if (line == null) {
                    replyTo.tell(notOpen(run, position));
                    return;
                }
                add(line, command, replyTo, false);
            }
            case EngineCommand.TakeRecoveryPoint(var run, var position, var replyTo) -> {
                Line line = lines.get(run.value());
                if (line == null) replyTo.tell(new EngineEvent.RecoveryPointFailed(run, position, NOT_HERE));
                else add(line, command, replyTo, true);
            }
            case EngineCommand.CloseRun(var run) -> lines.remove(run.value());
            default -> {} // nothing that a run's entity must have an answer to
        }
    }

    private void add(Line line, EngineCommand command, ActorRef<EngineEvent> to, boolean overtaken) {
        var slot = new Slot(command, to, overtaken);
        line.slots.add(slot);
        line.waiting.add(new Work(command, slot));
        if (world.mutation == Mutation.ENGINE_SWAPS_OPERATIONS && line.waiting.size() > 2
                && world.stage.oneIn(4)) {
            Work last = line.waiting.removeLast();
            Work other = line.waiting.removeLast();
            line.waiting.add(last);
            line.waiting.add(other);
        }
        next(line);
    }

    private boolean current(Line line) {
        return !node.dead() && lines.get(line.config.run().value()) == line;
    }

    private void next(Line line) {
        if (line.busy || line.waiting.isEmpty()) return;
        line.busy = true;
        long takes = world.stage.oneIn(10) ? world.stage.between(50, 1_500) : world.stage.between(1, 40);
        world.stage.in(takes, () -> {
            if (!current(line)) return;
            Work entry = line.waiting.removeFirst();
            perform(line, entry);
            line.busy = false;
            if (current(line)) next(line);
        });
    }

    private void perform(Line line, Work entry) {
        RunId run = line.config.run();
        switch (entry.command()) {
            case EngineCommand.OpenRun(_, var lora, var point, _) -> {
                if (refuses(run.value())) {
                    boolean full = world.stage.oneIn(2);
                    lines.remove(run.value());
                    fill(line, entry.slot(), new EngineEvent.OpenFailed(run, Fault.server(
                            full ? "out_of_memory" : "store_failed", "no room now")));
                    lost(line);
                    return;
                }
                try {
                    line.state = Optional.of(point.isEmpty() ? State.fresh(lora)
                            : State.read(text(point.get()), lora));
                    fill(line, entry.slot(), new EngineEvent.Opened(run));
                } catch (RuntimeException failed) {
                    var fault = fault(failed);
                    fill(line, entry.slot(), new EngineEvent.OpenFailed(run, fault));
                    lines.remove(run.value());
                    lost(line);
                }
            }
            case EngineCommand.TakeRecoveryPoint(_, var position, _) -> takePoint(line, entry, position);
            case EngineCommand.Execute execute -> execute(line, entry, execute);
            default -> throw new IllegalStateException("not in a line: " + entry.command());
        }
    }

    private void takePoint(Line line, Work entry, long position) {
        RunId run = line.config.run();
        State state = line.state.orElseThrow();
        State copied = world.mutation == Mutation.POINT_IS_TAKEN_EARLY && line.before.isPresent()
                && world.stage.oneIn(2) ? line.before.get() : state;
        keep(line, entry, () -> {
            if (world.mutation == Mutation.POINT_NEVER_COMES) throw new BlobMissing(null);
            BlobRef blob = world.blobs.put(BlobScope.recovery(run), bytes(copied.text()));
            return new EngineEvent.RecoveryPointWritten(run, position, blob, state.step(), state.lora());
        }, fault -> new EngineEvent.RecoveryPointFailed(run, position, fault));
    }

    private void execute(Line line, Work entry, EngineCommand.Execute c) {
        RunId run = line.config.run();
        world.stage.trace(() -> node + " executes " + c.position() + " " + c.operation().kind());
        Operation operation;
        String digest;
        Optional<Loaded> loaded;
        try {
            byte[] encoded = switch (c.operation()) {
                case StoredOperation.Inline(_, var inline) -> inline;
                case StoredOperation.InBlob(_, var blob) -> world.blobs.readSmall(blob, 1 << 30);
            };
            digest = StoredOperations.digest(encoded);
            operation = world.operation(digest);
            loaded = c.loaded().map(m -> new Loaded(m, text(m.adapter()), m.optimizer().map(this::text)));
        } catch (RuntimeException failed) {
            fill(line, entry.slot(), new EngineEvent.Failed(run, c.position(), fault(failed)));
            return;
        }
        if (operation instanceof Operation.ForwardBackward f
                && f.settings().containsKey(ModelEngine.KILL)) {
            world.killedBy(node, run, c.position());
            return;
        }
        State before = line.state.orElseThrow();
        Done done = ModelEngine.execute(before, operation, digest, loaded);
        State after = mutated(line, before, done, operation, digest);
        line.before = Optional.of(before);
        line.state = Optional.of(after);
        if (done.fault().isPresent())
            fill(line, entry.slot(), new EngineEvent.Failed(run, c.position(), done.fault().get()));
        else if (done.result().isPresent())
            fill(line, entry.slot(), new EngineEvent.Executed(run, c.position(), shown(done.result().get())));
        else save(line, entry, c, operation, world.mutation == Mutation.SAVE_IS_TAKEN_LATE
                && line.waiting.peek() instanceof Work(EngineCommand.Execute following, _)
                ? after(after, following) : after);
    }

    private State mutated(Line line, State before, Done done, Operation operation, String digest) {
        boolean counts = line.replays && operation instanceof Operation.ForwardBackward
                && done.result().isPresent() && world.stage.oneIn(8);
        if (counts && world.mutation == Mutation.ENGINE_LOSES_AN_OPERATION_OF_A_REPLAY) return before;
        if (counts && world.mutation == Mutation.ENGINE_REPEATS_AN_OPERATION_OF_A_REPLAY)
            return ModelEngine.execute(done.state(), operation, digest, Optional.empty()).state();
        return done.state();
    }

    private State after(State state, EngineCommand.Execute following) {
        if (!(following.operation() instanceof StoredOperation.Inline(_, var encoded))
                || following.loaded().isPresent()) return state;
        String digest = StoredOperations.digest(encoded);
        return ModelEngine.execute(state, world.operation(digest), digest, Optional.empty()).state();
    }

    private OperationResult shown(OperationResult result) {
        return world.mutation == Mutation.RESULT_DEPENDS_ON_THE_NODE
                && result instanceof OperationResult.Evaluated(var logprobs, _)
                ? new OperationResult.Evaluated(logprobs, Map.of("loss:sum", (double) node.id)) : result;
    }

    private void save(Line line, Work entry, EngineCommand.Execute c, Operation operation, State state) {
        RunId run = line.config.run();
        keep(line, entry, () -> {
            BlobRef adapter = world.blobs.put(BlobScope.checkpoints(run), bytes(state.weights()));
            Optional<BlobRef> optimizer = operation instanceof Operation.SaveState
                    ? Optional.of(world.blobs.put(BlobScope.checkpoints(run), bytes(state.optimizer())))
                    : Optional.empty();
            return new EngineEvent.Executed(run, c.position(), new OperationResult.Saved(ModelEngine
                    .manifest(line.config, state, operation, adapter, optimizer, c.acceptedAtMillis())));
        }, fault -> new EngineEvent.Failed(run, c.position(), fault));
    }

    private interface Refusal {
        EngineEvent of(Fault fault);
    }

    private void keep(Line line, Work entry, Supplier<EngineEvent> work, Refusal refusal) {
        node.blocking(() -> {
            EngineEvent event;
            try {
                event = work.get();
            } catch (RuntimeException failed) {
                event = refusal.of(fault(failed));
            }
            if (current(line)) fill(line, entry.slot(), event);
        });
    }

    private void fill(Line line, Slot slot, EngineEvent event) {
        slot.event = Optional.of(event);
        for (var each = line.slots.iterator(); each.hasNext(); ) {
            Slot next = each.next();
            if (next.event.isEmpty() && next.overtaken) continue;
            if (next.event.isEmpty()) return;
            each.remove();
            send(line, next.to, next.event.get());
        }
    }

    /// Whether a run is not opened now. Fewer times in a row than make its operations fail.
    private boolean refuses(String run) {
        boolean refuses = world.faults.hits(world.stage, world.faults.refuse)
                && refused.getOrDefault(run, 0) < MOST_REFUSALS;
        if (refuses) {
            refused.merge(run, 1, Integer::sum);
            world.stage.trace(() -> node + " refuses to open " + run);
        } else refused.remove(run);
        return refuses;
    }

    private void send(Line line, ActorRef<EngineEvent> to, EngineEvent event) {
        long now = world.stage.now();
        long late = world.faults.hits(world.stage, world.faults.late) ? world.stage.between(500, 6_000) : 0;
        line.answersUntil = Math.max(line.answersUntil, now + late);
        if (line.answersUntil == now) tell(to, event);
        else world.stage.in(line.answersUntil - now, () -> {
            world.stage.trace(() -> node + " answers late: " + event);
            tell(to, event);
        });
    }

    private static void tell(ActorRef<EngineEvent> to, EngineEvent event) {
        if (event instanceof EngineEvent.Executed(var run, var position, _))
            to.tell(new EngineEvent.Measured(run, position, position));
        to.tell(event);
    }

    private String text(BlobRef blob) {
        return new String(world.blobs.readSmall(blob, 1 << 30), StandardCharsets.UTF_8);
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
