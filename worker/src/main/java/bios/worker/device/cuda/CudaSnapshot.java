package bios.worker.device.cuda;

import static bios.protocol.Require.require;

import bios.worker.device.Snapshot;
import bios.worker.device.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.locks.ReadWriteLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;

/// Copies of tensors on the card, read in blocks on the stream of copies. Several threads may read at the
/// same time; [#close] waits for the reads in progress.
final class CudaSnapshot implements Snapshot {
    private final Cuda cuda;
    private final CudaTransfers transfers;
    private final List<CudaTensor> copies = new ArrayList<>();
    private final ReadWriteLock lock = new ReentrantReadWriteLock();
    private boolean closed;

    /// Copies the tensors. If it throws [bios.worker.device.OutOfDeviceMemory], nothing stays allocated.
    CudaSnapshot(Cuda cuda, CudaTransfers transfers, CudaRows rows, List<Tensor> tensors) {
        this.cuda = cuda;
        this.transfers = transfers;
        try {
            for (Tensor t : tensors)
                copies.add(cuda.memory().undefined(t.dtype(), t.rows(), t.columns()));
            for (int i = 0; i < copies.size(); i++) rows.copy(copies.get(i), tensors.get(i));
        } catch (Throwable refused) {
            copies.forEach(copy -> cuda.memory().release(copy.address()));
            throw refused;
        }
        var made = cuda.pinned().mark(cuda.compute());
        cuda.driver().order(cuda.copies(), made);
        cuda.pinned().give(made);
    }

    @Override public long bytes() {
        return copies.stream().mapToLong(t -> t.dtype().bytes() * t.elements()).sum();
    }

    @Override public void read(int i, int row, int rows, int column, int columns, float[] to, int at) {
        lock.readLock().lock();
        try {
            require(!closed, "the snapshot is closed");
            var from = copies.get(i).floats().rows(row, rows).columns(column, columns);
            require(at >= 0 && at + from.elements() <= to.length, "%d values from %d into %d",
                    from.elements(), at, to.length);
            transfers.read(from, to, at, cuda.copies(), false);
        } finally {
            lock.readLock().unlock();
        }
    }

    @Override public void close() {
        lock.writeLock().lock();
        try {
            if (closed) return;
            closed = true;
            copies.forEach(copy -> cuda.memory().release(copy.address()));
        } finally {
            lock.writeLock().unlock();
        }
    }
}
