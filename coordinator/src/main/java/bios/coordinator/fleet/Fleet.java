package bios.coordinator.fleet;

import bios.protocol.engine.EngineCommand;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
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

/// Which base models are known and which engines hold them now. A model stays known when its last engine
/// goes. Immutable and pure.
public final class Fleet {
    /// Nothing is known yet.
    public static final Fleet EMPTY = new Fleet(new TreeMap<>(), Map.of(), List.of());

    private final TreeMap<String, ModelInfo> models;
    private final Map<ActorRef<EngineCommand>, Engine> engines;
    private final List<String> conflicts;

    /// What an engine said of itself.
    ///
    /// @param queuedSequences sequences waiting or decoding there
    public record Engine(ActorRef<EngineCommand> ref, Set<ModelName> models, int queuedSequences) {}

    private Fleet(TreeMap<String, ModelInfo> models, Map<ActorRef<EngineCommand>, Engine> engines,
            List<String> conflicts) {
        this.models = models;
        this.engines = engines;
        this.conflicts = conflicts;
    }

    /// The fleet after `engine` described itself. The first model of a slug keeps it:
    /// run ids hold the slug only.
    public Fleet described(ActorRef<EngineCommand> engine, List<ModelInfo> held, int queuedSequences) {
        var known = new TreeMap<>(models);
        var names = new HashSet<ModelName>();
        var refused = new ArrayList<String>();
        for (ModelInfo info : held) {
            ModelInfo first = known.putIfAbsent(info.name().slug(), info);
            if (first == null || first.equals(info)) names.add(info.name());
            else if (first.name().equals(info.name()) && !servedByOthers(info.name(), engine)) {
                known.put(info.name().slug(), info);
                names.add(info.name());
            } else refused.add(info.name() + " of " + engine.path() + " differs from " + first.name()
                    + ", which is served already");
        }
        var next = new HashMap<>(engines);
        next.put(engine, new Engine(engine, Set.copyOf(names), queuedSequences));
        return new Fleet(known, next, List.copyOf(refused));
    }

    private boolean servedByOthers(ModelName name, ActorRef<EngineCommand> engine) {
        return engines.values().stream().anyMatch(e -> !e.ref().equals(engine) && e.models().contains(name));
    }

    /// The fleet without the engines that are not among `present`.
    public Fleet retain(Collection<ActorRef<EngineCommand>> present) {
        var next = new HashMap<>(engines);
        next.keySet().retainAll(Set.copyOf(present));
        return next.size() == engines.size() ? this : new Fleet(models, next, List.of());
    }

    /// The models that some engine holds now, by name.
    public List<ModelInfo> served() {
        return models.values().stream().filter(m -> !enginesOf(m.name()).isEmpty())
                .sorted(Comparator.comparing(m -> m.name().value())).toList();
    }

    /// The model of this name, if it was ever served.
    public Optional<ModelInfo> model(ModelName name) {
        return modelOfSlug(name.slug()).filter(m -> m.name().equals(name));
    }

    /// The model that run ids with this slug mean, if it was ever served.
    public Optional<ModelInfo> modelOfSlug(String slug) {
        return Optional.ofNullable(models.get(slug));
    }

    /// The engines that hold the model now, always in the same order.
    public List<Engine> enginesOf(ModelName name) {
        return engines.values().stream().filter(e -> e.models().contains(name))
                .sorted(Comparator.comparing(e -> e.ref().path().toString())).toList();
    }

    /// All engines.
    public Collection<Engine> engines() {
        return Collections.unmodifiableCollection(engines.values());
    }

    /// What the last description brought that contradicts the models known.
    List<String> conflicts() {
        return conflicts;
    }
}
