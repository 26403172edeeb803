package bios.worker.device.cpu;

import bios.worker.device.SharedSnapshot;
import bios.worker.device.Tensor;
import java.util.ArrayList;
import java.util.List;

/// Copies of tensors, several small ones in one allocation (a slab).
final class HostSnapshot extends SharedSnapshot {
    private static final long ALIGNMENT_BYTES = 64;
    /// Most elements of one slab of several tensors; a larger tensor has an allocation of its own.
    private static final long SLAB_ELEMENTS = 1 << 28;
    private final Memory memory;
    private final List<HostTensor> slabs = new ArrayList<>();
    private final List<HostTensor> copies = new ArrayList<>();

    /// Allocates the copies of these tensors; the caller fills them ([#copies]). If it throws
    /// [bios.worker.device.OutOfDeviceMemory], nothing stays allocated.
    HostSnapshot(Memory memory, List<Tensor> tensors) {
        this.memory = memory;
        try {
            for (int from = 0, end; from < tensors.size(); from = end) {
                long elements = 0;
                for (end = from; end < tensors.size() && fitsSameSlab(tensors, from, end, elements); end++)
                    elements += alignedElements(tensors.get(end));
                if (end == from + 1) {
                    // Its own shape: its padded number of elements need not fit into an int.
                    Tensor alone = tensors.get(from);
                    slabs.add(memory.tensor(alone.dtype(), alone.rows(), alone.columns()));
                    copies.add(slabs.getLast());
                    continue;
                }
                HostTensor slab = memory.tensor(tensors.get(from).dtype(), 1, Math.toIntExact(elements));
                slabs.add(slab);
                long at = 0;
                for (Tensor t : tensors.subList(from, end)) {
                    copies.add(slab.matrix(at, t.rows(), t.columns()));
                    at += alignedElements(t);
                }
            }
        } catch (Throwable refused) {
            slabs.forEach(memory::free);
            throw refused;
        }
    }

    /// Whether tensor `next` fits into the slab that begins with tensor `from` and has `elements` so far.
    private static boolean fitsSameSlab(List<Tensor> tensors, int from, int next, long elements) {
        return next == from || tensors.get(next).dtype() == tensors.get(from).dtype()
                && elements + alignedElements(tensors.get(next)) <= SLAB_ELEMENTS;
    }

    /// The elements of a tensor, rounded up to the alignment.
    private static long alignedElements(Tensor t) {
        long elements = ALIGNMENT_BYTES / t.dtype().bytes();
        return Math.ceilDiv(t.elements(), elements) * elements;
    }

    @Override protected List<HostTensor> copies() {
        return copies;
    }

    @Override protected void copyTo(int i, int row, int rows, int column, int columns, float[] to, int at) {
        HostReadback.read(copies.get(i).rows(row, rows).columns(column, columns), to, at);
    }

    @Override protected void release() {
        slabs.forEach(memory::release);
    }
}
