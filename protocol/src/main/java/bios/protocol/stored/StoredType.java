package bios.protocol.stored;

import com.fasterxml.jackson.databind.node.ObjectNode;

/// A stored type: its name in manifests, which never changes, its version, and the migration from older
/// versions.
///
/// @param name e.g. `run-operation-accepted`
/// @param version from 1; raised when a field is renamed, removed, given another meaning, or added without a
///     default
/// @param type the record
/// @param migration upgrades the tree of an older version to `version`
public record StoredType<T>(String name, int version, Class<T> type, Migration migration) {
    /// Rewrites the tree of an older version.
    @FunctionalInterface
    public interface Migration {
        /// @param from the version of `old`, below the current one
        ObjectNode upgrade(int from, ObjectNode old);
    }

    /// A type that has only version 1.
    public static <T> StoredType<T> first(String name, Class<T> type) {
        return new StoredType<>(name, 1, type, (from, old) -> {
            throw new IllegalArgumentException(name + " has no version " + from);
        });
    }

    /// What the journal stores with the bytes: `<name>/<version>`.
    public String manifest() {
        return name + "/" + version;
    }
}
