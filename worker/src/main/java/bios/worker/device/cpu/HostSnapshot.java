package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.Snapshot;
import java.util.List;
import java.util.concurrent.locks.ReadWriteLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;

/// Copies of tensors. Reads of several threads go on together; [#close] waits for those under way.
final class HostSnapshot implements Snapshot {
    private final Memory memory;
    private final List<HostTensor> copies;
    private final ReadWriteLock lock = new ReentrantReadWriteLock();
    private boolean closed;

    HostSnapshot(Memory memory, List<HostTensor> copies) {
        this.memory = memory;
        this.copies = copies;
    }

    @Override public long bytes() {
        return copies.stream().mapToLong(t -> t.dtype().bytes() * t.elements()).sum();
    }

    @Override public void read(int i, int row, int rows, int column, int columns, float[] to, int at) {
        lock.readLock().lock();
        try {
            require(!closed, "the snapshot is closed");
            HostReadback.read(copies.get(i).rows(row, rows).columns(column, columns), to, at);
        } finally {
            lock.readLock().unlock();
        }
    }

    @Override public void close() {
        lock.writeLock().lock();
        try {
            if (closed) return;
            closed = true;
            copies.forEach(memory::release);
        } finally {
            lock.writeLock().unlock();
        }
    }
}
