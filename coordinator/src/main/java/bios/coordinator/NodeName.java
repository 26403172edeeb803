package bios.coordinator;

import org.apache.pekko.actor.typed.ActorSystem;

/// The name of this node in logs, histories and metrics.
public final class NodeName {
    private NodeName() {}

    /// `bios.node.name` of the configuration; by default the cluster address, `host:port`.
    public static String of(ActorSystem<?> system) {
        String path = "bios.node.name";
        var config = system.settings().config();
        String given = config.hasPath(path) ? config.getString(path) : "";
        if (!given.isEmpty()) return given;
        var address = system.address();
        return address.getHost().isPresent()
                ? address.getHost().get() + ":" + address.getPort().get() : system.name();
    }
}
