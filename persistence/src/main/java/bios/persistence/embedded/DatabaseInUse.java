package bios.persistence.embedded;

import java.nio.file.Path;

/// The embedded database is in use by another process.
public final class DatabaseInUse extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param folder the data folder
    public DatabaseInUse(Path folder, Throwable cause) {
        super("the journal in " + folder
                + " is in use by another process; stop that one or choose another data folder", cause);
    }
}
