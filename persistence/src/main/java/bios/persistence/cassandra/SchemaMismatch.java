package bios.persistence.cassandra;

/// The tables in Cassandra have another version than this program needs.
public final class SchemaMismatch extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param message which version was found and which command helps
    SchemaMismatch(String message) {
        super(message);
    }
}
