package bios.worker.engine;

import bios.protocol.Fault;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationResult;
import bios.protocol.sampling.SampleResult;
import bios.worker.adapter.Adapter;
import bios.worker.adapter.TrainingState;
import bios.worker.device.Device;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.HostMemory;
import bios.worker.load.ModelRefused;
import bios.worker.load.Safetensors;
import bios.worker.load.Tokenizer;
import bios.worker.model.BaseModel;
import bios.worker.sample.Sampler;
import bios.worker.train.Evaluation;
import bios.worker.train.Trainer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Supplier;
import org.slf4j.Logger;

/// A device with its models, runs and samplers: all that happens on the device's thread. Every method does
/// its work at once and turns whatever goes wrong into a [Fault] of that work alone.
final class DeviceExecutor implements AutoCloseable {
    /// So many bytes of forgotten states are worth a walk through the C library's heaps.
    private static final long TRIM = 16 << 20;
    private static final long LEAST_RUN_BYTES = 64 << 20;
    private final Device device;
    private final EngineSettings settings;
    private final Map<ModelName, LoadedModel> models = new LinkedHashMap<>();
    private final Set<ResidentRun> runs = new HashSet<>();
    private long forgotten;

    private DeviceExecutor(Device device, EngineSettings settings) {
        this.device = device;
        this.settings = settings;
    }

    /// Opens the device and loads all models; [ModelRefused] when one cannot be served.
    static DeviceExecutor load(Supplier<Device> device, Map<ModelName, Path> folders, EngineSettings settings,
            Logger log) {
        var machine = new DeviceExecutor(device.get(), settings);
        try {
            Set<String> slugs = new HashSet<>();
            for (var model : folders.entrySet()) {
                String slug = model.getKey().slug();
                if (!slugs.add(slug))
                    throw new ModelRefused(model.getValue().toString(), "its name " + model.getKey()
                            + " shares the slug " + slug + " with another model", "name it differently");
                machine.load(model.getKey(), model.getValue(), log);
            }
            log.info("memory limit={} in_use={} runs={} host_runs={} device=\"{}\"",
                    machine.device.memoryLimit(), machine.device.memoryInUse(), machine.runBytes(),
                    machine.hostRunBytes(), machine.device.description());
            return machine;
        } catch (OutOfDeviceMemory full) {
            machine.close();
            throw new ModelRefused(folders.values().toString(), FaultClassifier.of(full, "loading").message(),
                    "serve fewer or smaller models, or use a machine with more memory");
        } catch (Throwable thrown) {
            machine.close();
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
            log.atWarn().addKeyValue("model", name).log("sequences of {} of its {} tokens only can be"
                    + " sampled; raise bios.engine.sampler.cache-bytes", sampler.capacity(),
                    info.contextLength());
    }

    /// The models by name; what of them other threads may use, [LoadedModel] says.
    Map<ModelName, LoadedModel> models() {
        return Map.copyOf(models);
    }

    // ---- training ----

    /// Does a deed that takes no pass.
    TaskOutcome carryOut(ResidentRun run, DeviceTask deed) {
        try {
            runs.add(run);
            return switch (deed) {
                case DeviceTask.Open(var lora, var point) -> {
                    run.state = Optional.of(state(run, lora, point));
                    yield new TaskOutcome.Opened();
                }
                case DeviceTask.Optimize(var operation) -> new TaskOutcome.Given(
                        run.served.trainer().optimStep(run.state.orElseThrow(), operation.params())
                                .complete());
                case DeviceTask.Copy _ -> new TaskOutcome.Copied(run.state.orElseThrow().snapshot());
                case DeviceTask.Load load -> new TaskOutcome.Given(load(run, load));
                case DeviceTask.Evaluate _ -> throw new IllegalStateException("an evaluation takes passes");
            };
        } catch (Throwable thrown) {
            return new TaskOutcome.Failed(FaultClassifier.of(thrown, deed.words()));
        }
    }

    private TrainingState state(ResidentRun run, LoraSpec lora, Optional<byte[]> point) {
        var spec = run.served.model().spec();
        if (point.isEmpty()) return TrainingState.fresh(lora, spec, device);
        try (Safetensors tensors = Safetensors.of("recovery point", point.get())) {
            return TrainingState.restore(tensors, spec, device);
        }
    }

    private OperationResult load(ResidentRun run, DeviceTask.Load load) {
        String path = load.operation().path().bios();
        TrainingState before = run.state.orElseThrow();
        try (Safetensors adapter = Safetensors.of(path, load.adapter())) {
            TrainingState state;
            if (load.optimizer().isEmpty()) state = load(run, load, adapter, Optional.empty());
            else try (Safetensors optimizer = Safetensors.of(path, load.optimizer().get())) {
                state = load(run, load, adapter, Optional.of(optimizer));
            }
            run.state = Optional.of(state);
            before.close();
            return new OperationResult.Loaded(path, state.steps());
        }
    }

    private TrainingState load(ResidentRun run, DeviceTask.Load load, Safetensors adapter,
            Optional<Safetensors> optimizer) {
        var manifest = load.manifest();
        var settings = optimizer.isPresent() ? manifest.settings() : run.state.orElseThrow().settings();
        return TrainingState.load(adapter, optimizer, manifest.step(), settings, manifest.lora(),
                run.served.model().spec(), device);
    }

    /// A run that has an operation to evaluate.
    record Candidate(ResidentRun run, Operation.ForwardBackward operation) {}

    /// What a pass did.
    ///
    /// @param served whose micro-batches went through, or failed
    /// @param finished the operations that are done
    record Passed(List<ResidentRun> served, Map<ResidentRun, TaskOutcome> finished) {}

    /// Puts the next micro-batches of several runs of one model through it, as many
    /// as fit, from the first on.
    Passed pass(List<Candidate> candidates) {
        Map<ResidentRun, TaskOutcome> finished = new HashMap<>();
        List<Candidate> ready = new ArrayList<>();
        for (Candidate next : candidates) {
            if (!begun(next, finished)) continue;
            boolean together = ready.isEmpty() || !next.run.alone && !ready.getFirst().run.alone;
            if (together) ready.add(next);
        }
        List<Candidate> chosen = fitting(ready);
        if (!chosen.isEmpty()) pass(chosen, finished);
        Set<ResidentRun> served = new HashSet<>(finished.keySet());
        chosen.forEach(c -> served.add(c.run));
        return new Passed(List.copyOf(served), finished);
    }

    private List<Candidate> fitting(List<Candidate> ready) {
        if (ready.isEmpty()) return ready;
        List<Evaluation> evaluations = ready.stream().map(c -> c.run.evaluation.orElseThrow()).toList();
        Trainer trainer = ready.getFirst().run.served.trainer();
        return ready.subList(0, trainer.fitting(evaluations, settings.trainPassTokens()).size());
    }

    private static boolean begun(Candidate next, Map<ResidentRun, TaskOutcome> finished) {
        if (next.run.evaluation.isPresent()) return true;
        try {
            TrainingState state = next.run.state.orElseThrow();
            next.run.evaluation = Optional.of(next.run.served.trainer().begin(state, next.operation));
            return true;
        } catch (Throwable thrown) {
            finished.put(next.run, failed(next, thrown));
            return false;
        }
    }

    private static void pass(List<Candidate> chosen, Map<ResidentRun, TaskOutcome> finished) {
        try {
            List<Evaluation> evaluations = chosen.stream().map(c -> c.run.evaluation.orElseThrow()).toList();
            int tokens = evaluations.stream().mapToInt(Evaluation::nextTokens).sum();
            LoadedModel served = chosen.getFirst().run.served;
            long began = System.nanoTime(); // edge: measures, decides nothing
            served.trainer().pass(evaluations);
            passed(served.model().info().name(), "train", began);
            Metrics.TRAINED.labelValues(served.model().info().name().slug()).inc(tokens);
        } catch (Throwable thrown) {
            // Everything was as before these operations; alone, each begins again, and
            // only the one at fault fails.
            chosen.forEach(c -> c.run.drop());
            if (chosen.size() == 1) {
                chosen.getFirst().run.alone = false;
                finished.put(chosen.getFirst().run, failed(chosen.getFirst(), thrown));
            } else chosen.forEach(c -> c.run.alone = true);
            return;
        }
        for (Candidate c : chosen) {
            Evaluation evaluation = c.run.evaluation.orElseThrow();
            if (!evaluation.done()) continue;
            try {
                finished.put(c.run, new TaskOutcome.Given(evaluation.finish()));
            } catch (Throwable thrown) {
                finished.put(c.run, failed(c, thrown));
            }
            c.run.drop();
            c.run.alone = false;
        }
    }

    private static void passed(ModelName model, String kind, long began) {
        double seconds = (System.nanoTime() - began) / 1e9; // edge: measures, decides nothing
        Metrics.PASSES.labelValues(model.slug(), kind).inc();
        Metrics.PASS_SECONDS.labelValues(kind).observe(seconds);
    }

    private static TaskOutcome failed(Candidate c, Throwable thrown) {
        return new TaskOutcome.Failed(FaultClassifier.of(thrown, new DeviceTask.Evaluate(c.operation).words()));
    }

    /// Frees a run's memory.
    void forget(ResidentRun run) {
        runs.remove(run);
        forgotten += run.state.map(TrainingState::bytes).orElse(0L);
        run.close();
        if (forgotten < TRIM) return;
        forgotten = 0;
        device.trim();
    }

    /// Most bytes of the states of runs: what the settings say, else half of what the device has beside
    /// weights, activations, and what sampling may take.
    long runBytes() {
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

    /// An adapter that is on the device, or why not.
    sealed interface Placed {
        record Here(Adapter adapter) implements Placed {}

        record Failed(Fault fault) implements Placed {}
    }

    /// Puts an adapter for sampling on the device.
    Placed place(AdapterCache.Key key, byte[] bytes) {
        try {
            var spec = models.get(key.model()).model().spec();
            return new Placed.Here(Adapter.fromSafetensors(bytes, key.lora(), spec, device));
        } catch (Throwable thrown) {
            String what = "adapter " + key.contentId() + " of " + bytes.length + " bytes";
            return new Placed.Failed(FaultClassifier.of(thrown, what));
        }
    }

    /// A request with its adapter on the device.
    record Ready(PendingSample asked, Optional<Adapter> adapter) {}

    /// How a request ended.
    sealed interface Answer {
        PendingSample asked();

        record Drawn(PendingSample asked, SampleResult result) implements Answer {}

        record Failed(PendingSample asked, Fault fault) implements Answer {}
    }

    /// What a step of a sampler did.
    ///
    /// @param idle whether it has nothing left to do
    record Sampled(List<Answer> answers, boolean idle) {}

    /// Takes new requests, and one step.
    Sampled sample(ModelName model, List<Ready> fresh) {
        LoadedModel served = models.get(model);
        List<Answer> answers = new ArrayList<>();
        for (Ready ready : fresh)
            served.tickets().put(served.sampler().submit(ready.asked.task(), ready.adapter), ready.asked);
        try {
            long began = System.nanoTime(); // edge: measures, decides nothing
            var finished = served.sampler().step();
            passed(model, "sample", began);
            for (var done : finished) {
                PendingSample asked = served.tickets().remove(done.id());
                Metrics.PROMPTS.labelValues(model.slug()).inc(asked.task().prompt().length);
                Metrics.SAMPLED.labelValues(model.slug()).inc(done.result().sequences().stream()
                        .mapToLong(sequence -> sequence.tokens().length).sum());
                answers.add(new Answer.Drawn(asked, done.result()));
            }
        } catch (Throwable thrown) {
            List<Long> given = served.sampler().cancelFailed();
            Fault fault = FaultClassifier.of(thrown, "sampling of " + given.size() + " requests");
            for (long ticket : given) answers.add(new Answer.Failed(served.tickets().remove(ticket), fault));
        }
        return new Sampled(answers, served.sampler().idle());
    }

    /// Closes everything, the device last. Tokenizers stay: other threads may be in them.
    @Override public void close() {
        List.copyOf(runs).forEach(this::forget);
        models.values().forEach(m -> m.sampler().close());
        models.values().forEach(m -> m.model().close());
        device.close();
    }
}
