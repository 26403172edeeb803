package bios.coordinator.run;

import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

/// What the runs of a node take of its memory together, and what each owner has not finished on it. Safe for
/// any thread; each run has one [Account] as long as its entity lives.
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

    /// @param resultBytes beyond so many bytes of results in memory, the run that holds most is asked to
    ///     write its results out
    public NodeMemory(long resultBytes) {
        this.resultBytes = resultBytes;
    }

    /// What one run takes.
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

        /// Says what the run has not finished now.
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

        /// Says how many bytes of results the run holds; whoever holds most may be asked for room.
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
    /// @param shrink is called when the run is to give room; by any thread, and must not wait
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

    /// Operations that an owner has not finished on this node.
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
