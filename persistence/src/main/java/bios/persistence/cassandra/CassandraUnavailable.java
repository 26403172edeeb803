package bios.persistence.cassandra;

/// No Cassandra could be reached.
public final class CassandraUnavailable extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param cause null: no node answered in time
    CassandraUnavailable(CassandraSettings settings, Throwable cause) {
        super(settings + " cannot be used: " + (cause == null
                ? "no answer within " + settings.connectWithin().toSeconds() + " s" : cause.getMessage())
                + "; start it, or correct " + CassandraSettings.PATH
                        + ".contact-points, local-datacenter, user"
                + " or password", cause);
    }
}
