package bios.node;

/// The role of a process in a cluster.
public enum Role {
    /// Serves HTTP and hosts sessions and sampling requests.
    COORDINATOR,
    /// Hosts an engine with base models, and the runs of these models.
    WORKER;

    /// The name of the cluster role.
    public String clusterRole() {
        return name().toLowerCase();
    }
}
