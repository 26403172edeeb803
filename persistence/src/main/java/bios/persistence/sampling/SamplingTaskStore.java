package bios.persistence.sampling;

import java.util.List;
import java.util.Optional;

/// Stores sampling requests that were accepted, until their results have expired, so that another coordinator
/// can finish the requests of a coordinator that has terminated. All methods block and are thread-safe: call
/// them from virtual threads.
public interface SamplingTaskStore {
    /// An accepted request.
    ///
    /// @param body the request, encoded by its coordinator
    /// @param storedAtMillis when it was stored, epoch milliseconds
    record Task(String id, String owner, byte[] body, long storedAtMillis) {}

    /// Stores a task, replaces one with the same id; the task is durable when the method returns.
    ///
    /// @param id unique among tasks
    /// @param owner the account
    void put(String id, String owner, byte[] body);

    /// The task `id`, if it is stored.
    Optional<Task> find(String id);

    /// Deletes the tasks with these ids that are stored.
    void remove(List<String> ids);

    /// Deletes all tasks that were stored more than `ageMillis` ago.
    ///
    /// @return the number of deleted tasks; 0 if the store deletes them itself when they expire
    int deleteOlderThan(long ageMillis);
}
