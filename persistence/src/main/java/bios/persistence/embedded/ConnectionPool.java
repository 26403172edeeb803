package bios.persistence.embedded;

import java.sql.Connection;
import java.sql.SQLException;
import org.h2.jdbcx.JdbcConnectionPool;

/// A small pool of connections to the embedded database. More connections do not make one file faster.
public final class ConnectionPool implements AutoCloseable {
    private static final int CONNECTIONS = 4;
    /// How long a transaction waits for a connection. Connections are busy while writes wait for disk space.
    private static final int WAIT_SECONDS = 600;
    private final JdbcConnectionPool pool;

    private ConnectionPool(JdbcConnectionPool pool) {
        this.pool = pool;
    }

    /// A pool of connections to the database at `url`; they are opened when they are needed.
    public static ConnectionPool to(String url) {
        JdbcConnectionPool pool = JdbcConnectionPool.create(url, EmbeddedDatabase.USER, "");
        pool.setMaxConnections(CONNECTIONS);
        pool.setLoginTimeout(WAIT_SECONDS);
        return new ConnectionPool(pool);
    }

    /// Statements of one transaction.
    @FunctionalInterface
    public interface Transaction<T> {
        /// Executes the statements.
        T execute(Connection connection) throws SQLException;
    }

    /// Executes a transaction and commits it; rolls it back if it throws. Blocks.
    public <T> T transact(Transaction<T> transaction) throws SQLException {
        try (Connection connection = pool.getConnection()) {
            connection.setAutoCommit(false);
            try {
                T result = transaction.execute(connection);
                connection.commit();
                return result;
            } catch (SQLException | RuntimeException failed) {
                connection.rollback();
                throw failed;
            } finally {
                connection.setAutoCommit(true);
            }
        }
    }

    @Override public void close() {
        pool.dispose();
    }
}
