package bios.persistence.journal;

import java.nio.file.Path;

/// Another process has the embedded journal open.
public final class JournalInUse extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param folder the data folder
    public JournalInUse(Path folder, Throwable cause) {
        super("the journal in " + folder
                + " is in use by another process; stop that one or choose another data folder", cause);
    }
}
