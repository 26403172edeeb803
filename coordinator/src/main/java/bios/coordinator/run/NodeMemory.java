package bios.coordinator.run;

import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

/// What all runs of a node take of its memory, and what each owner has unfinished there. Safe for
/// any thread; each entity has one [Account].
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

    /// @param resultBytes beyond so many bytes of results in memory, the run that has most of it is asked to
    ///     write its results out
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

        /// Updates what the run has unfinished.
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

        /// Updates the bytes of results that the run has in memory. The run that has most may be asked to
        /// shrink.
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

        /// The run has freed what it can, and may be asked again.
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
    /// @param shrink is called when the run is to free memory; by any thread, must not block
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

    /// Operations that an owner has unfinished on this node.
    synchronized int unfinished(String owner) {
        return owners.containsKey(owner) ? owners.get(owner).unfinished : 0;
    }

    /// Their bytes.
    synchronized long unfinishedBytes(String owner) {
        return owners.containsKey(owner) ? owners.get(owner).bytes : 0;
    }

    /// Bytes of results in memory.
    synchronized long results() {
        return results;
    }
}
