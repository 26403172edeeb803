package bios.worker.engine;

import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelName;
import bios.protocol.model.UnservedModel;
import bios.protocol.run.RunConfig;
import bios.protocol.sampling.SampleTask;
import bios.worker.load.Fingerprint;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// The base models that an engine serves now, and those that it was given and does not serve. Only the
/// engine's actor uses it.
final class ServedModels {
    private Map<ModelName, LoadedModel> models;
    private List<UnservedModel> unserved;

    ServedModels(ModelCatalog.Snapshot now) {
        replace(now);
    }

    /// The model, if it is in service.
    Optional<LoadedModel> get(ModelName name) {
        return Optional.ofNullable(models.get(name));
    }

    Set<ModelName> names() {
        return Set.copyOf(models.keySet());
    }

    /// Takes the catalog's new state.
    void replace(ModelCatalog.Snapshot now) {
        models = new LinkedHashMap<>(now.models());
        unserved = new ArrayList<>(now.unserved());
        measure();
    }

    /// A model leaves service before the catalog has noticed why.
    void withdraw(ModelName name, String reason) {
        LoadedModel model = models.remove(name);
        if (model != null)
            unserved.add(new UnservedModel(name.value(), model.model().files().where(), reason));
        measure();
    }

    private void measure() {
        Metrics.MODELS.labelValues("served").set(models.size());
        Metrics.MODELS.labelValues("unserved").set(unserved.size());
    }

    EngineReply.Description description(int sequences, int runs) {
        return new EngineReply.Description(models.values().stream().map(m -> m.model().info()).toList(),
                sequences, runs, List.copyOf(unserved));
    }

    /// Why a run cannot be opened here: its base model is not served, or is not the one that it was created
    /// on. Another worker may have it, and this one later.
    Optional<Fault> refusal(RunConfig run) {
        LoadedModel model = models.get(run.baseModel());
        if (model == null) return Optional.of(Fault.server(EngineCommand.BASE_MODEL_CHANGED,
                missing(run.baseModel()).message()));
        return run.fingerprint().flatMap(recorded -> difference(model, recorded))
                .map(what -> Fault.server(EngineCommand.BASE_MODEL_CHANGED, "run " + run.run()
                        + " was created on other weights of " + run.baseModel() + " than this worker has: "
                        + what + "; the run waits until the worker is started with the original files"));
    }

    /// Why a request cannot be sampled here.
    Optional<Fault> refusal(SampleTask task) {
        LoadedModel model = models.get(task.baseModel());
        if (model == null) return Optional.of(missing(task.baseModel()));
        Optional<Fault> other = task.adapter().flatMap(SampleTask.Adapter::baseFingerprint)
                .flatMap(recorded -> difference(model, recorded))
                .map(what -> Fault.user("base_model_mismatch", "the sampler's weights were trained on other"
                        + " weights of " + task.baseModel() + " than are served: " + what
                        + "; serve the original files, or train again"));
        return other.isPresent() ? other : model.sampler().refusal(task);
    }

    private static Optional<String> difference(LoadedModel model, String recorded) {
        String own = model.model().info().fingerprint().orElse("");
        return Fingerprint.difference(own, recorded)
                .map(what -> what + " (fingerprint " + recorded + ", here " + own + ")");
    }

    /// The fault of whatever needs a model that is not in service.
    Fault missing(ModelName name) {
        Optional<String> reason = unserved.stream().filter(m -> m.name().equals(name.value()))
                .map(UnservedModel::reason).findFirst();
        return reason.map(why -> Fault.server(EngineCommand.BASE_MODEL_CHANGED,
                        "this worker does not serve " + name + " at the moment: " + why))
                .orElseGet(() -> Fault.user("unknown_model",
                        "this worker does not hold " + name + "; it holds " + models.keySet()));
    }
}
