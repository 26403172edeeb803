package bios.coordinator.sampling;

import java.util.Comparator;
import java.util.List;
import java.util.Optional;

/// The engine of a sampling request, or none yet. Pure.
sealed interface Route<E> {
    /// Send to this engine.
    record To<E>(E engine) implements Route<E> {}

    /// Wait: no engine serves the model, or all have reached their limit.
    record Wait<E>() implements Route<E> {}

    /// An engine that could take the request.
    ///
    /// @param load sequences assigned to it or reported by it
    /// @param holdsAdapter whether it has used the adapter recently
    record Candidate<E>(E engine, int load, boolean holdsAdapter) {}

    /// Chooses the least loaded engine that holds the adapter, or the least loaded engine of all if that one
    /// has at least `slack` sequences less. The first of equals is chosen. Engines with a load of `window` or
    /// more are skipped.
    static <E> Route<E> choose(List<Candidate<E>> candidates, int window, int slack) {
        Optional<Candidate<E>> least = least(candidates.stream().filter(c -> c.load() < window).toList());
        Optional<Candidate<E>> holder = least(candidates.stream().filter(c -> c.load() < window
                && c.holdsAdapter()).toList());
        if (least.isEmpty()) return new Wait<>();
        return holder.isPresent() && holder.get().load() - least.get().load() < slack
                ? new To<>(holder.get().engine()) : new To<>(least.get().engine());
    }

    private static <E> Optional<Candidate<E>> least(List<Candidate<E>> candidates) {
        return candidates.stream().min(Comparator.comparingInt(Candidate::load));
    }
}
