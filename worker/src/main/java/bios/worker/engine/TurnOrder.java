package bios.worker.engine;

import java.util.Optional;
import java.util.function.Predicate;

/// Whose turn on the device it is: sampling, short deeds of runs, training passes, in this order round
/// and round; a kind that has nothing to do is passed over. So sampling and training each get every other
/// pass when both are busy.
final class TurnOrder {
    enum Kind { SAMPLE, DEED, PASS }

    private Kind last = Kind.PASS;

    /// The next kind for which `ready` holds, or nothing.
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
