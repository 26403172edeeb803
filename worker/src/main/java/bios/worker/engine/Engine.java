package bios.worker.engine;

import bios.persistence.blob.BlobStore;
import bios.persistence.marks.ExecutionMarks;
import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelName;
import bios.protocol.run.RunId;
import bios.protocol.wire.Message;
import bios.worker.adapter.Adapter;
import bios.worker.adapter.StateSnapshot;
import bios.worker.device.Device;
import bios.worker.device.DeviceLost;
import bios.worker.load.Tokenizer;
import java.time.Duration;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
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
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// The actor that owns a device, as [EngineCommand] describes it. It never waits: it decodes operations, in
/// the order of each run ([RunQueue]), and adds them to a [DeviceQueue], from which the device's thread takes
/// its turns ([DeviceThread], [DeviceExecutor]). States and adapters are streamed by virtual threads
/// ([StateStreams]). All of them report with an [EngineSelfMessage].
/// A lost device is no operation's fault: nothing is answered, the engine stops with [DeviceLost], and its
/// process has to end.
public final class Engine {
    private static final Logger LOG = LoggerFactory.getLogger(Engine.class);
    private static final int STASH = 10_000;
    /// What nothing has used for one to two of these is given back.
    private static final Duration RELEASE_EVERY = Duration.ofSeconds(30);
    private static final long MIB = 1 << 20;

    private final ActorContext<Message> context;
    private final EngineSettings settings;
    private final DeviceQueue queue;
    private final DeviceThread device;
    private final DeviceExecutor executor;
    private final RunBlobs blobs;
    private final StateStreams streams;
    private final ServedModels models;
    private final SampleQueue samples;
    private final Map<RunId, RunQueue> runs = new LinkedHashMap<>();
    private final Map<ResidentRun, RunQueue> byState = new HashMap<>();
    private final RunAdmission admission;
    private final HeapBudget heap;
    private final ExecutionMarks marks;

    private boolean retired;

    private Engine(ActorContext<Message> context, EngineSettings settings, BlobStore store, Parts parts,
            DeviceExecutor executor, ModelCatalog.Snapshot models) {
        this.context = context;
        this.settings = settings;
        this.queue = parts.queue;
        this.device = parts.thread;
        this.executor = executor;
        this.marks = parts.marks;
        this.blobs = new RunBlobs(store, new HostStateCache(executor.hostRunBytes()));
        this.streams = new StateStreams(blobs, parts.buffers, device, executor);
        this.models = new ServedModels(models);
        this.admission = new RunAdmission(executor.runBytes(), settings.runs().maxWaiting());
        this.heap = new HeapBudget(settings.runs().heapLimit());
        this.samples = new SampleQueue(new AdapterCache(settings.adapterBytes()), queue, this::loadAdapter,
                settings.maxQueuedSequences(), marks);
    }

    /// The parts that an engine starts with.
    private record Parts(DeviceQueue queue, StagingBuffers buffers, DeviceThread thread,
            AtomicReference<DeviceExecutor> loaded, AtomicReference<Thread> watch, ExecutionMarks marks) {
        /// Ends the device's thread, and closes the device after its work.
        void stop() {
            Optional.ofNullable(watch.get()).ifPresent(Thread::interrupt);
            thread.stop(() -> Optional.ofNullable(loaded.get()).ifPresent(DeviceExecutor::close));
        }
    }

    /// An engine that opens the device, loads all models, and registers with the receptionist. It stops with
    /// [bios.worker.load.ModelRefused] when a model cannot be served, and with [DeviceLost] when the device
    /// is lost. When it stops, it closes the device after the current pass.
    ///
    /// @param models folders by the name that they are served under
    /// @param device called once, on the thread that owns the device from then on
    public static Behavior<EngineCommand> create(EngineSettings settings, ModelSource models,
            Supplier<Device> device, BlobStore blobs) {
        return create(settings, models, device, blobs, ExecutionMarks.inMemory());
    }

    /// The same with marks of what is being executed.
    ///
    /// @param marks outlive the process
    public static Behavior<EngineCommand> create(EngineSettings settings, ModelSource models,
            Supplier<Device> device, BlobStore blobs, ExecutionMarks marks) {
        return Behaviors.<Message>setup(context -> Behaviors.withStash(STASH, stash -> {
            Parts parts = start(context, settings, marks);
            ActorRef<Message> self = context.getSelf();
            var catalog = new ModelCatalog(models, LOG);
            context.pipeToSelf(parts.thread.call(() -> DeviceExecutor.load(device, catalog, models.cache(),
                    settings, parts.queue, parts.buffers, marks, self::tell, parts.loaded::set, LOG)),
                    (loaded, thrown) -> thrown == null
                            ? new EngineSelfMessage.Loaded(parts.loaded.get(), loaded)
                            : new EngineSelfMessage.Broken("loading", thrown));
            parts.watch.set(ModelWatch.create(catalog, models.interval(),
                    (name, folder) -> parts.thread.await(() -> parts.loaded.get().load(name, folder, LOG)),
                    now -> self.tell(new EngineSelfMessage.ModelsChanged(now)),
                    lost -> self.tell(new EngineSelfMessage.Broken("loading a model", lost)), LOG));
            return loading(context, settings, blobs, parts, stash);
        })).narrow();
    }

    private static Parts start(ActorContext<Message> context, EngineSettings settings,
            ExecutionMarks marks) {
        ActorRef<Message> self = context.getSelf();
        var queue = new DeviceQueue(settings.copiesPerRun());
        var loaded = new AtomicReference<DeviceExecutor>();
        var thread = DeviceThread.start("device-" + self.path().name(), queue,
                turn -> loaded.get().execute(turn),
                thrown -> self.tell(new EngineSelfMessage.Broken("a turn", thrown)));
        return new Parts(queue, new StagingBuffers(settings.runs().heapLimit()), thread, loaded,
                new AtomicReference<>(), marks);
    }

    private static Behavior<Message> loading(ActorContext<Message> context, EngineSettings settings,
            BlobStore blobs, Parts parts, StashBuffer<Message> stash) {
        return Behaviors.receive((_, message) -> switch (message) {
            case EngineSelfMessage.Loaded(var executor, var models) -> {
                var engine = new Engine(context, settings, blobs, parts, executor, models);
                engine.register();
                parts.watch.get().start();
                yield stash.unstashAll(Behaviors.receive((_, next) -> engine.receive(next),
                        (_, signal) -> engine.stopped(parts, signal)));
            }
            case EngineSelfMessage.Broken broken -> throw broken(broken);
            default -> {
                stash.stash(message);
                yield Behaviors.same();
            }
        }, (_, signal) -> {
            if (signal instanceof PostStop) parts.stop();
            return Behaviors.same();
        });
    }

    /// The exception with which the engine stops.
    private static RuntimeException broken(EngineSelfMessage.Broken broken) {
        Optional<DeviceLost> lost = FaultClassifier.deviceLost(broken.why());
        if (lost.isPresent()) {
            LOG.error("the device is lost in {}: {}", broken.what(), lost.get().getMessage());
            return lost.get();
        }
        return broken.why() instanceof RuntimeException itself ? itself
                : new IllegalStateException("the engine failed in " + broken.what(), broken.why());
    }

    private void register() {
        ActorRef<EngineCommand> self = context.getSelf().narrow();
        context.scheduleOnce(RELEASE_EVERY, context.getSelf(), new EngineSelfMessage.ReleaseUnused());
        var receptionist = context.getSystem().receptionist();
        receptionist.tell(Receptionist.register(EngineCommand.ANY, self));
        for (ModelName model : models.names())
            receptionist.tell(Receptionist.register(EngineCommand.key(model.slug()), self));
    }

    private void deregister() {
        retired = true;
        ActorRef<EngineCommand> self = context.getSelf().narrow();
        var receptionist = context.getSystem().receptionist();
        receptionist.tell(Receptionist.deregister(EngineCommand.ANY, self));
        for (ModelName model : models.names())
            receptionist.tell(Receptionist.deregister(EngineCommand.key(model.slug()), self));
    }

    /// Changes what is served. The entities of runs whose model has left service make them durable.
    private void serve(Consumer<ServedModels> change) {
        Set<ModelName> before = models.names();
        change.accept(models);
        Set<ModelName> now = models.names();
        ActorRef<EngineCommand> self = context.getSelf().narrow();
        var receptionist = context.getSystem().receptionist();
        for (ModelName model : before)
            if (!now.contains(model))
                receptionist.tell(Receptionist.deregister(EngineCommand.key(model.slug()), self));
        for (ModelName model : now)
            if (!before.contains(model) && !retired)
                receptionist.tell(Receptionist.register(EngineCommand.key(model.slug()), self));
        for (RunQueue run : runs.values()) {
            ModelName model = run.config.baseModel();
            if (before.contains(model) && !now.contains(model)) evict(run.config.run());
        }
    }

    private Behavior<Message> receive(Message message) {
        if (message instanceof EngineCommand command) execute(command);
        else if (message instanceof EngineSelfMessage self) handle(self);
        decodeWaiting();
        admitAndEvict();
        Metrics.SAMPLING.set(samples.sequences());
        return Behaviors.same();
    }

    private Behavior<Message> stopped(Parts parts, Signal signal) {
        if (signal instanceof PostStop) {
            runs.values().forEach(run -> Metrics.OPEN.labelValues(slug(run)).dec());
            parts.stop();
        }
        return Behaviors.same();
    }

    private static String slug(RunQueue run) {
        return run.config.baseModel().slug();
    }

    // ---- commands ----

    private void execute(EngineCommand command) {
        switch (command) {
            case EngineCommand.OpenRun open -> open(open);
            case EngineCommand.Execute(var run, var position, _, _, _, _, var replyTo) -> add(run, command,
                    position, replyTo, false, why -> new EngineEvent.Failed(run, position, why));
            case EngineCommand.TakeRecoveryPoint(var run, var position, var replyTo) ->
                    add(run, command, position, replyTo, true,
                            why -> new EngineEvent.RecoveryPointFailed(run, position, why));
            case EngineCommand.CloseRun(var run) -> close(run, "closed");
            case EngineCommand.Sample(var task, var replyTo) -> sample(new PendingSample(task, replyTo));
            case EngineCommand.Describe(var replyTo) ->
                    replyTo.tell(models.description(samples.sequences(), runs.size()));
            case EngineCommand.Tokenize(var model, var text, var special, var replyTo) ->
                withTokenizer(model, replyTo, t -> new EngineReply.Tokenized(t.encode(text, special)));
            case EngineCommand.Detokenize(var model, var tokens, var skip, var replyTo) ->
                withTokenizer(model, replyTo, t -> new EngineReply.Detokenized(t.decode(tokens, skip)));
            case EngineCommand.FollowSample question -> samples.follow(question);
            case EngineCommand.CancelSample(var task) -> samples.cancel(task);
            case EngineCommand.DetokenizeNext(var model, var known, var next, var last, var replyTo) ->
                withTokenizer(model, replyTo,
                        t -> new EngineReply.DetokenizedNext(t.decodeNext(known, next, last)));
            case EngineCommand.DetokenizeEach(var model, var tokens, var replyTo) ->
                withTokenizer(model, replyTo, t -> new EngineReply.DetokenizedEach(t.decodeEach(tokens)));
            case EngineCommand.AlignText(var model, var text, var replyTo) ->
                withTokenizer(model, replyTo, t -> aligned(t.align(text)));
            case EngineCommand.AlignTokens(var model, var tokens, var replyTo) ->
                withTokenizer(model, replyTo, t -> aligned(t.align(tokens)));
            case EngineCommand.FetchTokenizerFiles(var model, var replyTo) ->
                withTokenizer(model, replyTo, t -> new EngineReply.TokenizerFiles(t.files()));
            case EngineCommand.Drain _ -> deregister();
        }
    }

    private void open(EngineCommand.OpenRun open) {
        RunId id = open.config().run();
        close(id, "closed");
        Optional<Fault> refused = models.refusal(open.config());
        if (refused.isPresent()) {
            open.replyTo().tell(new EngineEvent.OpenFailed(id, refused.get()));
            return;
        }
        LoadedModel model = models.get(open.config().baseModel()).orElseThrow();
        long bytes = model.runBytes(open.lora());
        var run = new RunQueue(open.config(), open.incarnation(), new ResidentRun(model), open.replyTo(),
                bytes, position -> marks.executed(id, position));
        switch (admission.request(id, bytes)) {
            case RunAdmission.Answer.Granted() -> {}
            case RunAdmission.Answer.Queued() -> run.waiting = true;
            case RunAdmission.Answer.QueueFull(var waiting) -> {
                open.replyTo().tell(new EngineEvent.OpenFailed(id, Fault.server("queue_full", waiting
                        + " runs wait for room on this worker already; raise bios.engine.run-bytes, or start"
                        + " more workers")));
                return;
            }
            case RunAdmission.Answer.TooLarge(var limit) -> {
                open.replyTo().tell(new EngineEvent.OpenFailed(id, tooLarge(bytes, limit)));
                return;
            }
        }
        runs.put(id, run);
        byState.put(run.run, run);
        Metrics.OPEN.labelValues(slug(run)).inc();
        run.add(new QueuedOperation(open, 0, run.replies.reserve(open.replyTo(), false)));
        decode(run);
    }

    private static Fault tooLarge(long bytes, long limit) {
        return Fault.server("run_too_large", "the run's state needs " + Math.ceilDiv(bytes, MIB)
                + " MiB and this worker has " + limit / MIB + " MiB for all runs; choose a smaller rank or"
                + " fewer target modules, or raise bios.engine.run-bytes");
    }

    /// Admits runs that have waited, and asks the entities of others to close them where there is no room.
    private void admitAndEvict() {
        for (RunId id : admission.admitWaiting()) {
            RunQueue run = runs.get(id);
            run.waiting = false;
            decode(run);
        }
        admission.selectEvictions(this::idle).forEach(this::evict);
    }

    private boolean idle(RunId run) {
        return runs.get(run).idle();
    }

    private void evict(RunId run) {
        runs.get(run).entity.tell(new EngineEvent.EvictionRequested(run));
    }

    /// Decodes operations of runs that have waited for heap.
    private void decodeWaiting() {
        for (int i = heap.waiting(); i > 0; i--) {
            RunQueue run = heap.pollWaiting();
            if (open(run)) decode(run);
        }
    }

    private void add(RunId id, EngineCommand command, long position, ActorRef<EngineEvent> replyTo,
            boolean overtaken, Function<Fault, EngineEvent> refused) {
        RunQueue run = runs.get(id);
        if (run == null) {
            replyTo.tell(refused.apply(notOpen(id)));
            return;
        }
        admission.touch(id);
        run.add(new QueuedOperation(command, position, run.replies.reserve(replyTo, overtaken)));
        decode(run);
    }

    private void close(RunId id, String reason) {
        RunQueue run = runs.remove(id);
        if (run == null) return;
        Metrics.OPEN.labelValues(slug(run)).dec();
        Metrics.LEFT.labelValues(slug(run), reason).inc();
        byState.remove(run.run);
        admission.remove(id);
        run.clear().forEach(heap::release);
        queue.remove(run.run);
        call("closing a run", () -> {
            executor.close(run.run);
            return new EngineSelfMessage.Called();
        });
    }

    private void sample(PendingSample request) {
        Optional<Fault> fault = models.refusal(request.task());
        if (fault.isEmpty()) fault = samples.add(request);
        fault.ifPresent(why -> request.replyTo().tell(new EngineReply.RequestFailed(why)));
    }

    private void withTokenizer(ModelName name, ActorRef<EngineReply> replyTo,
            Function<Tokenizer, EngineReply> use) {
        Optional<LoadedModel> model = models.get(name);
        Optional<Tokenizer> tokenizer = model.flatMap(LoadedModel::tokenizer);
        if (tokenizer.isEmpty()) replyTo.tell(new EngineReply.RequestFailed(model.isEmpty()
                ? models.missing(name) : Fault.user("no_tokenizer", name + " has no tokenizer.json")));
        else Thread.ofVirtual().start(() -> replyTo.tell(answer(tokenizer.get(), use)));
    }

    private static EngineReply aligned(Tokenizer.Aligned prompt) {
        return new EngineReply.Aligned(prompt.tokens(), prompt.text(), prompt.ends());
    }

    private static EngineReply answer(Tokenizer tokenizer, Function<Tokenizer, EngineReply> use) {
        try {
            return use.apply(tokenizer);
        } catch (Throwable thrown) {
            return new EngineReply.RequestFailed(FaultClassifier.of(thrown, "the tokenizer"));
        }
    }

    private static Fault notOpen(RunId run) {
        return Fault.server("run_not_open", "run " + run + " is not open on this worker");
    }

    // ---- reports ----

    private void handle(EngineSelfMessage message) {
        switch (message) {
            case EngineSelfMessage.Loaded _, EngineSelfMessage.Called _ -> {}
            case EngineSelfMessage.ModelsChanged(var now) -> serve(models -> models.replace(now));
            case EngineSelfMessage.Broken broken -> {
                if (FaultClassifier.deviceLost(broken.why()).isPresent()) {
                    marks.deviceLost();
                    device.lost();
                }
                throw broken(broken);
            }
            case EngineSelfMessage.Decoded(var run, var operation, var task) -> {
                operation.decoded(task);
                submit(run);
            }
            case EngineSelfMessage.DecodeFailed(var run, var operation, var fault) -> {
                operation.failed(fault);
                submit(run);
            }
            case EngineSelfMessage.Executed(var operations) -> operations.forEach(this::done);
            case EngineSelfMessage.Written(var run, var operation, var event, var live) ->
                    written(run, operation, event, live);
            case EngineSelfMessage.Sampled(var outcomes, var progress) -> {
                samples.drawn(progress);
                samples.finished(outcomes);
            }
            case EngineSelfMessage.AdapterLoaded(var key, var adapter) -> samples.loaded(key, adapter);
            case EngineSelfMessage.AdapterFailed(var key, var fault) -> samples.loadFailed(key, fault);
            case EngineSelfMessage.ReleaseUnused _ -> releaseUnused();
        }
    }

    /// Gives back what nothing has used since the last time: adapters, pages for sampling, scratch.
    private void releaseUnused() {
        List<Adapter> unused = samples.removeUnusedAdapters();
        call("giving memory back", () -> {
            unused.forEach(Adapter::close);
            executor.releaseUnused();
            return new EngineSelfMessage.Called();
        });
        context.scheduleOnce(RELEASE_EVERY, context.getSelf(), new EngineSelfMessage.ReleaseUnused());
    }

    private boolean open(RunQueue run) {
        return byState.get(run.run) == run;
    }

    /// An operation has its outcome.
    private void done(EngineSelfMessage.Done done) {
        RunQueue run = byState.get(done.run());
        if (run == null) {
            if (done.outcome() instanceof TaskOutcome.Copied(var copy, var live)) discard(done, copy, live);
            return;
        }
        QueuedOperation operation = done.operation();
        operation.place.addDeviceNanos(done.nanos());
        run.remove(operation);
        heap.release(operation);
        RunId id = run.config.run();
        if (operation.command instanceof EngineCommand.Execute) admission.executed(id);
        switch (done.outcome()) {
            case TaskOutcome.Opened() -> {
                boolean fresh = operation.command instanceof EngineCommand.OpenRun open
                        && open.recoveryPoint().isEmpty();
                Metrics.OPENED.labelValues(slug(run), fresh ? "new" : "recovery_point").inc();
                run.replies.complete(operation.place, new EngineEvent.Opened(id));
            }
            case TaskOutcome.Completed(var result) -> {
                run.loaded(operation);
                run.replies.complete(operation.place,
                        new EngineEvent.Executed(id, operation.position, result));
            }
            case TaskOutcome.Copied(var copy, var live) -> write(run, operation, copy, live);
            case TaskOutcome.Failed(var fault) -> failed(run, operation, fault);
        }
        decode(run);
    }

    /// Frees a copy whose run was closed meanwhile.
    private void discard(EngineSelfMessage.Done done, StateSnapshot copy, boolean live) {
        call("freeing a copy", () -> {
            executor.free(copy);
            if (live) executor.written(done.run());
            return new EngineSelfMessage.Called();
        });
    }

    private void failed(RunQueue run, QueuedOperation operation, Fault fault) {
        RunId id = run.config.run();
        if (fault.code().equals(EngineCommand.BASE_MODEL_CHANGED)) {
            baseModelChanged(run, operation, fault);
            return;
        }
        run.replies.complete(operation.place, failure(id, operation, fault));
        // Gives back the room that was reserved for the state of a load.
        run.bytes = run.neededBytes();
        admission.resize(id, run.bytes);
        // So that the next operation finds more room.
        if (fault.code().equals("out_of_memory"))
            admission.selectOneEviction(this::idle).forEach(this::evict);
        if (!(operation.command instanceof EngineCommand.OpenRun)) return;
        abandon(run);
    }

    /// Closes a run; its other operations are executed where it is opened next.
    private void abandon(RunQueue run) {
        RunId id = run.config.run();
        for (QueuedOperation next : run.clear()) {
            heap.release(next);
            run.replies.complete(next.place, failure(id, next, notOpen(id)));
        }
        close(id, "failed");
    }

    /// An operation has found the files of its base model changed: the model leaves service, and the entity
    /// opens the run again where and when it can.
    private void baseModelChanged(RunQueue run, QueuedOperation operation, Fault fault) {
        RunId id = run.config.run();
        boolean opening = operation.command instanceof EngineCommand.OpenRun;
        run.replies.complete(operation.place, failure(id, operation, opening ? fault : notOpen(id)));
        abandon(run);
        serve(models -> models.withdraw(run.config.baseModel(), fault.message()));
    }

    private static EngineEvent failure(RunId run, QueuedOperation operation, Fault fault) {
        return switch (operation.command) {
            case EngineCommand.OpenRun _ -> new EngineEvent.OpenFailed(run, fault);
            case EngineCommand.TakeRecoveryPoint _ ->
                    new EngineEvent.RecoveryPointFailed(run, operation.position, fault);
            default -> new EngineEvent.Failed(run, operation.position, fault);
        };
    }

    /// Writes a copy of the state; the event is sent when it is durable.
    private void write(RunQueue run, QueuedOperation operation, StateSnapshot copy, boolean live) {
        run.copies++;
        run.beingWritten |= live;
        Metrics.COPIES.inc();
        var purpose = ((DeviceTask.Copy) operation.task()).purpose();
        startVirtual("writing a copy", () -> {
            EngineEvent event;
            try {
                event = streams.write(run.config, run.incarnation, operation.position, purpose, copy,
                        run.entity::tell);
            } catch (Throwable thrown) {
                String what = "writing the state behind operation " + operation.position;
                event = failure(run.config.run(), operation, FaultClassifier.of(thrown, what));
            }
            return new EngineSelfMessage.Written(run, operation, event, live);
        });
    }

    private void written(RunQueue run, QueuedOperation operation, EngineEvent event, boolean live) {
        run.copies--;
        Metrics.COPIES.dec();
        if (live) {
            run.beingWritten = false;
            call("taking back a state", () -> {
                executor.written(run.run);
                return new EngineSelfMessage.Called();
            });
        }
        queue.copied(run.run, live);
        if (!open(run)) return;
        run.replies.complete(operation.place, event);
        submit(run);
    }

    // ---- decoding ----

    /// Reads and decodes the next operations of a run, and submits those that are decoded.
    private void decode(RunQueue run) {
        if (run.waiting) return;
        Optional<QueuedOperation> next;
        while ((next = run.toDecode(settings.preparedPerRun())).isPresent()) {
            QueuedOperation operation = next.get();
            long bytes = HeapBudget.cost(operation);
            Optional<Fault> refused =
                    heap.refusal(operation.words(), bytes).or(() -> outgrows(run, operation));
            if (refused.isPresent()) {
                operation.failed(refused.get());
                continue;
            }
            if (!heap.reserve(operation, bytes)) {
                heap.addWaiting(run);
                break;
            }
            decode(run, operation);
        }
        submit(run);
    }

    private void decode(RunQueue run, QueuedOperation operation) {
        operation.stage = QueuedOperation.Stage.DECODING;
        switch (operation.command) {
            case EngineCommand.OpenRun open ->
                    operation.decoded(new DeviceTask.Open(open.lora(), open.recoveryPoint()));
            case EngineCommand.TakeRecoveryPoint _ ->
                    operation.decoded(new DeviceTask.Copy(new DeviceTask.Purpose.Recovery()));
            case EngineCommand.Execute execute -> {
                if (!blobs.decodesAtOnce(execute))
                    startVirtual("decoding", () -> decoded(run, operation, execute));
                else switch (decoded(run, operation, execute)) {
                    case EngineSelfMessage.Decoded(_, _, var task) -> operation.decoded(task);
                    case EngineSelfMessage.DecodeFailed(_, _, var fault) -> operation.failed(fault);
                    case EngineSelfMessage other -> throw new IllegalStateException("not decoded: " + other);
                }
            }
            default -> throw new IllegalStateException("not an operation: " + operation.command);
        }
    }

    /// May read from the blob store: runs on a virtual thread, unless there is nothing to read.
    private EngineSelfMessage decoded(RunQueue run, QueuedOperation operation,
            EngineCommand.Execute execute) {
        try {
            return new EngineSelfMessage.Decoded(run, operation, blobs.operation(execute));
        } catch (Throwable thrown) {
            return new EngineSelfMessage.DecodeFailed(run, operation,
                    FaultClassifier.of(thrown, operation.words()));
        }
    }

    /// Why the shape of a loaded state has no room here, or nothing: then the room is reserved.
    private Optional<Fault> outgrows(RunQueue run, QueuedOperation operation) {
        if (!(operation.command instanceof EngineCommand.Execute execute) || execute.loaded().isEmpty())
            return Optional.empty();
        long own = run.run.model.runBytes(execute.loaded().get().lora());
        long bytes = Math.max(run.bytes, own);
        if (!admission.resize(run.config.run(), bytes))
            return Optional.of(tooLarge(bytes, executor.runBytes()));
        operation.stateBytes = own;
        run.bytes = bytes;
        return Optional.empty();
    }

    // ---- work for the device ----

    /// Gives the decoded operations of a run to the device, in their order; those that cannot be executed
    /// fail.
    private void submit(RunQueue run) {
        while (open(run)) {
            Optional<QueuedOperation> next = run.toSubmit();
            if (next.isEmpty()) return;
            QueuedOperation operation = next.get();
            if (operation.fault().isPresent()) {
                run.remove(operation);
                heap.release(operation);
                failed(run, operation, operation.fault().get());
                continue;
            }
            operation.stage = QueuedOperation.Stage.SUBMITTED;
            if (operation.task().streamed()) stream(run, operation);
            else queue.add(run.run, operation);
        }
    }

    /// Makes or replaces the state of a run, on a virtual thread.
    private void stream(RunQueue run, QueuedOperation operation) {
        DeviceTask task = operation.task();
        startVirtual("streaming a state", () -> {
            TaskOutcome outcome;
            ExecutionMarks.Handle mark = marks.begin(operation.marked());
            long began = System.nanoTime(); // edge: measures, decides nothing
            try {
                outcome = switch (task) {
                    case DeviceTask.Open open -> streams.open(run.config, run.run, open);
                    case DeviceTask.Load load -> streams.load(run.run, load);
                    default -> throw new IllegalStateException("not from a stream: " + task.words());
                };
            } catch (Throwable thrown) {
                outcome = new TaskOutcome.Failed(FaultClassifier.of(thrown, task.words()));
            }
            marks.end(mark);
            long nanos = System.nanoTime() - began; // edge: measures, decides nothing
            return new EngineSelfMessage.Executed(List.of(
                    new EngineSelfMessage.Done(run.run, operation, outcome, nanos)));
        });
    }

    private void loadAdapter(PendingSample request, List<Adapter> evicted) {
        if (!evicted.isEmpty()) call("freeing adapters", () -> {
            evicted.forEach(Adapter::close);
            return new EngineSelfMessage.Called();
        });
        AdapterCache.Key key = request.key().orElseThrow();
        startVirtual("loading an adapter", () -> {
            try {
                return new EngineSelfMessage.AdapterLoaded(key, streams.adapter(request.task()));
            } catch (Throwable thrown) {
                return new EngineSelfMessage.AdapterFailed(key, FaultClassifier.of(thrown,
                        "adapter " + key.contentId() + " of "
                        + request.task().adapter().orElseThrow().blob().bytes() + " bytes"));
            }
        });
    }

    /// Runs on a virtual thread of its own.
    private void startVirtual(String what, Supplier<EngineSelfMessage> work) {
        ActorRef<Message> self = context.getSelf();
        Thread.ofVirtual().start(() -> {
            EngineSelfMessage message;
            try {
                message = work.get();
            } catch (Throwable thrown) {
                message = new EngineSelfMessage.Broken(what, thrown);
            }
            self.tell(message);
        });
    }

    /// Runs on the device's thread before its next turn.
    private void call(String what, Callable<EngineSelfMessage> work) {
        context.pipeToSelf(device.call(work), (message, thrown) ->
                thrown == null ? message : new EngineSelfMessage.Broken(what, thrown));
    }
}
