package bios.protocol.stored;

/// Stored bytes cannot be read: they are damaged, or were written by a newer version.
public final class UnreadableRecord extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param message which type and version, and what to do
    public UnreadableRecord(String message, Throwable cause) {
        super(message, cause);
    }
}
