package bios.worker.engine;

import bios.persistence.marks.ExecutionMarks;
import bios.protocol.Fault;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunId;
import bios.protocol.sampling.SampleResult;
import bios.worker.adapter.Adapter;
import bios.worker.adapter.StateSnapshot;
import bios.worker.adapter.StateSource;
import bios.worker.adapter.TrainingState;
import bios.worker.device.Device;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.HostMemory;
import bios.worker.engine.ResidentRun.Evaluating;
import bios.worker.load.FingerprintCache;
import bios.worker.load.ModelFolder;
import bios.worker.load.Tokenizer;
import bios.worker.model.BaseModel;
import bios.worker.sample.LaunchedDecode;
import bios.worker.sample.Sampler;
import bios.worker.train.Evaluation;
import bios.worker.train.LaunchedPass;
import bios.worker.train.LaunchedStep;
import bios.worker.train.PreparedPass;
import bios.worker.train.Trainer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.Supplier;
import org.slf4j.Logger;

/// A device with its models, runs and samplers: all that happens on the device's thread. A failure becomes
/// the [Fault] of the operation that met it, by [FaultClassifier]; only the loss of the device is thrown.
final class DeviceExecutor implements AutoCloseable {
    /// So many bytes of freed states are worth a walk through the C library's heaps.
    private static final long TRIM = 16 << 20;
    private static final long LEAST_RUN_BYTES = 64 << 20;
    /// Copies of states that are being written, and gradients of operations that are launched ahead, take at
    /// most this part of the bytes of runs, in addition to them.
    private static final int COPY_SHARE = 4;
    private final Device device;
    private final EngineSettings settings;
    private final DeviceQueue queue;
    private final StagingBuffers buffers;
    private final Consumer<EngineSelfMessage> report;
    private final ExecutionMarks marks;
    private final Map<ModelName, LoadedModel> models = new ConcurrentHashMap<>();
    private final FingerprintCache fingerprints;
    private final Set<ResidentRun> runs = new HashSet<>();
    private final AtomicLong copyBytes = new AtomicLong();
    private long runBytes;
    private long freedBytes;
    private boolean worked;
    /// Ends when the results of all passes and steps that were launched have arrived.
    private CompletableFuture<Void> arrivals = CompletableFuture.completedFuture(null);
    /// When results of the device were last taken.
    private long lastEnd = System.nanoTime(); // edge: measures, decides nothing

    private DeviceExecutor(Device device, EngineSettings settings, FingerprintCache fingerprints,
            DeviceQueue queue, StagingBuffers buffers, ExecutionMarks marks,
            Consumer<EngineSelfMessage> report) {
        this.device = device;
        CardMetrics.watch(device);
        this.fingerprints = fingerprints;
        this.settings = settings;
        this.queue = queue;
        this.buffers = buffers;
        this.marks = marks;
        this.report = report;
    }

    /// Opens the device and loads the models; see [ModelCatalog#start] for what happens when one cannot be
    /// served.
    ///
    /// @param marks keeps what is being executed beyond the end of the process
    /// @param report tells the engine what has ended
    /// @param loaded takes the executor as soon as the device is open
    static ModelCatalog.Snapshot load(Supplier<Device> device, ModelCatalog catalog,
            FingerprintCache fingerprints, EngineSettings settings, DeviceQueue queue, StagingBuffers buffers,
            ExecutionMarks marks, Consumer<EngineSelfMessage> report, Consumer<DeviceExecutor> loaded,
            Logger log) {
        var executor =
                new DeviceExecutor(device.get(), settings, fingerprints, queue, buffers, marks, report);
        try {
            ModelCatalog.Snapshot models = catalog.start((name, folder) -> executor.load(name, folder, log));
            executor.runBytes = executor.roomForRuns();
            log.info("memory limit={} in_use={} runs={} host_runs={} device=\"{}\"",
                    executor.device.memoryLimit(), executor.device.memoryInUse(), executor.runBytes(),
                    executor.hostRunBytes(), executor.device.description());
            executor.reportMemory();
            loaded.accept(executor);
            return models;
        } catch (Throwable thrown) {
            executor.close();
            throw thrown;
        }
    }

    /// Loads a model; on the device's thread.
    LoadedModel load(ModelName name, Path folder, Logger log) {
        long began = System.nanoTime(); // edge: seconds for the log
        Consumer<String> warn = what -> log.atWarn().addKeyValue("model", name).log("{}", what);
        Optional<Tokenizer> tokenizer = Tokenizer.open(folder);
        tokenizer.ifPresent(t -> t.warnings(folder).forEach(warn));
        BaseModel model = BaseModel.load(ModelFolder.open(folder), name, device,
                device.activationType(), fingerprints, warn);
        model.setActivationBudget(settings.activationBytes(device), settings.longSequenceBytes(device));
        Sampler sampler = new Sampler(model, tokenizer.map(t -> tokens -> t.decode(tokens, false)),
                settings.sampler().forDevice(device));
        var loaded = new LoadedModel(model, settings.nonFinite(), sampler, tokenizer);
        models.put(name, loaded);
        var info = model.info();
        double seconds = (System.nanoTime() - began) / 1_000_000 / 1e3; // edge: seconds for the log
        log.atInfo().addKeyValue("model", name).addKeyValue("folder", folder)
                .addKeyValue("architecture", info.architecture())
                .addKeyValue("parameters", info.parameters()).addKeyValue("dtype", info.dtype())
                .addKeyValue("bytes", info.parameters() * (info.dtype().equals("float32") ? 4 : 2))
                .addKeyValue("context", info.contextLength())
                .addKeyValue("fingerprint", info.fingerprint().orElse(""))
                .addKeyValue("tokenizer", tokenizer.isPresent()).addKeyValue("seconds", seconds)
                .addKeyValue("device", device.description()).log("loaded a model");
        if (sampler.capacity() < info.contextLength())
            log.atWarn().addKeyValue("model", name).log("only sequences of up to {} of its {} tokens can be"
                    + " sampled; raise bios.engine.sampler.cache-bytes", sampler.capacity(),
                    info.contextLength());
        return loaded;
    }

    /// The models by name; [LoadedModel] says what of them other threads may use.
    Map<ModelName, LoadedModel> models() {
        return Map.copyOf(models);
    }

    // ---- turns ----

    /// Executes one turn and reports what has ended.
    void execute(DeviceQueue.Turn turn) {
        worked = true;
        switch (turn) {
            case DeviceQueue.Turn.Sample(var model, var added) -> sample(model, added);
            case DeviceQueue.Turn.Tasks(var operations) -> operations.forEach(this::execute);
            case DeviceQueue.Turn.Pass(var candidates) -> pass(candidates);
            case DeviceQueue.Turn.Complete(var results) -> results.get().ifPresent(report);
        }
        reportMemory();
    }

    private void reportMemory() {
        Metrics.DEVICE_MEMORY.labelValues("in_use").set(device.memoryInUse());
        Metrics.DEVICE_MEMORY.labelValues("limit").set(device.memoryLimit());
    }

    /// Waits for the results of a pass and takes them, in the order of the launches. A device in the host's
    /// memory has them when the launch returns: they are taken at once. For another device a thread of their
    /// own waits, so that the next pass is prepared and launched meanwhile.
    ///
    /// @param await waits for the results; any thread
    /// @param take takes them on the device's thread, or learns what `await` has thrown
    private void whenComplete(Runnable await, Function<Optional<Throwable>,
            Optional<EngineSelfMessage>> take) {
        if (!device.ownMemory()) {
            take.apply(failure(await)).ifPresent(report);
            return;
        }
        arrivals = arrivals.thenRunAsync(() -> {
            Optional<Throwable> failure = failure(await);
            queue.add(new DeviceQueue.Turn.Complete(() -> take.apply(failure)));
        }, wait -> Thread.ofVirtual().start(wait));
    }

    private static Optional<Throwable> failure(Runnable await) {
        try {
            await.run();
            return Optional.empty();
        } catch (Throwable thrown) {
            return Optional.of(thrown);
        }
    }

    private static Optional<EngineSelfMessage> executed(List<EngineSelfMessage.Done> done) {
        return done.isEmpty() ? Optional.empty() : Optional.of(new EngineSelfMessage.Executed(done));
    }

    // ---- tasks ----

    private void execute(ResidentRun run, QueuedOperation operation) {
        long began = System.nanoTime(); // edge: measures, decides nothing
        DeviceTask task = operation.task();
        ExecutionMarks.Handle mark = marks.begin(operation.marked());
        try {
            switch (task) {
                case DeviceTask.Optimize(var step) -> {
                    LaunchedStep launched =
                            run.model.trainer().optimStep(run.state.orElseThrow(), step.params());
                    queue.stepping(run);
                    whenComplete(launched::await, failure -> {
                        TaskOutcome outcome = failure.map(why -> (TaskOutcome) failed(operation, why))
                                .orElseGet(() -> stepped(run, operation, launched));
                        queue.stepped(run);
                        marks.end(mark);
                        return executed(List.of(done(run, operation, outcome, worked(began))));
                    });
                }
                case DeviceTask.DropGradient() -> {
                    TaskOutcome dropped = dropGradient(run.state.orElseThrow());
                    marks.end(mark);
                    executed(List.of(done(run, operation, dropped, since(began)))).ifPresent(report);
                }
                case DeviceTask.Copy(var purpose) -> {
                    TaskOutcome.Copied copied = copy(run, purpose.content());
                    marks.end(mark);
                    queue.copying(run, copied.live());
                    executed(List.of(done(run, operation, copied, since(began)))).ifPresent(report);
                }
                case DeviceTask.Evaluate _, DeviceTask.Open _, DeviceTask.Load _ ->
                        throw new IllegalStateException("not a task of one turn: " + task.words());
            }
        } catch (Throwable thrown) {
            var failed = failed(operation, thrown);
            marks.end(mark);
            executed(List.of(done(run, operation, failed, since(began)))).ifPresent(report);
        }
    }

    /// Drops the gradient sum, and says of how many operations it was.
    private static TaskOutcome dropGradient(TrainingState state) {
        double operations = state.accumulatedOperations();
        state.dropGradient();
        return new TaskOutcome.Completed(new OperationResult.Stepped(state.steps(),
                Map.of("dropped_operations:sum", operations)));
    }

    private static TaskOutcome stepped(ResidentRun run, QueuedOperation operation, LaunchedStep launched) {
        try {
            OperationResult.Stepped result = launched.complete();
            if (result.metrics().get("skipped_steps:sum") > 0)
                Metrics.SKIPPED_STEPS.labelValues(run.model.model().info().name().slug()).inc();
            return new TaskOutcome.Completed(result);
        } catch (Throwable refused) {
            return failed(operation, refused);
        }
    }

    /// The first operation of a run has its outcome. What was launched behind one that failed begins again:
    /// it must not meet what the failure left behind.
    private EngineSelfMessage.Done done(ResidentRun run, QueuedOperation operation, TaskOutcome outcome,
            long nanos) {
        if (outcome instanceof TaskOutcome.Failed) {
            run.dropEvaluations();
            queue.failed(run, operation);
        } else queue.done(run, operation);
        return new EngineSelfMessage.Done(run, operation, outcome, nanos);
    }

    private static long since(long began) {
        return System.nanoTime() - began; // edge: measures, decides nothing
    }

    /// Nanoseconds that the device has worked for what has ended now, without the time that it still needed
    /// for what was launched before.
    private long worked(long launched) {
        long nanos = Math.min(since(launched), since(lastEnd));
        lastEnd = System.nanoTime(); // edge: measures, decides nothing
        return nanos;
    }

    private static TaskOutcome.Failed failed(QueuedOperation operation, Throwable thrown) {
        return new TaskOutcome.Failed(FaultClassifier.of(thrown, operation.task().words()));
    }

    /// Bytes of gradients of operations that are launched ahead, beyond the bytes of their runs.
    private long bytesAhead() {
        return runs.stream().mapToLong(run -> run.bytesAhead(0)).sum();
    }

    /// Copies the state on the device. If there is no memory for a copy, the snapshot reads the state itself.
    private TaskOutcome.Copied copy(ResidentRun run, StateSnapshot.Content content) {
        TrainingState state = run.state.orElseThrow();
        if (copyBytes.get() + bytesAhead() + state.snapshotBytes(content) <= runBytes / COPY_SHARE) try {
            StateSnapshot copy = state.snapshot(content);
            copyBytes.addAndGet(copy.deviceBytes());
            return new TaskOutcome.Copied(copy, false);
        } catch (OutOfDeviceMemory _) {
            // Written without a copy.
        }
        run.beingWritten = true;
        return new TaskOutcome.Copied(state.live(content), true);
    }

    /// Frees a copy that is written. Any thread.
    void free(StateSnapshot copy) {
        copyBytes.addAndGet(-copy.deviceBytes());
        copy.close();
    }

    /// The state of a run, which was being written without a copy, is written.
    void written(ResidentRun run) {
        run.beingWritten = false;
        if (run.closed) close(run);
    }

    /// Bytes on the device of copies that are being written.
    long copyBytes() {
        return copyBytes.get();
    }

    // ---- states from streams ----

    /// Takes the memory of a new state; nothing when there is no room.
    TrainingState allocate(ResidentRun run, StateSource source) {
        return source.allocate(run.model.model().spec(), device);
    }

    /// Gives a run its first state, or another one; frees the one before, or the new one where the run is
    /// closed.
    void attach(ResidentRun run, TrainingState state) {
        if (run.closed) {
            state.close();
            return;
        }
        runs.add(run);
        Optional<TrainingState> before = run.state;
        run.state = Optional.of(state);
        before.ifPresent(TrainingState::close);
    }

    /// The optimizer settings that a step without settings uses in a run.
    AdamParams optimizerSettings(ResidentRun run) {
        return run.state.orElseThrow().optimizerSettings();
    }

    /// Closes a run: frees its memory as soon as nothing reads it.
    void close(ResidentRun run) {
        run.closed = true;
        run.dropEvaluations();
        if (run.beingWritten) return;
        runs.remove(run);
        freedBytes += run.state.map(TrainingState::bytes).orElse(0L);
        run.close();
        if (freedBytes < TRIM) return;
        freedBytes = 0;
        device.trim();
    }

    /// Gives back the memory of scratch and of pages for sampling, if there was no turn since the last call.
    void releaseUnused() {
        if (!worked) {
            models.values().forEach(model -> model.sampler().releaseUnused());
            device.releaseUnused();
        }
        worked = false;
    }

    // ---- passes ----

    /// A run that has an operation to evaluate.
    record Candidate(ResidentRun run, QueuedOperation operation, Operation.ForwardBackward evaluate) {}

    /// Puts the next micro-batches of several runs of one model through it, as many as fit, from the first
    /// on.
    private void pass(List<Candidate> candidates) {
        List<Evaluating> ready = new ArrayList<>();
        for (Candidate next : candidates) {
            Optional<Evaluating> begun = next.run.evaluating(next.operation).or(() -> begin(next));
            if (begun.isEmpty()) continue;
            boolean together = ready.isEmpty() || !next.run.exclusive && !ready.getFirst().run.exclusive;
            if (together) ready.add(begun.get());
        }
        if (!ready.isEmpty()) launch(fitting(ready));
    }

    private List<Evaluating> fitting(List<Evaluating> ready) {
        Trainer trainer = ready.getFirst().run.model.trainer();
        return ready.subList(0, trainer.fitting(evaluations(ready), settings.trainPassTokens()).size());
    }

    private static List<Evaluation> evaluations(List<Evaluating> share) {
        return share.stream().map(e -> e.evaluation).toList();
    }

    /// Begins an evaluation. What cannot begin ahead begins when the device has done what is before it.
    private Optional<Evaluating> begin(Candidate next) {
        boolean ahead = queue.ahead(next.run);
        if (ahead && !roomAhead(next)) {
            queue.again(next.run, next.operation);
            return Optional.empty();
        }
        next.run.exclusive |= next.operation.alone();
        try {
            TrainingState state = next.run.state.orElseThrow();
            return Optional.of(next.run.begun(next.operation,
                    next.run.model.trainer().begin(state, next.evaluate)));
        } catch (Throwable thrown) {
            TaskOutcome.Failed failed = failed(next.operation, thrown);
            if (ahead) queue.again(next.run, next.operation);
            else executed(List.of(ended(next.run, next.operation, failed, 0))).ifPresent(report);
            return Optional.empty();
        }
    }

    private boolean roomAhead(Candidate next) {
        long bytes = next.run.bytesAhead(next.evaluate.forwardOnly() ? 0 : 1);
        return bytes == 0
                || copyBytes.get() + bytesAhead() - next.run.bytesAhead(0) + bytes <= runBytes / COPY_SHARE;
    }

    private void launch(List<Evaluating> share) {
        long began = System.nanoTime(); // edge: measures, decides nothing
        var marked = new HashMap<RunId, Long>();
        share.forEach(e -> marked.putAll(e.operation.marked()));
        ExecutionMarks.Handle mark = marks.begin(marked);
        PreparedPass prepared;
        LaunchedPass launched;
        try {
            prepared = share.getFirst().run.model.trainer().prepare(evaluations(share));
            launched = prepared.launch();
        } catch (Throwable thrown) {
            List<EngineSelfMessage.Done> done = passFailed(share, thrown, queue.ahead(share.getFirst().run));
            marks.end(mark);
            executed(done).ifPresent(report);
            return;
        }
        List<ResidentRun> runs = share.stream().map(e -> e.run).toList();
        queue.launched(runs, share.stream().filter(e -> e.evaluation.allPrepared()).map(e -> e.run).toList());
        whenComplete(launched::await, failure -> {
            queue.completed(runs);
            var done = failure.or(() -> failure(launched::complete)).map(why -> passFailed(share, why, false))
                    .orElseGet(() -> passCompleted(share, prepared.tokens(), began));
            marks.end(mark);
            return executed(done);
        });
    }

    /// A pass has failed. Its operation has failed if it was alone in the pass, and everything before it is
    /// done. Else the runs are as before their operations, which then run again: each in a separate pass, so
    /// that only the operation at fault fails.
    ///
    /// @param ahead whether the device still works for its first run
    private List<EngineSelfMessage.Done> passFailed(List<Evaluating> share, Throwable thrown,
            boolean ahead) {
        TaskOutcome.Failed failed = failed(share.getFirst().operation, thrown);
        List<Evaluating> live = share.stream().filter(Evaluating::live).toList();
        if (share.size() == 1 && !ahead) return live.stream().map(e -> ended(e, failed)).toList();
        for (Evaluating each : live) {
            each.run.drop(each);
            each.run.exclusive |= share.size() > 1;
            queue.again(each.run, each.operation);
        }
        return List.of();
    }

    /// A pass is done: counts what it took, and ends the operations of which it was the last part.
    private List<EngineSelfMessage.Done> passCompleted(List<Evaluating> share, int tokens, long began) {
        ModelName model = share.getFirst().run.model.model().info().name();
        long nanos = worked(began);
        measured(model, "train", nanos);
        Metrics.TRAINED.labelValues(model.slug()).inc(tokens);
        List<EngineSelfMessage.Done> done = new ArrayList<>();
        for (Evaluating each : share) {
            // A run that was closed meanwhile has dropped its evaluations.
            if (!each.live()) continue;
            each.nanos += nanos;
            if (each.evaluation.done()) done.add(ended(each, finish(each)));
        }
        return done;
    }

    private static TaskOutcome finish(Evaluating each) {
        try {
            return new TaskOutcome.Completed(each.evaluation.result());
        } catch (Throwable thrown) {
            return failed(each.operation, thrown);
        }
    }

    private EngineSelfMessage.Done ended(Evaluating each, TaskOutcome outcome) {
        each.run.finished(each);
        return ended(each.run, each.operation, outcome, each.nanos);
    }

    /// An operation that is evaluated has ended.
    private EngineSelfMessage.Done ended(ResidentRun run, QueuedOperation operation, TaskOutcome outcome,
            long nanos) {
        run.exclusive = false;
        return done(run, operation, outcome, nanos);
    }

    private static void measured(ModelName model, String kind, long nanos) {
        Metrics.PASSES.labelValues(model.slug(), kind).inc();
        Metrics.PASS_SECONDS.labelValues(kind).observe(nanos / 1e9);
    }

    // ---- memory ----

    /// Most bytes of the states of runs: the setting, else half of the device memory that weights,
    /// activations and sampling leave.
    long runBytes() {
        return runBytes;
    }

    private long roomForRuns() {
        long beside = settings.adapterBytes()
                + models.size() * (settings.activationBytes(device)
                        + settings.sampler().forDevice(device).cacheBytes());
        long free = device.memoryLimit() - device.memoryInUse() - beside;
        return settings.runs().deviceBytes().orElse(Math.max(LEAST_RUN_BYTES, free / 2));
    }

    /// Most bytes of recovery points that are kept in the host's memory.
    long hostRunBytes() {
        return settings.runs().hostBytes().orElse(device.ownMemory() ? HostMemory.total() / 4 : 0);
    }

    // ---- sampling ----

    /// Takes the memory of an adapter for sampling; nothing when there is no room.
    Adapter allocate(ModelName model, LoraSpec lora) {
        return Adapter.allocate(lora, models.get(model).model().spec(), device);
    }

    /// A request with its adapter on the device.
    ///
    /// @param suspected whether processes ended while it was being decoded
    record Ready(PendingSample request, Optional<Adapter> adapter, boolean suspected) {}

    /// How a request ended.
    sealed interface SampleOutcome {
        PendingSample request();

        record Drawn(PendingSample request, SampleResult result) implements SampleOutcome {}

        record Failed(PendingSample request, Fault fault) implements SampleOutcome {}
    }

    /// Gives new requests to a model's sampler, and launches one step.
    private void sample(ModelName name, List<Ready> added) {
        LoadedModel model = models.get(name);
        for (Ready ready : added)
            model.requests().put(model.sampler().submit(ready.request.task(), ready.adapter), ready.request);
        long began = System.nanoTime(); // edge: measures, decides nothing
        queue.launched(name);
        ExecutionMarks.Handle mark = marks.beginSamples(model.requests().values().stream()
                .map(request -> request.task().id()).toList());
        try {
            LaunchedDecode launched = model.sampler().launch();
            whenComplete(launched::await, _ -> {
                var ended = sampled(name, model, launched, began);
                marks.end(mark);
                return ended;
            });
        } catch (Throwable thrown) {
            List<SampleOutcome> outcomes = failed(model, thrown);
            marks.end(mark);
            queue.completed(name, !model.sampler().idle());
            report.accept(new EngineSelfMessage.Sampled(outcomes, List.of()));
        }
    }

    /// Takes the results of a step; what its wait has thrown is thrown again.
    private Optional<EngineSelfMessage> sampled(ModelName name, LoadedModel model, LaunchedDecode launched,
            long began) {
        List<SampleOutcome> outcomes = new ArrayList<>();
        try {
            var ended = model.sampler().complete(launched);
            measured(name, "sample", worked(began));
            for (var failed : ended.failed())
                outcomes.add(new SampleOutcome.Failed(model.requests().remove(failed.id()), failed.why()));
            for (var done : ended.finished()) {
                PendingSample request = model.requests().remove(done.id());
                Metrics.PROMPTS.labelValues(name.slug()).inc(request.task().prompt().length);
                Metrics.SAMPLED.labelValues(name.slug()).inc(done.result().sequences().stream()
                        .mapToLong(sequence -> sequence.tokens().length).sum());
                outcomes.add(new SampleOutcome.Drawn(request, done.result()));
            }
            outcomes.addAll(cancelled(model));
        } catch (Throwable thrown) {
            outcomes.addAll(failed(model, thrown));
        }
        List<EngineSelfMessage.Progress> progress = progress(model);
        queue.completed(name, !model.sampler().idle());
        return outcomes.isEmpty() && progress.isEmpty() ? Optional.empty()
                : Optional.of(new EngineSelfMessage.Sampled(outcomes, progress));
    }

    /// Ends the requests that were cancelled.
    private static List<SampleOutcome> cancelled(LoadedModel model) {
        List<Long> ids = model.requests().entrySet().stream().filter(r -> r.getValue().cancelled().get())
                .map(Map.Entry::getKey).sorted().toList();
        if (ids.isEmpty()) return List.of();
        model.sampler().cancel(ids);
        return ids.stream().<SampleOutcome>map(id ->
                new SampleOutcome.Failed(model.requests().remove(id), SampleQueue.CANCELLED)).toList();
    }

    /// What the requests have drawn that are followed.
    private static List<EngineSelfMessage.Progress> progress(LoadedModel model) {
        List<EngineSelfMessage.Progress> progress = new ArrayList<>();
        model.requests().forEach((id, request) -> {
            if (!request.followed().get()) return;
            var drawn = model.sampler().drawnSinceReport(id);
            if (drawn.stream().anyMatch(sequence -> sequence.tokens().length > 0))
                progress.add(new EngineSelfMessage.Progress(request, drawn));
        });
        return progress;
    }

    /// A step has failed: so do the requests that took part in it.
    private static List<SampleOutcome> failed(LoadedModel model, Throwable thrown) {
        FaultClassifier.deviceLost(thrown).ifPresent(lost -> {
            throw lost;
        });
        List<Long> ids = model.sampler().cancelFailed();
        Fault fault = FaultClassifier.of(thrown, "sampling of " + ids.size() + " requests");
        return ids.stream().<SampleOutcome>map(id ->
                new SampleOutcome.Failed(model.requests().remove(id), fault)).toList();
    }

    /// Ends all streams and closes everything, the device last. Tokenizers stay: other threads may use them.
    @Override public void close() {
        buffers.close();
        arrivals.join(); // edge: results on their way are read before the device is closed
        for (ResidentRun run : List.copyOf(runs)) {
            run.beingWritten = false;
            close(run);
        }
        models.values().forEach(m -> m.sampler().close());
        models.values().forEach(m -> m.model().close());
        device.close();
    }
}
