package bios.coordinator.session;

/// Reads the stored events of sessions, for checks of a journal that no process serves.
public final class SessionInspection {
    private static final SessionSerializer STORED = new SessionSerializer();

    private SessionInspection() {}

    /// Throws a [RuntimeException] if an event or a snapshot cannot be read.
    public static void read(String manifest, byte[] bytes) {
        STORED.fromBinary(bytes, manifest);
    }
}
