package bios.coordinator.health;

import bios.coordinator.fleet.EngineDirectory;
import bios.protocol.model.ModelInfo;
import java.util.Optional;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.cluster.MemberStatus;
import org.apache.pekko.cluster.typed.Cluster;

/// A readiness check of a node.
///
/// @param name name of the check, the label of the metric `bios_ready`
/// @param problem why the check fails; empty: it passes. Must not block
public record Check(String name, Supplier<Optional<String>> problem) {
    /// Passes if `holds`, and fails with `why` otherwise.
    public static Check that(String name, BooleanSupplier holds, String why) {
        return new Check(name, () -> holds.getAsBoolean() ? Optional.empty() : Optional.of(why));
    }

    /// Passes if this node is a member of the cluster.
    public static Check cluster(ActorSystem<?> system) {
        return new Check("cluster", () -> {
            MemberStatus status = Cluster.get(system).selfMember().status();
            boolean in = status.equals(MemberStatus.up()) || status.equals(MemberStatus.weaklyUp());
            return in ? Optional.empty() : Optional.of("this node is " + status.toString()
                    + " in the cluster; it serves when it is Up");
        });
    }

    /// Passes if an engine of the directory serves a base model.
    public static Check models(Supplier<EngineDirectory> directory) {
        return new Check("models", () -> directory.get().servedModels().isEmpty()
                ? Optional.of("no engine that holds a base model is known yet") : Optional.empty());
    }

    /// Passes if `expected` models are loaded.
    ///
    /// @param loaded the loaded models, such as `() -> directory.get().servedModels()`
    public static Check loaded(int expected, Supplier<? extends Iterable<ModelInfo>> loaded) {
        return new Check("models", () -> {
            int count = 0;
            for (var _ : loaded.get()) count++;
            return count >= expected ? Optional.empty()
                    : Optional.of(count + " of " + expected + " base models are loaded");
        });
    }

    /// Passes if the journal answers the periodic [JournalProbe].
    public static Check journal(ActorSystem<?> system) {
        return new Check("journal", JournalProbe.start(system));
    }
}
