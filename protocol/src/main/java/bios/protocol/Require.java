package bios.protocol;

/// Checks invariants, always: a violated invariant is a bug of Bios, never a user's mistake.
public final class Require {
    private Require() {}

    /// Throws [IllegalStateException] with `message` unless `condition` holds.
    public static void require(boolean condition, String message, Object... arguments) {
        if (!condition) throw new IllegalStateException(message.formatted(arguments));
    }
}
