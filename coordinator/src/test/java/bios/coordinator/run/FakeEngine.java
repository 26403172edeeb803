package bios.coordinator.run;

import bios.persistence.blob.BlobDamaged;
import bios.persistence.blob.BlobStore;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.model.LoraSpec;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.actor.typed.javadsl.TimerScheduler;

/// An engine whose "weights" are a digest of all executed operations: an extra, missing or reordered
/// operation changes every later result. Operations take some time, so that some are in progress when a test
/// kills a process.
final class FakeEngine {
    private record State(RunConfig config, LoraSpec lora, String weights, String gradient, long step) {
        String text() {
            return weights + "," + gradient + "," + step + "," + lora.rank();
        }
    }

    private record Tick() {}

    /// Requests the eviction of all open runs.
    record RequestEviction() {}

    /// The counters that a test reads and the faults that it sets.
    ///
    /// @param opened how often a run was opened
    /// @param pointsToFail number of recovery points that fail
    /// @param roomy whether operations that need much memory find it
    /// @param away whether the store of operations with a setting `stored` does not answer
    /// @param strict whether operations with a setting `checked` fail
    record Controls(AtomicInteger opened, AtomicInteger pointsToFail, AtomicBoolean roomy,
            AtomicBoolean away, AtomicBoolean strict) {
        Controls() {
            this(new AtomicInteger(), new AtomicInteger(), new AtomicBoolean(), new AtomicBoolean(),
                    new AtomicBoolean());
        }
    }

    private final BlobStore blobs;
    private final Queue<String> log;
    private final Map<RunId, State> runs = new HashMap<>();
    private int unreadable;
    private final Map<RunId, ActorRef<EngineEvent>> listeners = new HashMap<>();
    private final Controls controls;

    private FakeEngine(BlobStore blobs, Queue<String> log, Controls controls) {
        this.controls = controls;
        this.blobs = blobs;
        this.log = log;
    }

    /// @param log receives a line for each executed operation
    static Behavior<EngineCommand> create(BlobStore blobs, Duration pause,
            ConcurrentLinkedQueue<String> log) {
        return create(blobs, pause, log, new Controls());
    }

    static Behavior<EngineCommand> create(BlobStore blobs, Duration pause,
            ConcurrentLinkedQueue<String> log, Controls controls) {
        return Behaviors.<Object>setup(context -> Behaviors.withTimers(timers -> {
            var engine = new FakeEngine(blobs, log, controls);
            var queue = new ArrayDeque<EngineCommand>();
            return Behaviors.receiveMessage(message -> {
                if (message instanceof EngineCommand command) {
                    queue.add(command);
                    if (queue.size() == 1) next(timers, pause);
                } else if (message instanceof RequestEviction) {
                    engine.listeners.forEach((run, to) -> to.tell(new EngineEvent.EvictionRequested(run)));
                } else {
                    engine.handle(queue.poll());
                    if (!queue.isEmpty()) next(timers, pause);
                }
                return Behaviors.same();
            });
        })).narrow();
    }

    private static void next(TimerScheduler<Object> timers, Duration pause) {
        timers.startSingleTimer(new Tick(), pause);
    }

    private void handle(EngineCommand command) {
        switch (command) {
            case EngineCommand.OpenRun(var config, var lora, var point, var replyTo, _) -> {
                try {
                    runs.put(config.run(), point.map(p -> read(config, lora, p)).orElseGet(
                            () -> new State(config, lora, digest("new" + lora.seed() + lora.rank()), "", 0)));
                    listeners.put(config.run(), replyTo);
                    controls.opened.incrementAndGet();
                    replyTo.tell(new EngineEvent.Opened(config.run()));
                } catch (BlobDamaged damaged) {
                    replyTo.tell(new EngineEvent.OpenFailed(config.run(),
                            Fault.server("blob_damaged", "opening the run: " + damaged.getMessage())));
                }
            }
            case EngineCommand.Execute c -> {
                State before = runs.get(c.run());
                EngineEvent done = before == null ? new EngineEvent.Failed(c.run(), c.position(),
                        Fault.server(EngineCommand.RUN_NOT_OPEN, "no")) : execute(before, c);
                if (done instanceof EngineEvent.Executed)
                    c.replyTo().tell(new EngineEvent.Measured(c.run(), c.position(), c.position()));
                c.replyTo().tell(done);
            }
            case EngineCommand.TakeRecoveryPoint(var run, var position, var replyTo) -> {
                State state = runs.get(run);
                if (state == null) {
                    replyTo.tell(new EngineEvent.RecoveryPointFailed(run, position,
                            Fault.server(EngineCommand.RUN_NOT_OPEN, "no")));
                    return;
                }
                if (controls.pointsToFail.getAndUpdate(left -> Math.max(0, left - 1)) > 0) {
                    replyTo.tell(new EngineEvent.RecoveryPointFailed(run, position,
                            Fault.server("store_failed", "asked to")));
                    return;
                }
                var blob = blobs.put(BlobScope.recovery(run, 0), state.text()
                        .getBytes(StandardCharsets.UTF_8));
                replyTo.tell(new EngineEvent.RecoveryPointWritten(run, position, blob,
                        state.step(), state.lora()));
            }
            case EngineCommand.CloseRun(var run) -> {
                runs.remove(run);
                listeners.remove(run);
            }
            default -> throw new IllegalStateException("not asked of a fake: " + command);
        }
    }

    private State read(RunConfig config, LoraSpec lora, BlobRef blob) {
        String[] parts = new String(blobs.readSmall(blob, 1 << 30), StandardCharsets.UTF_8).split(",", -1);
        return new State(config, lora, parts[0], parts[1], Long.parseLong(parts[2]));
    }

    private EngineEvent execute(State s, EngineCommand.Execute c) {
        if (c.operation() instanceof StoredOperation.Refused(var kind, _)
                && kind == OperationKind.OPTIM_STEP) {
            log.add(c.position() + " drop");
            runs.put(c.run(), new State(s.config(), s.lora(), s.weights(), "", s.step()));
            return done(c, new OperationResult.Stepped(s.step(), Map.of()));
        }
        byte[] encoded = switch (c.operation()) {
            case StoredOperation.Inline(_, var bytes) -> bytes;
            case StoredOperation.InBlob(_, var blob) -> blobs.readSmall(blob, 1 << 30);
            case StoredOperation.Refused refused ->
                    throw new IllegalStateException("never executed: " + refused);
        };
        Operation operation = StoredOperations.decode(c.operation().kind(), encoded);
        log.add(c.position() + " " + c.operation().kind());
        boolean away = operation instanceof Operation.ForwardBackward f
                && (f.settings().containsKey("stored") && controls.away().get()
                        || unreadable < f.settings().getOrDefault("unreadable", 0.0) && unreadable++ >= 0);
        if (away)
            return new EngineEvent.Failed(c.run(), c.position(),
                    Fault.server(EngineCommand.STORE_FAILED, "not now"));
        if (operation instanceof Operation.ForwardBackward f && f.settings().containsKey("full")
                && !controls.roomy().get())
            return new EngineEvent.Failed(c.run(), c.position(),
                    Fault.server("out_of_memory", "no room"));
        if (operation instanceof Operation.ForwardBackward f && (f.settings().containsKey("fail")
                || f.settings().containsKey("checked") && controls.strict().get()))
            return new EngineEvent.Failed(c.run(), c.position(),
                    Fault.user("bad_data", "asked to fail at " + c.position()));
        return switch (operation) {
            case Operation.ForwardBackward f -> {
                String sum = digest(s.weights() + s.gradient() + StoredOperations.digest(encoded));
                if (!f.forwardOnly())
                    runs.put(c.run(), new State(s.config(), s.lora(), s.weights(), sum, s.step()));
                yield done(c, new OperationResult.Evaluated(List.of(),
                        Map.of("loss:sum", (double) sum.hashCode())));
            }
            case Operation.OptimStep _ -> {
                if (s.gradient().isEmpty())
                    yield new EngineEvent.Failed(c.run(), c.position(),
                            Fault.user("no_gradient", "nothing to apply"));
                String weights = digest(s.weights() + s.gradient() + StoredOperations.digest(encoded));
                runs.put(c.run(), new State(s.config(), s.lora(), weights, "", s.step() + 1));
                yield done(c, new OperationResult.Stepped(s.step() + 1,
                        Map.of("grad_norm", (double) weights.hashCode())));
            }
            case Operation.SaveState(var name, var metadata, var ttl) ->
                    done(c, new OperationResult.Saved(manifest(s, c,
                            CheckpointKind.TRAINING, Optional.of(name), metadata, ttl)));
            case Operation.SaveSamplerWeights(var name, var ttl, _) -> done(c,
                    new OperationResult.Saved(manifest(s, c, CheckpointKind.SAMPLER, name, "{}", ttl)));
            case Operation.LoadState(var path, _) -> {
                CheckpointManifest m = c.loaded().orElseThrow();
                String weights = new String(blobs.readSmall(m.adapter(), 1 << 30), StandardCharsets.UTF_8);
                runs.put(c.run(), new State(s.config(), m.lora(), weights, "", m.step()));
                yield done(c, new OperationResult.Loaded(path.biosUri(), m.step()));
            }
            case Operation.LoadUpload(var name, var adapter, var lora) -> {
                String weights = new String(blobs.readSmall(adapter, 1 << 30), StandardCharsets.UTF_8);
                runs.put(c.run(), new State(s.config(), lora, weights, "", 0));
                yield done(c, new OperationResult.Loaded(name.value(), 0));
            }
        };
    }

    private static EngineEvent done(EngineCommand.Execute c, OperationResult result) {
        return new EngineEvent.Executed(c.run(), c.position(), result);
    }

    private CheckpointManifest manifest(State s, EngineCommand.Execute c, CheckpointKind kind,
            Optional<CheckpointName> name, String metadata, Optional<Long> ttl) {
        BlobRef adapter = blobs.put(BlobScope.checkpoints(c.run(), 0),
                s.weights().getBytes(StandardCharsets.UTF_8));
        Optional<BlobRef> optimizer = kind == CheckpointKind.SAMPLER
                ? Optional.empty() : Optional.of(blobs.put(BlobScope.checkpoints(c.run(), 0),
                        ("adam " + s.step()).getBytes(StandardCharsets.UTF_8)));
        return new CheckpointManifest(c.run(), kind, name, s.config().baseModel(), s.lora(),
                adapter.id().sha256(), adapter, optimizer, s.step(), AdamParams.DEFAULT, "adamw", metadata,
                s.config().parent(), c.acceptedAtMillis(), ttl.map(t -> c.acceptedAtMillis() + 1000 * t));
    }

    private static String digest(String text) {
        return StoredOperations.digest(text.getBytes(StandardCharsets.UTF_8));
    }
}
