package bios.worker.device.cuda;

import bios.worker.device.Device.Scope;
import bios.worker.device.Draw;
import bios.worker.device.Draws;
import bios.worker.device.Tensor;
import java.util.List;

/// Draws of tokens, and the most likely ones.
final class CudaSampling {
    CudaSampling(Cuda cuda, CudaTransfers transfers, CudaRows rows) {}

    Draws draws(Scope scope, List<Draw> draws) {
        throw new UnsupportedOperationException();
    }

    void sample(Tensor tokens, Tensor logprobs, Tensor own, Tensor logits, Draws draws) {
        throw new UnsupportedOperationException();
    }

    void top(Tensor ids, Tensor logprobs, Tensor logits, Tensor lse) {
        throw new UnsupportedOperationException();
    }
}
