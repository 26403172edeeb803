package bios.coordinator.run;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;

/// After a failure operations are tried alone, to find one that kills its worker. On a node that is one at
/// a time, whichever run's it is: an operation of another run that was tried beside it would be blamed with
/// it. Safe for any thread.
public final class Solo {
    private final Map<Object, Runnable> waiting = new LinkedHashMap<>();
    private Optional<Object> turn = Optional.empty();

    /// Whether it is the turn of `who`, who then keeps it until [#leave].
    ///
    /// @param yourTurn called when it comes to be, by any thread; must not wait
    public synchronized boolean take(Object who, Runnable yourTurn) {
        if (turn.isEmpty()) turn = Optional.of(who);
        if (turn.get().equals(who)) return true;
        waiting.putIfAbsent(who, yourTurn);
        return false;
    }

    /// `who` has tried, or will not: the turn goes to who waits longest.
    public void leave(Object who) {
        Runnable next;
        synchronized (this) {
            waiting.remove(who);
            if (turn.filter(who::equals).isEmpty()) return;
            var first = waiting.entrySet().stream().findFirst();
            turn = first.map(Map.Entry::getKey);
            first.ifPresent(entry -> waiting.remove(entry.getKey()));
            next = first.map(Map.Entry::getValue).orElse(() -> {});
        }
        next.run();
    }
}
