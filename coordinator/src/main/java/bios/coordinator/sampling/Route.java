package bios.coordinator.sampling;

import java.util.Comparator;
import java.util.List;
import java.util.Optional;

/// Where a sampling request goes. Pure.
sealed interface Route<E> {
    /// To this engine, now.
    record To<E>(E engine) implements Route<E> {}

    /// Nowhere yet: no engine holds the model, or all have as much as they may be given.
    record Wait<E>() implements Route<E> {}

    /// An engine that could take the request.
    ///
    /// @param load sequences that it has or was sent
    /// @param holdsAdapter whether it was sent the adapter before
    record Candidate<E>(E engine, int load, boolean holdsAdapter) {}

    /// The least loaded engine that holds the adapter, unless another has at least `slack` sequences less:
    /// then the least loaded of all. Among equals the first. None with a load of `window` or more.
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
