package bios.worker.engine;

import java.util.Optional;
import java.util.function.Predicate;

/// Which kind of work has the next turn on the device: sampling, short tasks of runs, training passes, in
/// this order round robin; a kind that has nothing ready is skipped. So sampling and training each get every
/// other pass when both are busy.
final class TurnOrder {
    enum Kind { SAMPLE, TASKS, PASS }

    private Kind last = Kind.PASS;

    /// Advances to the next kind for which `ready` holds; empty if there is none.
    Optional<Kind> next(Predicate<Kind> ready) {
        Kind[] kinds = Kind.values();
        for (int i = 1; i <= kinds.length; i++) {
            Kind kind = kinds[(last.ordinal() + i) % kinds.length];
            if (!ready.test(kind)) continue;
            last = kind;
            return Optional.of(kind);
        }
        return Optional.empty();
    }
}
