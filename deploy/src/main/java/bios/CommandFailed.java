package bios;

/// A command could not do its work: the message is for the person at the terminal.
public final class CommandFailed extends RuntimeException {
    private static final long serialVersionUID = 1;

    public CommandFailed(String message) {
        super(message);
    }
}
