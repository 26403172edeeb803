package bios;

/// A command failed; the message is shown to the user.
public final class CommandFailed extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final int status;

    /// A failure with the exit status 1.
    public CommandFailed(String message) {
        this(message, 1);
    }

    /// @param status exit status of the program
    public CommandFailed(String message, int status) {
        super(message);
        this.status = status;
    }

    /// Exit status of the program.
    public int status() {
        return status;
    }
}
