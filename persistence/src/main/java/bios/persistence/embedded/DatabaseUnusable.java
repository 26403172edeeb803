package bios.persistence.embedded;

import java.nio.file.Path;
import java.sql.SQLException;

/// The embedded database cannot be opened for changes: its file is damaged, or cannot be written.
public final class DatabaseUnusable extends IllegalStateException {
    private static final long serialVersionUID = 1;

    DatabaseUnusable(Path folder, SQLException failed) {
        super("the journal in " + folder + " cannot be opened for changes: " + failed.getMessage(), failed);
    }
}
