package bios.protocol.wire;

/// The classes of one module that may be sent, each with its id. Ids are never reused: the protocol module
/// has 20 to 999, coordinator 1000 to 1999, worker 2000 to 2999, deploy 3000 to 3999. Settings name the
/// implementations under `bios.wire.types`; each needs a public constructor without parameters.
public interface WireTypes {
    /// Registers all types of the module.
    void registerTo(Registry registry);

    /// Accepts registrations.
    @FunctionalInterface
    interface Registry {
        /// @param id the class's id, which never changes
        /// @param type a record or enum
        void add(int id, Class<?> type);
    }
}
