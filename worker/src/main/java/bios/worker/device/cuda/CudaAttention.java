package bios.worker.device.cuda;

import bios.worker.device.AttentionShape;
import bios.worker.device.Device.Scope;
import bios.worker.device.KeyValues;
import bios.worker.device.PagePool;
import bios.worker.device.Sequence;
import bios.worker.device.Sequences;
import bios.worker.device.Tensor;
import java.util.List;

/// Attention over packed sequences and over pages.
final class CudaAttention {
    CudaAttention(Cuda cuda, CudaTransfers transfers, CudaRows rows) {}

    PagePool pagePool(PagePool.Format format, int limit) {
        throw new UnsupportedOperationException();
    }

    Sequences sequences(Scope scope, List<Sequence> sequences) {
        throw new UnsupportedOperationException();
    }

    void append(PagePool pool, int layer, Tensor keys, Tensor values, Sequences sequences) {
        throw new UnsupportedOperationException();
    }

    void copyPage(PagePool pool, int to, int from) {
        throw new UnsupportedOperationException();
    }

    void attention(Tensor out, Tensor lse, Tensor q, KeyValues source, Sequences sequences,
            AttentionShape shape) {
        throw new UnsupportedOperationException();
    }

    void attentionBackward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q,
            KeyValues.Packed source, Sequences sequences, AttentionShape shape) {
        throw new UnsupportedOperationException();
    }
}
