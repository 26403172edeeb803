package bios.worker.engine;

/// Whose turn on the device it is: sampling, short deeds of runs, training passes, in this order round and
/// round; a kind that has nothing to do is passed over. So sampling and training each get every other pass
/// when both are busy.
final class Turns {
    enum Kind { SAMPLE, DEED, PASS }

    private Kind last = Kind.PASS;

    /// The next kind for which `ready` holds, or nothing.
    java.util.Optional<Kind> next(java.util.function.Predicate<Kind> ready) {
        Kind[] kinds = Kind.values();
        for (int i = 1; i <= kinds.length; i++) {
            Kind kind = kinds[(last.ordinal() + i) % kinds.length];
            if (!ready.test(kind)) continue;
            last = kind;
            return java.util.Optional.of(kind);
        }
        return java.util.Optional.empty();
    }
}
