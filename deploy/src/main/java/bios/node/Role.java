package bios.node;

/// What a process does in a cluster.
public enum Role {
    /// Serves HTTP, holds sessions and sampling requests.
    COORDINATOR,
    /// Holds base models on a device, and the runs of these models.
    WORKER;

    /// The name of the cluster role.
    public String word() {
        return name().toLowerCase();
    }
}
