package bios.coordinator.fleet;

import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import bios.protocol.model.UnservedModel;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import org.apache.pekko.actor.typed.ActorRef;

/// An immutable snapshot of the known base models and the engines that serve them. A model stays known after
/// its last engine is lost.
public final class EngineDirectory {
    /// No model and no engine is known.
    public static final EngineDirectory EMPTY = new EngineDirectory(new TreeMap<>(), Map.of(), List.of());

    private final TreeMap<String, ModelInfo> models;
    private final Map<ActorRef<EngineCommand>, Engine> engines;
    private final List<String> conflictMessages;

    /// The last description of an engine.
    ///
    /// @param queuedSequences sequences that wait or decode in the engine
    /// @param unserved models that it was given and does not serve
    public record Engine(ActorRef<EngineCommand> ref, Set<ModelName> models, int queuedSequences,
            List<UnservedModel> unserved) {}

    private EngineDirectory(TreeMap<String, ModelInfo> models, Map<ActorRef<EngineCommand>, Engine> engines,
            List<String> conflictMessages) {
        this.models = models;
        this.engines = engines;
        this.conflictMessages = conflictMessages;
    }

    /// The directory after a description of `engine`. The first model of a slug is kept, because run ids
    /// contain the slug only.
    public EngineDirectory withEngine(ActorRef<EngineCommand> engine, EngineReply.Description description) {
        var known = new TreeMap<>(models);
        var names = new HashSet<ModelName>();
        var conflicts = new ArrayList<String>();
        for (ModelInfo info : description.models()) {
            ModelInfo first = known.putIfAbsent(info.name().slug(), info);
            if (first == null || first.equals(info)) names.add(info.name());
            else if (first.name().equals(info.name()) && !servedByOthers(info.name(), engine)) {
                known.put(info.name().slug(), info);
                names.add(info.name());
            } else conflicts.add(info.name() + " of " + engine.path() + " differs from " + first.name()
                    + ", which is served already: " + info + " and " + first);
        }
        var next = new HashMap<>(engines);
        next.put(engine, new Engine(engine, Set.copyOf(names), description.queuedSequences(),
                description.unserved()));
        return new EngineDirectory(known, next, List.copyOf(conflicts));
    }

    private boolean servedByOthers(ModelName name, ActorRef<EngineCommand> engine) {
        return engines.values().stream().anyMatch(e -> !e.ref().equals(engine) && e.models().contains(name));
    }

    /// A directory with the engines in `present` only; their models stay known.
    public EngineDirectory withOnlyEngines(Collection<ActorRef<EngineCommand>> present) {
        var next = new HashMap<>(engines);
        next.keySet().retainAll(Set.copyOf(present));
        return next.size() == engines.size() ? this : new EngineDirectory(models, next, List.of());
    }

    /// The models that at least one engine serves now, sorted by name.
    public List<ModelInfo> servedModels() {
        return models.values().stream().filter(m -> !enginesOf(m.name()).isEmpty())
                .sorted(Comparator.comparing(m -> m.name().value())).toList();
    }

    /// The models that some engine was given and does not serve, and that no other serves, sorted by name.
    public List<UnservedModel> unservedModels() {
        Set<String> served = new HashSet<>();
        servedModels().forEach(model -> served.add(model.name().value()));
        return engines.values().stream().flatMap(engine -> engine.unserved().stream())
                .filter(model -> !served.contains(model.name())).distinct()
                .sorted(Comparator.comparing(UnservedModel::name).thenComparing(UnservedModel::folder))
                .toList();
    }

    /// The model of this name, if it was ever served.
    public Optional<ModelInfo> model(ModelName name) {
        return modelOfSlug(name.slug()).filter(m -> m.name().equals(name));
    }

    /// The model of this slug, if it was ever served.
    public Optional<ModelInfo> modelOfSlug(String slug) {
        return Optional.ofNullable(models.get(slug));
    }

    /// The engines that serve the model now, in a stable order.
    public List<Engine> enginesOf(ModelName name) {
        return engines.values().stream().filter(e -> e.models().contains(name))
                .sorted(Comparator.comparing(e -> e.ref().path().toString())).toList();
    }

    /// All engines.
    public Collection<Engine> engines() {
        return Collections.unmodifiableCollection(engines.values());
    }

    /// One message for each model that the last added engine describes differently from a known model; the
    /// directory ignores the description.
    List<String> conflictMessages() {
        return conflictMessages;
    }
}
