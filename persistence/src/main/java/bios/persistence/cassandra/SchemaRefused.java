package bios.persistence.cassandra;

/// The tables in Cassandra are not those that this program knows.
public final class SchemaRefused extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param message what is there and which command helps
    SchemaRefused(String message) {
        super(message);
    }
}
