package bios.protocol;

/// Preconditions that are always on: a broken one is a bug of ours, never a user's mistake.
public final class Require {
    private Require() {}

    /// Throws [IllegalStateException] with `message` unless `condition` holds.
    public static void require(boolean condition, String message, Object... arguments) {
        if (!condition) throw new IllegalStateException(message.formatted(arguments));
    }
}
