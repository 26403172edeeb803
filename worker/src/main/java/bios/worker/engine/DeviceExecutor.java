package bios.worker.engine;

import bios.protocol.Fault;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Operation;
import bios.protocol.sampling.SampleResult;
import bios.worker.adapter.Adapter;
import bios.worker.adapter.StateSnapshot;
import bios.worker.adapter.StateSource;
import bios.worker.adapter.TrainingState;
import bios.worker.device.Device;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.cpu.HostMemory;
import bios.worker.load.ModelRefused;
import bios.worker.load.Tokenizer;
import bios.worker.model.BaseModel;
import bios.worker.sample.Sampler;
import bios.worker.train.Evaluation;
import bios.worker.train.Trainer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Supplier;
import org.slf4j.Logger;

/// A device with its models, runs and samplers: all that happens on the device's thread. A failure becomes the
/// [Fault] of the operation that met it, by [FaultClassifier]; only the loss of the device is thrown.
final class DeviceExecutor implements AutoCloseable {
    /// So many bytes of freed states are worth a walk through the C library's heaps.
    private static final long TRIM = 16 << 20;
    private static final long LEAST_RUN_BYTES = 64 << 20;
    /// Copies of states that are being written take at most this part of the room of runs, beside it.
    private static final int COPY_SHARE = 4;
    private final Device device;
    private final EngineSettings settings;
    private final DeviceQueue queue;
    private final StagingBuffers buffers;
    private final Map<ModelName, LoadedModel> models = new LinkedHashMap<>();
    private final Set<ResidentRun> runs = new HashSet<>();
    private final AtomicLong copyBytes = new AtomicLong();
    private long runBytes;
    private long freedBytes;

    private DeviceExecutor(Device device, EngineSettings settings, DeviceQueue queue,
            StagingBuffers buffers) {
        this.device = device;
        this.settings = settings;
        this.queue = queue;
        this.buffers = buffers;
    }

    /// Opens the device and loads all models; [ModelRefused] when one cannot be served.
    static DeviceExecutor load(Supplier<Device> device, Map<ModelName, Path> folders, EngineSettings settings,
            DeviceQueue queue, StagingBuffers buffers, Logger log) {
        var executor = new DeviceExecutor(device.get(), settings, queue, buffers);
        try {
            Set<String> slugs = new HashSet<>();
            for (var model : folders.entrySet()) {
                String slug = model.getKey().slug();
                if (!slugs.add(slug))
                    throw new ModelRefused(model.getValue().toString(), "its name " + model.getKey()
                            + " shares the slug " + slug + " with another model", "name it differently");
                executor.load(model.getKey(), model.getValue(), log);
            }
            executor.runBytes = executor.roomForRuns();
            log.info("memory limit={} in_use={} runs={} host_runs={} device=\"{}\"",
                    executor.device.memoryLimit(), executor.device.memoryInUse(), executor.runBytes(),
                    executor.hostRunBytes(), executor.device.description());
            return executor;
        } catch (OutOfDeviceMemory full) {
            executor.close();
            throw new ModelRefused(folders.values().toString(), FaultClassifier.of(full, "loading").message(),
                    "serve fewer or smaller models, or use a machine with more memory");
        } catch (Throwable thrown) {
            executor.close();
            throw thrown;
        }
    }

    private void load(ModelName name, Path folder, Logger log) {
        long began = System.nanoTime(); // edge: seconds for the log
        Optional<Tokenizer> tokenizer = Tokenizer.open(folder);
        BaseModel model = BaseModel.load(folder, name, device);
        model.keepActivations(settings.activationBytes(), settings.longSequenceBytes());
        Sampler sampler = new Sampler(model, tokenizer.map(t -> tokens -> t.decode(tokens, false)),
                settings.sampler());
        models.put(name, new LoadedModel(model, sampler, tokenizer));
        var info = model.info();
        double seconds = (System.nanoTime() - began) / 1_000_000 / 1e3; // edge: seconds for the log
        log.atInfo().addKeyValue("model", name).addKeyValue("folder", folder)
                .addKeyValue("architecture", info.architecture())
                .addKeyValue("parameters", info.parameters()).addKeyValue("dtype", info.dtype())
                .addKeyValue("bytes", info.parameters() * (info.dtype().equals("float32") ? 4 : 2))
                .addKeyValue("context", info.contextLength())
                .addKeyValue("tokenizer", tokenizer.isPresent()).addKeyValue("seconds", seconds)
                .addKeyValue("device", device.description()).log("loaded a model");
        if (sampler.capacity() < info.contextLength())
            log.atWarn().addKeyValue("model", name).log("only sequences of up to {} of its {} tokens can be"
                    + " sampled; raise bios.engine.sampler.cache-bytes", sampler.capacity(),
                    info.contextLength());
    }

    /// The models by name; [LoadedModel] says what of them other threads may use.
    Map<ModelName, LoadedModel> models() {
        return Map.copyOf(models);
    }

    // ---- turns ----

    /// Executes one turn.
    ///
    /// @return what the engine is told; empty: nothing has ended
    Optional<EngineSelfMessage> execute(DeviceQueue.Turn turn) {
        return switch (turn) {
            case DeviceQueue.Turn.Sample(var model, var added) -> sample(model, added);
            case DeviceQueue.Turn.Tasks(var operations) -> {
                List<EngineSelfMessage.Done> done = new ArrayList<>();
                operations.forEach((run, operation) -> done.add(execute(run, operation)));
                yield executed(done);
            }
            case DeviceQueue.Turn.Pass(var candidates) -> executed(pass(candidates));
        };
    }

    private static Optional<EngineSelfMessage> executed(List<EngineSelfMessage.Done> done) {
        return done.isEmpty() ? Optional.empty() : Optional.of(new EngineSelfMessage.Executed(done));
    }

    // ---- tasks ----

    private EngineSelfMessage.Done execute(ResidentRun run, QueuedOperation operation) {
        long began = System.nanoTime(); // edge: measures, decides nothing
        DeviceTask task = operation.task();
        TaskOutcome outcome;
        try {
            outcome = switch (task) {
                case DeviceTask.Optimize(var step) -> new TaskOutcome.Completed(
                        run.model.trainer().optimStep(run.state.orElseThrow(), step.params()));
                case DeviceTask.Copy(var purpose) -> copy(run, purpose.content());
                case DeviceTask.Evaluate _, DeviceTask.Open _, DeviceTask.Load _ ->
                        throw new IllegalStateException("not a task of one turn: " + task.words());
            };
        } catch (Throwable thrown) {
            outcome = new TaskOutcome.Failed(FaultClassifier.of(thrown, task.words()));
        }
        if (outcome instanceof TaskOutcome.Copied(_, var live)) queue.copying(run, live);
        queue.done(run, operation);
        long nanos = System.nanoTime() - began; // edge: measures, decides nothing
        return new EngineSelfMessage.Done(run, operation, outcome, nanos);
    }

    /// Copies the state on the device, or, where there is no room for the copy, lends the state itself.
    private TaskOutcome.Copied copy(ResidentRun run, StateSnapshot.Content content) {
        TrainingState state = run.state.orElseThrow();
        if (copyBytes.get() + state.snapshotBytes(content) <= runBytes / COPY_SHARE) try {
            StateSnapshot copy = state.snapshot(content);
            copyBytes.addAndGet(copy.deviceBytes());
            return new TaskOutcome.Copied(copy, false);
        } catch (OutOfDeviceMemory _) {
            // Written without a copy.
        }
        run.written = true;
        return new TaskOutcome.Copied(state.live(content), true);
    }

    /// Frees a copy that is written. Any thread.
    void free(StateSnapshot copy) {
        copyBytes.addAndGet(-copy.deviceBytes());
        copy.close();
    }

    /// The state of a run, lent for writing, is written.
    void written(ResidentRun run) {
        run.written = false;
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

    /// Gives a run its first state, or another one; frees the one before, or the new one where the run is closed.
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

    /// What steps without settings use in a run.
    AdamParams optimizerSettings(ResidentRun run) {
        return run.state.orElseThrow().settings();
    }

    /// Closes a run: frees its memory as soon as nothing reads it.
    void close(ResidentRun run) {
        run.closed = true;
        run.dropEvaluation();
        if (run.written) return;
        runs.remove(run);
        freedBytes += run.state.map(TrainingState::bytes).orElse(0L);
        run.close();
        if (freedBytes < TRIM) return;
        freedBytes = 0;
        device.trim();
    }

    // ---- passes ----

    /// A run that has an operation to evaluate.
    record Candidate(ResidentRun run, QueuedOperation operation, Operation.ForwardBackward evaluate) {}

    /// Puts the next micro-batches of several runs of one model through it, as many as fit, from the first on.
    private List<EngineSelfMessage.Done> pass(List<Candidate> candidates) {
        List<EngineSelfMessage.Done> done = new ArrayList<>();
        List<Candidate> ready = new ArrayList<>();
        for (Candidate next : candidates) {
            if (!begun(next, done)) continue;
            boolean together = ready.isEmpty() || !next.run.exclusive && !ready.getFirst().run.exclusive;
            if (together) ready.add(next);
        }
        List<Candidate> chosen = fitting(ready);
        if (!chosen.isEmpty()) pass(chosen, done);
        chosen.forEach(c -> queue.passed(c.run));
        return done;
    }

    private List<Candidate> fitting(List<Candidate> ready) {
        if (ready.isEmpty()) return ready;
        List<Evaluation> evaluations = ready.stream().map(c -> c.run.evaluation.orElseThrow()).toList();
        Trainer trainer = ready.getFirst().run.model.trainer();
        return ready.subList(0, trainer.fitting(evaluations, settings.trainPassTokens()).size());
    }

    private boolean begun(Candidate next, List<EngineSelfMessage.Done> done) {
        if (next.run.evaluation.isPresent()) return true;
        try {
            TrainingState state = next.run.state.orElseThrow();
            next.run.evaluation = Optional.of(next.run.model.trainer().begin(state, next.evaluate));
            return true;
        } catch (Throwable thrown) {
            done.add(ended(next, failed(next, thrown)));
            return false;
        }
    }

    private void pass(List<Candidate> chosen, List<EngineSelfMessage.Done> done) {
        long began = System.nanoTime(); // edge: measures, decides nothing
        try {
            List<Evaluation> evaluations = chosen.stream().map(c -> c.run.evaluation.orElseThrow()).toList();
            int tokens = evaluations.stream().mapToInt(Evaluation::nextTokens).sum();
            LoadedModel model = chosen.getFirst().run.model;
            model.trainer().pass(evaluations);
            passed(model.model().info().name(), "train", began);
            Metrics.TRAINED.labelValues(model.model().info().name().slug()).inc(tokens);
        } catch (Throwable thrown) {
            // All runs are as before these operations. With passes of their own each begins again, and only the
            // one at fault fails.
            TaskOutcome.Failed failed = failed(chosen.getFirst(), thrown);
            if (chosen.size() == 1) done.add(ended(chosen.getFirst(), failed));
            else chosen.forEach(c -> {
                c.run.dropEvaluation();
                c.run.exclusive = true;
            });
            return;
        }
        long nanos = System.nanoTime() - began; // edge: measures, decides nothing
        for (Candidate c : chosen) {
            c.run.evaluationNanos += nanos;
            Evaluation evaluation = c.run.evaluation.orElseThrow();
            if (evaluation.done()) done.add(ended(c, finish(c, evaluation)));
        }
    }

    private static TaskOutcome finish(Candidate c, Evaluation evaluation) {
        try {
            return new TaskOutcome.Completed(evaluation.finish());
        } catch (Throwable thrown) {
            return failed(c, thrown);
        }
    }

    /// The operation of a candidate has ended.
    private EngineSelfMessage.Done ended(Candidate c, TaskOutcome outcome) {
        var done = new EngineSelfMessage.Done(c.run, c.operation, outcome, c.run.evaluationNanos);
        c.run.dropEvaluation();
        c.run.exclusive = false;
        queue.done(c.run, c.operation);
        return done;
    }

    private static void passed(ModelName model, String kind, long began) {
        double seconds = (System.nanoTime() - began) / 1e9; // edge: measures, decides nothing
        Metrics.PASSES.labelValues(model.slug(), kind).inc();
        Metrics.PASS_SECONDS.labelValues(kind).observe(seconds);
    }

    private static TaskOutcome.Failed failed(Candidate c, Throwable thrown) {
        return new TaskOutcome.Failed(FaultClassifier.of(thrown, c.operation.task().words()));
    }

    // ---- memory ----

    /// Most bytes of the states of runs: what the settings say, else half of what the device has beside
    /// weights, activations, and what sampling may take.
    long runBytes() {
        return runBytes;
    }

    private long roomForRuns() {
        long beside = settings.adapterBytes()
                + models.size() * (settings.activationBytes() + settings.sampler().cacheBytes());
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
    record Ready(PendingSample request, Optional<Adapter> adapter) {}

    /// How a request ended.
    sealed interface SampleOutcome {
        PendingSample request();

        record Drawn(PendingSample request, SampleResult result) implements SampleOutcome {}

        record Failed(PendingSample request, Fault fault) implements SampleOutcome {}
    }

    /// Gives new requests to a model's sampler, and makes one step.
    private Optional<EngineSelfMessage> sample(ModelName name, List<Ready> added) {
        LoadedModel model = models.get(name);
        Sampler sampler = model.sampler();
        List<SampleOutcome> outcomes = new ArrayList<>();
        for (Ready ready : added)
            model.tickets().put(sampler.submit(ready.request.task(), ready.adapter), ready.request);
        try {
            long began = System.nanoTime(); // edge: measures, decides nothing
            var finished = sampler.step();
            passed(name, "sample", began);
            for (var done : finished) {
                PendingSample request = model.tickets().remove(done.ticket());
                Metrics.PROMPTS.labelValues(name.slug()).inc(request.task().prompt().length);
                Metrics.SAMPLED.labelValues(name.slug()).inc(done.result().sequences().stream()
                        .mapToLong(sequence -> sequence.tokens().length).sum());
                outcomes.add(new SampleOutcome.Drawn(request, done.result()));
            }
        } catch (Throwable thrown) {
            FaultClassifier.deviceLost(thrown).ifPresent(lost -> {
                throw lost;
            });
            List<Long> given = sampler.abandon();
            Fault fault = FaultClassifier.of(thrown, "sampling of " + given.size() + " requests");
            for (long ticket : given)
                outcomes.add(new SampleOutcome.Failed(model.tickets().remove(ticket), fault));
        }
        queue.stepped(name, !sampler.idle());
        return outcomes.isEmpty() ? Optional.empty() : Optional.of(new EngineSelfMessage.Sampled(outcomes));
    }

    /// Ends all streams and closes everything, the device last. Tokenizers stay: other threads may use them.
    @Override public void close() {
        buffers.close();
        for (ResidentRun run : List.copyOf(runs)) {
            run.written = false;
            close(run);
        }
        models.values().forEach(m -> m.sampler().close());
        models.values().forEach(m -> m.model().close());
        device.close();
    }
}
