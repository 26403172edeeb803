package bios.persistence.sampling;

import java.util.Optional;

/// Sampling requests that were accepted and not yet answered, so that another coordinator can finish those of
/// one that died. All methods block and are safe to call from many threads: call them from virtual threads.
public interface SamplingTasks {
    /// An accepted request.
    ///
    /// @param body the request as its coordinator wrote it
    /// @param storedMillis when it was put, epoch milliseconds
    record Task(String id, String owner, byte[] body, long storedMillis) {}

    /// Stores a task in place of one with the same id; when it returns the task is durable.
    ///
    /// @param id a name that no other task has
    /// @param owner the account
    void put(String id, String owner, byte[] body);

    /// The task `id`, if it is there.
    Optional<Task> find(String id);

    /// Forgets a task; harmless if there is none.
    void remove(String id);

    /// Forgets all tasks that were put more than so many milliseconds ago.
    ///
    /// @return how many, as far as the store knows: one that forgets by itself says 0
    int sweep(long olderThanMillis);
}
