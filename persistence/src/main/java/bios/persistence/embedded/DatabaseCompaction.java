package bios.persistence.embedded;

import java.nio.file.Path;
import java.sql.Connection;
import java.sql.SQLException;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import org.h2.engine.SessionLocal;
import org.h2.jdbc.JdbcConnection;
import org.h2.mvstore.MVStore;
import org.h2.mvstore.RandomAccessStore;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Gives space of the embedded database's file back while it is open. Each commit appends a chunk of at least
/// 4 KiB; H2 rewrites chunks of which little is live, and shortens the file, in a thread that it starts only
/// where commits are delayed, which would lose them (`WRITE_DELAY=0`). This does the same with H2's own
/// operations: in small steps between commits, and more of it while little is written. A step holds the
/// store's lock for some milliseconds, so a write never waits long. What a step writes is a commit like
/// others: the death of the process in the middle of it leaves the chunks before it.
public final class DatabaseCompaction implements AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger(DatabaseCompaction.class);
    private static final long TICK_MILLIS = 2000;
    /// Writes to the file between two ticks up to which little is written.
    private static final long FEW_WRITES = 20;
    /// Percent of live data in chunks, and of used blocks in the file, that are good enough.
    private static final int FILLED = 85;
    private static final int FILLED_WHILE_WRITING = 50;
    private static final int STEP_BYTES = 1 << 20;
    private static final int STEP_BYTES_WHILE_WRITING = 256 << 10;
    private static final int MOVED_BYTES = 4 << 20;
    private static final int MOVED_BYTES_WHILE_WRITING = 1 << 20;
    /// Percent of live data in the chunks that may be rewritten, as H2 names it.
    private static final String REWRITABLE_FILL = "info.CHUNKS_FILL_RATE_RW";
    private static final int ANY_FILL = 101;
    /// How long one tick works.
    private static final long BUSY_NANOS = TimeUnit.MILLISECONDS.toNanos(100);
    private static final long QUIET_NANOS = TimeUnit.MILLISECONDS.toNanos(250);
    /// Chunks younger than [EmbeddedDatabase#RETENTION_MILLIS] are left alone, so the last writes are
    /// considered some ticks later only. After this many quiet ticks without effect the file stays as it is
    /// until there were more than a few writes.
    private static final int FRUITLESS_TICKS =
            2 + (int) (2L * EmbeddedDatabase.RETENTION_MILLIS / TICK_MILLIS);
    private static final long LONGEST_STEP_SECONDS = 60;

    private final Connection connection;
    private final ScheduledExecutorService thread;
    private long written;
    private long writesSince;
    private int fruitless;

    private DatabaseCompaction(Connection connection) {
        this.connection = connection;
        // A platform thread that is never interrupted: an interruption closes the file.
        this.thread = Executors.newSingleThreadScheduledExecutor(
                Thread.ofPlatform().daemon().name("journal-compaction").factory());
    }

    /// Compacts the database in `folder` until it is closed.
    public static DatabaseCompaction start(Path folder) throws SQLException {
        var compaction = of(EmbeddedDatabase.connect(EmbeddedDatabase.url(folder)));
        compaction.thread.scheduleWithFixedDelay(compaction::tickOrEnd, TICK_MILLIS, TICK_MILLIS,
                TimeUnit.MILLISECONDS);
        return compaction;
    }

    /// Without a schedule.
    static DatabaseCompaction of(Connection connection) {
        return new DatabaseCompaction(connection);
    }

    private void tickOrEnd() {
        try {
            tick();
        } catch (SQLException | RuntimeException failed) {
            LOG.warn("the journal's file is not compacted any more: {}", failed.toString());
            thread.shutdown();
        }
    }

    /// Does a part of what is to be done.
    void tick() throws SQLException {
        MVStore store = store();
        long writes = store.getFileStore().getWriteCount() - written;
        boolean quiet = writes <= FEW_WRITES;
        writesSince += writes;
        if (writesSince > FEW_WRITES) {
            fruitless = 0;
            writesSince = 0;
        }
        long until = System.nanoTime() + (quiet ? QUIET_NANOS : BUSY_NANOS); // edge: bounds the work
        if (!quiet) {
            while (rewrite(store, FILLED_WHILE_WRITING, STEP_BYTES_WHILE_WRITING)
                    && System.nanoTime() < until) { } // edge: bounds the work
            move(store, FILLED_WHILE_WRITING, MOVED_BYTES_WHILE_WRITING);
        } else if (fruitless < FRUITLESS_TICKS) {
            long size = store.getFileStore().size();
            while (step(store) && System.nanoTime() < until) { } // edge: bounds the work
            fruitless = store.getFileStore().size() < size ? 0 : fruitless + 1;
        }
        written = store.getFileStore().getWriteCount();
    }

    /// @return whether the file may be shortened further
    private static boolean step(MVStore store) {
        long size = store.getFileStore().size();
        boolean rewritten = rewrite(store, FILLED, STEP_BYTES);
        move(store, FILLED, MOVED_BYTES);
        return rewritten || store.getFileStore().size() < size;
    }

    /// Frees chunks without live pages. If less than `filled` percent of the file is used, also moves up to
    /// `bytes` of chunks towards the beginning of the file and shortens it.
    private static void move(MVStore store, int filled, int bytes) {
        if (store.getFileStore() instanceof RandomAccessStore file)
            file.compactMoveChunks(filled, bytes, store);
    }

    /// Rewrites up to `bytes` of live pages from sparse chunks, if less than `filled` percent of all
    /// rewritable chunks is live. New chunks, and the chunks that they replaced, are not rewritable for the
    /// retention time. If the fill rate of all chunks decided, the same pages would be rewritten repeatedly.
    ///
    /// @return whether something was rewritten
    private static boolean rewrite(MVStore store, int filled, int bytes) {
        int[] rate = {100};
        store.getFileStore().populateInfo((name, value) -> {
            if (name.equals(REWRITABLE_FILL)) rate[0] = Integer.parseInt(value);
        });
        if (rate[0] >= filled || !store.compact(ANY_FILL, bytes)) return false;
        store.commit();
        return true;
    }

    private MVStore store() throws SQLException {
        var session = (SessionLocal) connection.unwrap(JdbcConnection.class).getSession();
        return session.getDatabase().getStore().getMvStore();
    }

    /// Ends after the step that is under way.
    @Override public void close() throws SQLException {
        thread.shutdown();
        try {
            if (!thread.awaitTermination(LONGEST_STEP_SECONDS, TimeUnit.SECONDS))
                LOG.warn("a step of the compaction of the journal's file takes longer than {} s",
                        LONGEST_STEP_SECONDS);
        } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
        }
        connection.close();
    }
}
