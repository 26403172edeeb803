package bios.coordinator;

import org.apache.pekko.actor.typed.ActorSystem;

/// What a process is called in logs, histories and metrics.
public final class NodeName {
    private NodeName() {}

    /// `bios.node.name` of the system's configuration, or else its address in the cluster, `host:port`.
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
