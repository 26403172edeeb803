package bios.worker.device;

import static bios.protocol.Require.require;

import java.util.List;
import java.util.concurrent.locks.ReadWriteLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;

/// A snapshot that several threads may read at the same time; [#close] waits for the reads in progress.
public abstract class SharedSnapshot implements Snapshot {
    private final ReadWriteLock lock = new ReentrantReadWriteLock();
    private boolean closed;

    /// The copies, in the order of the tensors.
    protected abstract List<? extends Tensor> copies();

    /// to[at] and after ← a part of copy i; see [#read]. Not after [#release].
    protected abstract void copyTo(int i, int row, int rows, int column, int columns, float[] to, int at);

    /// Frees the copies; called once.
    protected abstract void release();

    /// Bytes of the copies, without padding.
    @Override public final long bytes() {
        return copies().stream().mapToLong(t -> t.dtype().bytes() * t.elements()).sum();
    }

    @Override public final void read(int i, int row, int rows, int column, int columns, float[] to, int at) {
        lock.readLock().lock();
        try {
            require(!closed, "the snapshot is closed");
            copyTo(i, row, rows, column, columns, to, at);
        } finally {
            lock.readLock().unlock();
        }
    }

    @Override public final void close() {
        lock.writeLock().lock();
        try {
            if (closed) return;
            closed = true;
            release();
        } finally {
            lock.writeLock().unlock();
        }
    }
}
