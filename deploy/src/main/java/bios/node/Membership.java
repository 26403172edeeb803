package bios.node;

import java.util.List;

/// How a process joins a cluster.
///
/// @param host address of this process for the other nodes
/// @param port TCP port of this process for the other nodes
/// @param seeds `host:port` of the seed nodes, the same list on all nodes; the first one forms a new cluster
/// if no other seed node answers
public record Membership(String host, int port, List<String> seeds) {
    /// Copies the list.
    public Membership {
        seeds = List.copyOf(seeds);
    }
}
