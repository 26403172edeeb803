package bios.worker.device.cuda;

import static bios.protocol.Require.require;

import bios.worker.device.SharedSnapshot;
import bios.worker.device.Tensor;
import java.util.ArrayList;
import java.util.List;

/// Copies of tensors on the card, read in blocks on the stream of copies.
final class CudaSnapshot extends SharedSnapshot {
    private final Cuda cuda;
    private final CudaTransfers transfers;
    private final List<CudaTensor> copies = new ArrayList<>();

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

    @Override protected List<CudaTensor> copies() {
        return copies;
    }

    @Override protected void copyTo(int i, int row, int rows, int column, int columns, float[] to, int at) {
        var from = copies.get(i).floats().rows(row, rows).columns(column, columns);
        require(at >= 0 && at + from.elements() <= to.length, "%d values from %d into %d",
                from.elements(), at, to.length);
        transfers.read(from, to, at, cuda.copies(), false);
    }

    @Override protected void release() {
        copies.forEach(copy -> cuda.memory().release(copy.address()));
    }
}
