package bios.coordinator.session;

import java.util.LinkedHashSet;

/// The order in which the samplers of a session were used. Not in the journal: after a restart those that
/// were not used since come first, by their numbers. Belongs to one actor.
final class SamplerUses {
    private final LinkedHashSet<Long> order = new LinkedHashSet<>();

    void use(long seq) {
        order.remove(seq);
        order.addLast(seq);
    }

    /// The sampler that was used longest ago; -1 if there is none.
    long longestAgo(Session session) {
        order.retainAll(session.samplers().keySet());
        if (order.size() < session.samplers().size())
            for (long seq : session.samplers().keySet()) if (!order.contains(seq)) return seq;
        return order.isEmpty() ? -1 : order.getFirst();
    }
}
