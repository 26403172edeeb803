package bios.node;

import java.util.List;

/// How a process becomes part of a cluster.
///
/// @param host the address at which the others reach it
/// @param port its port for the others, TCP
/// @param seeds `host:port` of nodes that may be there already, the same list everywhere; the first one
///     begins a new cluster when none of the others answers
public record Membership(String host, int port, List<String> seeds) {
    /// Keeps a copy of the list.
    public Membership {
        seeds = List.copyOf(seeds);
    }
}
