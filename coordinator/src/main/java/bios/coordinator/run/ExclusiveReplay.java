package bios.coordinator.run;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;

/// The turn with which the runs of a node replay suspected operations one at a time, across runs: an
/// operation of another run that is executed at the same time as one that ends the worker would be blamed
/// too. Thread-safe.
public final class ExclusiveReplay {
    private final Map<Object, Runnable> waiting = new LinkedHashMap<>();
    private Optional<Object> holder = Optional.empty();

    /// Gives `run` the turn, which it keeps until [#release], or adds it to the queue.
    ///
    /// @param granted called when `run` gets the turn, immediately or later, on any thread; must not block
    public void request(Object run, Runnable granted) {
        synchronized (this) {
            if (holder.isPresent()) {
                if (!holder.get().equals(run)) waiting.putIfAbsent(run, granted);
                return;
            }
            holder = Optional.of(run);
        }
        granted.run();
    }

    /// Ends the turn or the request of `run`; the first run in the queue gets the turn.
    public void release(Object run) {
        Runnable granted;
        synchronized (this) {
            waiting.remove(run);
            if (holder.filter(run::equals).isEmpty()) return;
            var first = waiting.entrySet().stream().findFirst();
            holder = first.map(Map.Entry::getKey);
            first.ifPresent(next -> waiting.remove(next.getKey()));
            granted = first.map(Map.Entry::getValue).orElse(() -> {});
        }
        granted.run();
    }

    /// Whether a run has the turn.
    public synchronized boolean held() {
        return holder.isPresent();
    }
}
