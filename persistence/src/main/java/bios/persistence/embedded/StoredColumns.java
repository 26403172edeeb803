package bios.persistence.embedded;

import java.sql.ResultSet;
import java.sql.SQLException;
import org.h2.api.ErrorCode;

/// Reads the columns of a row that the schema says are never null. In a damaged file they can be: the failure
/// is then that of any other damage ([EmbeddedDatabase#isDamage]).
public final class StoredColumns {
    private StoredColumns() {}

    /// A column of text.
    public static String text(ResultSet row, int column) throws SQLException {
        return present(row.getString(column), row, column);
    }

    /// A column of bytes.
    public static byte[] bytes(ResultSet row, int column) throws SQLException {
        return present(row.getBytes(column), row, column);
    }

    private static <T> T present(T value, ResultSet row, int column) throws SQLException {
        if (value != null) return value;
        throw new SQLException("a row has no " + row.getMetaData().getColumnName(column)
                + ", the file is damaged", "HY000", ErrorCode.FILE_CORRUPTED_1);
    }
}
