package bios.protocol.stored;

/// Stored bytes that this program cannot read: damaged, or written by a newer one.
public final class UnreadableRecord extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param message which type and version, and what to do
    public UnreadableRecord(String message, Throwable cause) {
        super(message, cause);
    }
}
