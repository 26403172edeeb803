package bios.persistence.sampling;

import java.util.Optional;

/// Stores sampling requests that were accepted and have no result yet, so that another coordinator can finish
/// the requests of one that died. All methods block and are thread-safe: call them from virtual threads.
public interface SamplingTaskStore {
    /// An accepted request.
    ///
    /// @param body the request, encoded by its coordinator
    /// @param storedMillis when it was stored, epoch milliseconds
    record Task(String id, String owner, byte[] body, long storedMillis) {}

    /// Stores a task, replaces one with the same id; the task is durable when the method returns.
    ///
    /// @param id unique among tasks
    /// @param owner the account
    void put(String id, String owner, byte[] body);

    /// The task `id`, if it is stored.
    Optional<Task> find(String id);

    /// Deletes a task, if it is stored.
    void remove(String id);

    /// Deletes all tasks that were stored more than `olderThanMillis` ago.
    ///
    /// @return how many were deleted; 0 for a store in which tasks expire
    int sweep(long olderThanMillis);
}
