package bios.persistence.journal;

import bios.persistence.cassandra.CassandraUnavailable;
import bios.protocol.stored.UnreadableRecord;
import com.datastax.oss.driver.api.core.DriverException;
import java.io.NotSerializableException;
import java.sql.SQLException;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.concurrent.TimeoutException;

/// Stored events or a snapshot of an entity are missing or are not what was written. Repeating the read does
/// not help, unless somebody repairs the store.
public final class JournalDamaged extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param what the damage, with the entity's persistence id
    public JournalDamaged(String what) {
        super(what);
    }

    /// @param what the damage, with the entity's persistence id
    JournalDamaged(String what, Throwable cause) {
        super(what, cause);
    }

    /// Whether a recovery failed because of what is stored, and not because the store did not answer.
    public static boolean isCause(Throwable failure) {
        if (has(failure, List.of(JournalDamaged.class, UnreadableRecord.class))) return true;
        // What events do not allow (thrown by the entity), or what a serializer cannot read.
        return !has(failure, List.of(SQLException.class, DriverException.class, CassandraUnavailable.class,
                TimeoutException.class)) && has(failure, List.of(IllegalStateException.class,
                        IllegalArgumentException.class, IndexOutOfBoundsException.class,
                        NoSuchElementException.class, ClassCastException.class,
                        NotSerializableException.class));
    }

    private static boolean has(Throwable failure, List<Class<?>> types) {
        for (Throwable cause = failure; cause != null; cause = cause.getCause())
            for (Class<?> type : types) if (type.isInstance(cause)) return true;
        return false;
    }
}
