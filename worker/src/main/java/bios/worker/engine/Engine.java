package bios.worker.engine;

import bios.persistence.blob.BlobStore;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelName;
import bios.protocol.run.RunId;
import bios.protocol.wire.Message;
import bios.worker.adapter.Adapter;
import bios.worker.adapter.StateSnapshot;
import bios.worker.device.Device;
import bios.worker.load.Tokenizer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import java.util.function.Supplier;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.PostStop;
import org.apache.pekko.actor.typed.Signal;
import org.apache.pekko.actor.typed.javadsl.ActorContext;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.actor.typed.javadsl.StashBuffer;
import org.apache.pekko.actor.typed.receptionist.Receptionist;
import org.slf4j.LoggerFactory;

/// The actor that owns a device, as [EngineCommand] describes it. It never waits: the device has a thread
/// of its own ([DeviceThread], [DeviceExecutor]), files and decoding have virtual ones ([RunBlobs]), and all of
/// them answer with a [EngineSelfMessage].
/// The device does one thing at a time, and the actor says what ([TurnOrder]). A [RunQueue] keeps the order of each
/// run; micro-batches of several runs go through the model together.
public final class Engine {
    private static final int STASH = 10_000;
    private static final long MIB = 1 << 20;

    private final ActorContext<Message> context;
    private final EngineSettings settings;
    private final RunBlobs library;
    private final DeviceThread device;
    private final DeviceExecutor machine;
    private final Map<ModelName, LoadedModel> models;
    private final TurnOrder turns = new TurnOrder();
    private final SampleQueue desk;
    /// Whoever waits longest for a pass is first.
    private final LinkedHashMap<RunId, RunQueue> lines = new LinkedHashMap<>();
    private final Map<ResidentRun, RunQueue> byState = new HashMap<>();
    private final RunAdmission shelf;
    private final HeapBudget intake;
    private boolean turning;

    private Engine(ActorContext<Message> context, EngineSettings settings, RunBlobs library,
            DeviceThread device, DeviceExecutor machine) {
        this.context = context;
        this.settings = settings;
        this.library = library;
        this.device = device;
        this.machine = machine;
        this.models = machine.models();
        this.shelf = new RunAdmission(machine.runBytes(), settings.runs().maxWaiting());
        this.intake = new HeapBudget(settings.runs().heapBytes().orElse(Runtime.getRuntime().maxMemory() / 4));
        this.desk = new SampleQueue(new AdapterCache(settings.adapterBytes()), this::fetch,
                settings.maxQueuedSequences(), models.keySet());
    }

    /// An engine that opens the device, loads all models, and registers with the receptionist. It stops with
    /// [bios.worker.load.ModelRefused] when a model cannot be served. When it stops, it closes the device
    /// behind the pass that is under way.
    ///
    /// @param models folders by the name that they are served under
    /// @param device called once, on the thread that owns the device from then on
    public static Behavior<EngineCommand> create(EngineSettings settings, Map<ModelName, Path> models,
            Supplier<Device> device, BlobStore blobs) {
        return Behaviors.<Message>setup(context -> Behaviors.withStash(STASH, stash -> {
            DeviceThread thread = DeviceThread.start("device-" + context.getSelf().path().name());
            var log = LoggerFactory.getLogger(Engine.class);
            var folders = new LinkedHashMap<>(models);
            var loaded = new AtomicReference<DeviceExecutor>();
            context.pipeToSelf(thread.call(() -> {
                loaded.set(DeviceExecutor.load(device, folders, settings, log));
                return loaded.get();
            }), (machine, thrown) -> thrown == null ? new EngineSelfMessage.Loaded(machine)
                    : new EngineSelfMessage.Broken("loading", thrown));
            Runnable last = () -> Optional.ofNullable(loaded.get()).ifPresent(DeviceExecutor::close);
            return loading(context, settings, blobs, thread, stash, last);
        })).narrow();
    }

    private static Behavior<Message> loading(ActorContext<Message> context, EngineSettings settings,
            BlobStore blobs, DeviceThread thread, StashBuffer<Message> stash, Runnable last) {
        return Behaviors.receive((_, message) -> switch (message) {
            case EngineSelfMessage.Loaded(var machine) -> {
                var library = new RunBlobs(blobs, new HostStateCache(machine.hostRunBytes()));
                var engine = new Engine(context, settings, library, thread, machine);
                engine.register();
                yield stash.unstashAll(Behaviors.receive((_, next) -> engine.on(next),
                        (_, signal) -> engine.on(signal)));
            }
            case EngineSelfMessage.Broken broken -> throw broken(broken);
            default -> {
                stash.stash(message);
                yield Behaviors.same();
            }
        }, (_, signal) -> {
            if (signal instanceof PostStop) thread.stop(last);
            return Behaviors.same();
        });
    }

    private static RuntimeException broken(EngineSelfMessage.Broken broken) {
        return broken.why() instanceof RuntimeException itself ? itself
                : new IllegalStateException("the engine broke in " + broken.what(), broken.why());
    }

    private void register() {
        ActorRef<EngineCommand> self = context.getSelf().narrow();
        var receptionist = context.getSystem().receptionist();
        receptionist.tell(Receptionist.register(EngineCommand.ANY, self));
        for (ModelName model : models.keySet())
            receptionist.tell(Receptionist.register(EngineCommand.key(model.slug()), self));
    }

    private void retire() {
        ActorRef<EngineCommand> self = context.getSelf().narrow();
        var receptionist = context.getSystem().receptionist();
        receptionist.tell(Receptionist.deregister(EngineCommand.ANY, self));
        for (ModelName model : models.keySet())
            receptionist.tell(Receptionist.deregister(EngineCommand.key(model.slug()), self));
    }

    private Behavior<Message> on(Message message) {
        if (message instanceof EngineCommand command) obey(command);
        else if (message instanceof EngineSelfMessage note) hear(note);
        feed();
        makeRoom();
        turn();
        Metrics.SAMPLING.set(desk.sequences());
        return Behaviors.same();
    }

    private Behavior<Message> on(Signal signal) {
        if (signal instanceof PostStop) {
            lines.values().forEach(line -> Metrics.OPEN.labelValues(slug(line)).dec());
            device.stop(machine::close);
        }
        return Behaviors.same();
    }

    private static String slug(RunQueue line) {
        return line.config.baseModel().slug();
    }

    // ---- commands ----

    private void obey(EngineCommand command) {
        switch (command) {
            case EngineCommand.OpenRun open -> open(open);
            case EngineCommand.Execute(var run, var position, _, _, _, var replyTo) -> add(run, command,
                    position, replyTo, false, why -> new EngineEvent.Failed(run, position, why));
            case EngineCommand.TakeRecoveryPoint(var run, var position, var replyTo) ->
                    add(run, command, position, replyTo, true,
                            why -> new EngineEvent.RecoveryPointFailed(run, position, why));
            case EngineCommand.CloseRun(var run) -> close(run, "closed");
            case EngineCommand.Sample(var task, var replyTo) -> sample(new PendingSample(task, replyTo));
            case EngineCommand.Describe(var replyTo) ->
                    replyTo.tell(new EngineReply.Description(models.values().stream().map(m ->
                            m.model().info()).toList(), desk.sequences(), lines.size()));
            case EngineCommand.Tokenize(var model, var text, var special, var replyTo) ->
                withTokenizer(model, replyTo, t -> new EngineReply.Tokenized(t.encode(text, special)));
            case EngineCommand.Detokenize(var model, var tokens, var skip, var replyTo) ->
                withTokenizer(model, replyTo, t -> new EngineReply.Detokenized(t.decode(tokens, skip)));
            case EngineCommand.FetchTokenizerFiles(var model, var replyTo) ->
                withTokenizer(model, replyTo, t -> new EngineReply.TokenizerFiles(t.files()));
            case EngineCommand.Drain _ -> retire();
        }
    }

    private void open(EngineCommand.OpenRun open) {
        RunId run = open.config().run();
        close(run, "closed");
        LoadedModel served = models.get(open.config().baseModel());
        if (served == null) {
            open.replyTo().tell(new EngineEvent.OpenFailed(run, unknown(open.config().baseModel())));
            return;
        }
        long bytes = served.runBytes(open.lora());
        var line = new RunQueue(open.config(), new ResidentRun(served), open.replyTo(), bytes);
        switch (shelf.want(run, bytes)) {
            case RunAdmission.Answer.Granted() -> {}
            case RunAdmission.Answer.Waits() -> line.waits = true;
            case RunAdmission.Answer.Crowded(var waiting) -> {
                open.replyTo().tell(new EngineEvent.OpenFailed(run, Fault.server("queue_full", waiting
                        + " runs wait for room on this worker already; raise bios.engine.run-bytes, or start"
                        + " more workers")));
                return;
            }
            case RunAdmission.Answer.TooLarge(var limit) -> {
                open.replyTo().tell(new EngineEvent.OpenFailed(run, tooLarge(bytes, limit)));
                return;
            }
        }
        lines.put(run, line);
        byState.put(line.held, line);
        Metrics.OPEN.labelValues(slug(line)).inc();
        line.add(new QueuedOperation(open, 0, line.outbox.place(open.replyTo(), false)));
        prepare(line);
    }

    private static Fault tooLarge(long bytes, long limit) {
        return Fault.user("run_too_large", "the run's state needs " + Math.ceilDiv(bytes, MIB)
                + " MiB and this worker has " + limit / MIB + " MiB for all runs; choose a smaller rank or"
                + " fewer target modules, or raise bios.engine.run-bytes");
    }

    /// Lets those in who have waited, and asks others to go where there is no room.
    private void makeRoom() {
        for (RunId run : shelf.granted()) {
            RunQueue line = lines.get(run);
            line.waits = false;
            prepare(line);
        }
        shelf.crowded(this::idle).forEach(this::crowd);
    }

    private boolean idle(RunId run) {
        return lines.get(run).idle();
    }

    private void crowd(RunId run) {
        lines.get(run).listener.tell(new EngineEvent.EvictionRequested(run));
    }

    /// Goes on with lines that wait for heap.
    private void feed() {
        for (int i = intake.hungry(); i > 0; i--) {
            RunQueue line = intake.nextHungry();
            if (current(line)) prepare(line);
        }
    }

    private void add(RunId run, EngineCommand command, long position, ActorRef<EngineEvent> replyTo,
            boolean overtaken, Function<Fault, EngineEvent> refused) {
        RunQueue line = lines.get(run);
        if (line == null) {
            replyTo.tell(refused.apply(notOpen(run)));
            return;
        }
        shelf.used(run);
        line.add(new QueuedOperation(command, position, line.outbox.place(replyTo, overtaken)));
        prepare(line);
    }

    private void close(RunId run, String reason) {
        RunQueue line = lines.remove(run);
        if (line == null) return;
        Metrics.OPEN.labelValues(slug(line)).dec();
        Metrics.LEFT.labelValues(slug(line), reason).inc();
        byState.remove(line.held);
        shelf.left(run);
        line.clear().forEach(intake::forget);
        later("closing a run", () -> {
            machine.forget(line.held);
            return new EngineSelfMessage.Freed();
        });
    }

    private void sample(PendingSample asked) {
        LoadedModel served = models.get(asked.task().baseModel());
        Optional<Fault> fault = served == null
                ? Optional.of(unknown(asked.task().baseModel())) : served.sampler().refusal(asked.task());
        if (fault.isEmpty()) fault = desk.take(asked);
        fault.ifPresent(why -> asked.replyTo().tell(new EngineReply.RequestFailed(why)));
    }

    private void withTokenizer(ModelName model, ActorRef<EngineReply> replyTo,
            Function<Tokenizer, EngineReply> use) {
        LoadedModel served = models.get(model);
        Optional<Tokenizer> tokenizer = served == null ? Optional.empty() : served.tokenizer();
        if (tokenizer.isEmpty()) replyTo.tell(new EngineReply.RequestFailed(served == null ? unknown(model)
                : Fault.user("no_tokenizer", model + " has no tokenizer.json")));
        else Thread.ofVirtual().start(() -> replyTo.tell(answer(tokenizer.get(), use)));
    }

    private static EngineReply answer(Tokenizer tokenizer, Function<Tokenizer, EngineReply> use) {
        try {
            return use.apply(tokenizer);
        } catch (Throwable thrown) {
            return new EngineReply.RequestFailed(FaultClassifier.of(thrown, "the tokenizer"));
        }
    }

    private Fault unknown(ModelName model) {
        return Fault.user("unknown_model",
                "this worker does not hold " + model + "; it holds " + models.keySet());
    }

    private static Fault notOpen(RunId run) {
        return Fault.server("run_not_open", "run " + run + " is not open on this worker");
    }

    // ---- notes ----

    private void hear(EngineSelfMessage note) {
        switch (note) {
            case EngineSelfMessage.Loaded _, EngineSelfMessage.Freed _ -> {}
            case EngineSelfMessage.Broken broken -> throw broken(broken);
            case EngineSelfMessage.Prepared(_, var entry, var deed) -> entry.prepared(deed);
            case EngineSelfMessage.Unprepared(var line, var entry, var fault) -> {
                entry.failed(fault);
                settle(line);
            }
            case EngineSelfMessage.Done(var outcomes) -> {
                turning = false;
                outcomes.forEach((line, worked) -> {
                    worked(line, worked.nanos());
                    done(line, worked.outcome());
                });
            }
            case EngineSelfMessage.Passed(var pass, var nanos) -> {
                turning = false;
                for (ResidentRun held : pass.served())
                    Optional.ofNullable(byState.get(held)).ifPresent(line -> worked(line, nanos));
                pass.finished().forEach((held, outcome) -> {
                    if (byState.containsKey(held)) done(byState.get(held), outcome);
                });
                pass.served().forEach(this::toTheEnd);
            }
            case EngineSelfMessage.Stepped(var model, var step) -> {
                turning = false;
                desk.stepped(model, step);
            }
            case EngineSelfMessage.Kept(var line, var entry, var event) -> {
                line.copies--;
                intake.written(entry);
                Metrics.COPIES.dec();
                if (current(line)) line.outbox.fill(entry.slot, event);
            }
            case EngineSelfMessage.Fetched(var key, var bytes) ->
                    later("placing an adapter", () -> new EngineSelfMessage.Placed(key, machine.place(key, bytes)));
            case EngineSelfMessage.Placed(var key, var placed) -> desk.placed(key, placed);
        }
    }

    private boolean current(RunQueue line) {
        return byState.get(line.held) == line;
    }

    private void toTheEnd(ResidentRun held) {
        RunQueue line = byState.get(held);
        if (line != null) lines.putLast(line.config.run(), line);
    }

    /// The device has worked for the first entry of a line.
    private void worked(RunQueue line, long nanos) {
        line.next(Integer.MAX_VALUE).ifPresent(entry -> entry.slot.worked(nanos));
    }

    /// The first entry of a line was done by the device.
    private void done(RunQueue line, TaskOutcome outcome) {
        if (!current(line)) return;
        QueuedOperation entry = line.next(Integer.MAX_VALUE).orElseThrow();
        line.remove(entry);
        intake.give(entry);
        if (!(outcome instanceof TaskOutcome.Copied)) intake.written(entry);
        RunId run = line.config.run();
        if (entry.command instanceof EngineCommand.Execute) shelf.worked(run);
        switch (outcome) {
            case TaskOutcome.Opened() -> {
                boolean fresh = entry.command instanceof EngineCommand.OpenRun open
                        && open.recoveryPoint().isEmpty();
                Metrics.OPENED.labelValues(slug(line), fresh ? "new" : "recovery_point").inc();
                line.outbox.fill(entry.slot, new EngineEvent.Opened(run));
            }
            case TaskOutcome.Given(var result) ->
                    line.outbox.fill(entry.slot, new EngineEvent.Executed(run, entry.position, result));
            case TaskOutcome.Copied(var snapshot) -> keep(line, entry, snapshot);
            case TaskOutcome.Failed(var fault) -> failed(line, entry, fault);
        }
        prepare(line);
        settle(line);
    }

    private void failed(RunQueue line, QueuedOperation entry, Fault fault) {
        RunId run = line.config.run();
        line.outbox.fill(entry.slot, failure(run, entry, fault));
        // So that the next one finds more room.
        if (fault.code().equals("out_of_memory")) shelf.squeeze(this::idle).forEach(this::crowd);
        if (!(entry.command instanceof EngineCommand.OpenRun)) return;
        for (QueuedOperation next : line.clear()) {
            intake.forget(next);
            line.outbox.fill(next.slot, failure(run, next, notOpen(run)));
        }
        close(run, "failed");
    }

    private static EngineEvent failure(RunId run, QueuedOperation entry, Fault fault) {
        return switch (entry.command) {
            case EngineCommand.OpenRun _ -> new EngineEvent.OpenFailed(run, fault);
            case EngineCommand.TakeRecoveryPoint _ ->
                    new EngineEvent.RecoveryPointFailed(run, entry.position, fault);
            default -> new EngineEvent.Failed(run, entry.position, fault);
        };
    }

    /// Writes a copy of the state; the event goes out when it is durable.
    private void keep(RunQueue line, QueuedOperation entry, StateSnapshot snapshot) {
        line.copies++;
        Metrics.COPIES.inc();
        var purpose = ((DeviceTask.Copy) entry.deed()).purpose();
        beside(() -> {
            EngineEvent event;
            try {
                event = library.keep(line.config, entry.position, purpose, snapshot);
            } catch (Throwable thrown) {
                String what = "writing the state behind operation " + entry.position;
                event = failure(line.config.run(), entry, FaultClassifier.of(thrown, what));
            }
            return new EngineSelfMessage.Kept(line, entry, event);
        });
    }

    /// Reports failed entries that have come to the front of a line.
    private void settle(RunQueue line) {
        while (current(line)) {
            Optional<QueuedOperation> first = line.next(settings.copiesPerRun());
            Optional<Fault> fault = first.flatMap(QueuedOperation::fault);
            if (fault.isEmpty()) return;
            line.remove(first.get());
            intake.give(first.get());
            failed(line, first.get(), fault.get());
            prepare(line);
        }
    }

    /// Reads and decodes the next entries of a line.
    private void prepare(RunQueue line) {
        if (line.waits) return;
        Optional<QueuedOperation> next;
        while ((next = line.toPrepare(settings.preparedPerRun())).isPresent()) {
            QueuedOperation entry = next.get();
            long heap = HeapBudget.cost(entry);
            Optional<Fault> refused = intake.refusal(what(entry), heap).or(() -> outgrows(line, entry));
            if (refused.isEmpty() && !intake.take(entry, heap)) {
                intake.wait(line);
                return;
            }
            line.begin(entry);
            if (refused.isPresent()) {
                ActorRef<Message> self = context.getSelf();
                self.tell(new EngineSelfMessage.Unprepared(line, entry, refused.get()));
                continue;
            }
            if (entry.command instanceof EngineCommand.TakeRecoveryPoint) {
                entry.prepared(new DeviceTask.Copy(new DeviceTask.Purpose.Recovery()));
                continue;
            }
            if (entry.command instanceof EngineCommand.Execute execute && library.atHand(execute)
                    && prepared(line, entry) instanceof EngineSelfMessage.Prepared(_, _, var deed))
                entry.prepared(deed);
            else beside(() -> prepared(line, entry));
        }
    }

    /// May read from the blob store: runs beside the actor, unless all is at hand.
    private EngineSelfMessage prepared(RunQueue line, QueuedOperation entry) {
        try {
            return new EngineSelfMessage.Prepared(line, entry, switch (entry.command) {
                case EngineCommand.OpenRun open -> library.open(open);
                case EngineCommand.Execute execute -> library.operation(execute);
                default -> throw new IllegalStateException("not for a line: " + entry.command);
            });
        } catch (Throwable thrown) {
            return new EngineSelfMessage.Unprepared(line, entry, FaultClassifier.of(thrown, what(entry)));
        }
    }

    private static String what(QueuedOperation entry) {
        return entry.position == 0 ? "opening the run" : "operation " + entry.position;
    }

    /// Why a load gives the run a shape that has no room here, or nothing: then it has the room.
    private Optional<Fault> outgrows(RunQueue line, QueuedOperation entry) {
        if (!(entry.command instanceof EngineCommand.Execute execute) || execute.loaded().isEmpty())
            return Optional.empty();
        long bytes = Math.max(line.bytes, line.held.served.runBytes(execute.loaded().get().lora()));
        if (!shelf.grow(line.config.run(), bytes)) return Optional.of(tooLarge(bytes, machine.runBytes()));
        line.bytes = bytes;
        return Optional.empty();
    }

    private void fetch(PendingSample first, List<Adapter> freed) {
        if (!freed.isEmpty()) later("freeing adapters", () -> {
            freed.forEach(Adapter::close);
            return new EngineSelfMessage.Freed();
        });
        AdapterCache.Key key = first.key().orElseThrow();
        BlobRef blob = first.task().adapter().orElseThrow().blob();
        beside(() -> {
            try {
                return new EngineSelfMessage.Fetched(key, library.blobs().readSmall(blob, BlobStore.MAX_ARRAY_BYTES));
            } catch (Throwable thrown) {
                Fault fault = FaultClassifier.of(thrown, "adapter " + key.contentId());
                return new EngineSelfMessage.Placed(key, new DeviceExecutor.Placed.Failed(fault));
            }
        });
    }

    /// Runs on a virtual thread of its own.
    private void beside(Supplier<EngineSelfMessage> work) {
        ActorRef<Message> self = context.getSelf();
        Thread.ofVirtual().start(() -> self.tell(work.get()));
    }

    /// Runs on the device's thread, behind what it has to do.
    private void later(String what, Callable<EngineSelfMessage> work) {
        context.pipeToSelf(device.call(work),
                (note, thrown) -> thrown == null ? note : new EngineSelfMessage.Broken(what, thrown));
    }

    // ---- turns ----

    /// Gives the device something to do, if it has nothing and there is something.
    private void turn() {
        if (turning) return;
        turns.next(this::ready).ifPresent(kind -> {
            turning = true;
            switch (kind) {
                case SAMPLE -> {
                    var step = desk.next();
                    later("sampling",
                            () -> new EngineSelfMessage.Stepped(step.model(), machine.sample(step.model(), step.fresh())));
                }
                case DEED -> deeds();
                case PASS -> pass();
            }
        });
    }

    private boolean ready(TurnOrder.Kind kind) {
        return switch (kind) {
            case SAMPLE -> desk.busy();
            case DEED ->
                    lines.values().stream().anyMatch(line -> first(line).filter(Engine::brief).isPresent());
            case PASS ->
                    lines.values().stream().anyMatch(line -> first(line).filter(d -> !brief(d)).isPresent());
        };
    }

    /// Whether a deed takes no pass.
    private static boolean brief(DeviceTask deed) {
        return !(deed instanceof DeviceTask.Evaluate);
    }

    private Optional<DeviceTask> first(RunQueue line) {
        return line.next(settings.copiesPerRun()).filter(entry -> entry.fault().isEmpty())
                .map(QueuedOperation::deed)
                .filter(deed -> !(deed instanceof DeviceTask.Copy) || intake.mayCopy(copy(line)));
    }

    /// Bytes of a copy on the heap: an operation's gradient is not in it.
    private static long copy(RunQueue line) {
        return line.bytes / 5 * 4;
    }

    /// One short deed of every run that has one.
    private void deeds() {
        Map<RunQueue, DeviceTask> next = new LinkedHashMap<>();
        for (RunQueue line : lines.values())
            first(line).filter(Engine::brief).ifPresent(deed -> {
                if (deed instanceof DeviceTask.Copy) intake.copy(line.next(settings.copiesPerRun()).orElseThrow(),
                        copy(line));
                next.put(line, deed);
            });
        later("deeds", () -> {
            Map<RunQueue, EngineSelfMessage.Worked> outcomes = new LinkedHashMap<>();
            next.forEach((line, deed) -> {
                long began = System.nanoTime(); // edge: measures, decides nothing
                TaskOutcome outcome = machine.carryOut(line.held, deed);
                long nanos = System.nanoTime() - began; // edge: measures, decides nothing
                outcomes.put(line, new EngineSelfMessage.Worked(outcome, nanos));
            });
            return new EngineSelfMessage.Done(outcomes);
        });
    }

    /// The next micro-batch of the runs of one model that have one, those that waited longest first.
    private void pass() {
        List<DeviceExecutor.Candidate> candidates = new ArrayList<>();
        for (RunQueue line : lines.values())
            if (first(line).orElse(null) instanceof DeviceTask.Evaluate(var operation)
                    && (candidates.isEmpty() || candidates.getFirst().run().served == line.held.served))
                candidates.add(new DeviceExecutor.Candidate(line.held, operation));
        later("a pass", () -> {
            long began = System.nanoTime(); // edge: measures, decides nothing
            DeviceExecutor.Passed pass = machine.pass(candidates);
            return new EngineSelfMessage.Passed(pass, System.nanoTime() - began); // edge: measures, decides nothing
        });
    }
}
