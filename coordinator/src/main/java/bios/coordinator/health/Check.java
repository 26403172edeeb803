package bios.coordinator.health;

import bios.coordinator.fleet.Fleet;
import bios.protocol.model.ModelInfo;
import java.util.Optional;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.cluster.MemberStatus;
import org.apache.pekko.cluster.typed.Cluster;

/// Something without which a node cannot serve.
///
/// @param name a word for it, the label of the metric `bios_ready`
/// @param problem why it does not hold; empty: it does. Must not block
public record Check(String name, Supplier<Optional<String>> problem) {
    /// That `holds`, or else `why`.
    public static Check that(String name, BooleanSupplier holds, String why) {
        return new Check(name, () -> holds.getAsBoolean() ? Optional.empty() : Optional.of(why));
    }

    /// That this node is a member of the cluster.
    public static Check cluster(ActorSystem<?> system) {
        return new Check("cluster", () -> {
            MemberStatus status = Cluster.get(system).selfMember().status();
            boolean in = status.equals(MemberStatus.up()) || status.equals(MemberStatus.weaklyUp());
            return in ? Optional.empty() : Optional.of("this node is " + status.toString()
                    + " in the cluster; it serves when it is Up");
        });
    }

    /// That some engine serves a base model, as far as `fleet` knows.
    public static Check models(Supplier<Fleet> fleet) {
        return new Check("models", () -> fleet.get().served().isEmpty()
                ? Optional.of("no engine that holds a base model is known yet") : Optional.empty());
    }

    /// That the engines of this system have loaded all of `expected` models.
    ///
    /// @param loaded what they hold, such as `() -> fleet.get().served()`
    public static Check loaded(int expected, Supplier<? extends Iterable<ModelInfo>> loaded) {
        return new Check("models", () -> {
            int count = 0;
            for (var _ : loaded.get()) count++;
            return count >= expected ? Optional.empty()
                    : Optional.of(count + " of " + expected + " base models are loaded");
        });
    }

    /// That the journal answers: a [JournalProbe] asks it again and again.
    public static Check journal(ActorSystem<?> system) {
        return new Check("journal", JournalProbe.start(system));
    }
}
