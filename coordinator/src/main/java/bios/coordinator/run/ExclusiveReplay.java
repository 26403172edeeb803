package bios.coordinator.run;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;

/// The turn by which the runs of a node replay suspected operations, one at a time: an operation of another
/// run that was executed beside one that kills the worker would be blamed with it. Safe for any thread.
public final class ExclusiveReplay {
    private final Map<Object, Runnable> waiting = new LinkedHashMap<>();
    private Optional<Object> holder = Optional.empty();

    /// Gives `run` the turn, which it keeps until [#release], or lets it wait for it in the order of
    /// requests.
    ///
    /// @param granted called when `run` gets the turn, at once or later, by any thread; must not block
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

    /// Takes the turn, or the request, from `run`; the run that has waited longest gets the turn.
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

    /// Whether some run holds the turn.
    public synchronized boolean held() {
        return holder.isPresent();
    }
}
