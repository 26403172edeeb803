package bios.coordinator.run;

import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

/// The memory that the runs of a node use for results, and the unfinished operations of each owner on the
/// node. Thread-safe; each entity has one [Account].
public final class NodeMemory {
    private final long resultBytes;
    private final Set<Account> accounts = new HashSet<>();
    private final Map<String, Owner> owners = new HashMap<>();
    private long results;

    private static final class Owner {
        int unfinished;
        long bytes;
        int runs;
    }

    /// @param resultBytes if the runs have more bytes of results in memory, the run with the most is asked to
    ///     write its results to the blob store
    public NodeMemory(long resultBytes) {
        this.resultBytes = resultBytes;
    }

    /// The account of one run.
    public final class Account implements AutoCloseable {
        private final Runnable shrink;
        private String owner = "";
        private int unfinished;
        private long unfinishedBytes;
        private long results;
        private boolean asked;

        private Account(Runnable shrink) {
            this.shrink = shrink;
        }

        /// Updates the unfinished operations of the run.
        void unfinished(String whose, int count, long bytes) {
            synchronized (NodeMemory.this) {
                forget();
                if (!accounts.contains(this)) return;
                owner = whose;
                unfinished = count;
                unfinishedBytes = bytes;
                Owner all = owners.computeIfAbsent(whose, _ -> new Owner());
                all.runs++;
                all.unfinished += count;
                all.bytes += bytes;
            }
        }

        private void forget() {
            Owner all = owners.get(owner);
            if (owner.isEmpty() || all == null) return;
            all.unfinished -= unfinished;
            all.bytes -= unfinishedBytes;
            if (--all.runs == 0) owners.remove(owner);
            owner = "";
        }

        /// Updates the bytes of results that the run has in memory. If the limit is exceeded, the run with
        /// the most is asked to free memory.
        void results(long bytes) {
            Runnable ask;
            synchronized (NodeMemory.this) {
                if (!accounts.contains(this)) return;
                NodeMemory.this.results += bytes - results;
                results = bytes;
                ask = NodeMemory.this.results > resultBytes ? largest() : () -> {};
            }
            ask.run();
        }

        /// The run has freed memory and may be asked again.
        void shrunk() {
            synchronized (NodeMemory.this) {
                asked = false;
            }
        }

        @Override public void close() {
            synchronized (NodeMemory.this) {
                forget();
                if (accounts.remove(this)) NodeMemory.this.results -= results;
            }
        }
    }

    /// Opens a run's account.
    ///
    /// @param shrink called when the run must free memory; on any thread, must not block
    public synchronized Account open(Runnable shrink) {
        var account = new Account(shrink);
        accounts.add(account);
        return account;
    }

    private Runnable largest() {
        Account most = null;
        for (Account each : accounts)
            if (!each.asked && each.results > 0 && (most == null || each.results > most.results)) most = each;
        if (most == null) return () -> {};
        most.asked = true;
        return most.shrink;
    }

    /// The number of unfinished operations of an owner on this node.
    synchronized int unfinished(String owner) {
        return owners.containsKey(owner) ? owners.get(owner).unfinished : 0;
    }

    /// The bytes of unfinished operations of an owner on this node.
    synchronized long unfinishedBytes(String owner) {
        return owners.containsKey(owner) ? owners.get(owner).bytes : 0;
    }

    /// Bytes of results in memory.
    synchronized long results() {
        return results;
    }
}
