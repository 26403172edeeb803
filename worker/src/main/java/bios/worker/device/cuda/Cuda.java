package bios.worker.device.cuda;

import bios.worker.device.Activations;
import bios.worker.device.CudaSettings;
import java.util.List;

/// What the parts of a device share.
///
/// @param computing the stream of all verbs
/// @param copies the stream of copies of snapshots to the host
/// @param faults an address of 16 bytes of the card that kernels write when an operand is out of range:
///     [CudaTransfers] looks at them with every result
/// @param libraries folders where libraries are looked for first
/// @param activations how fp32 activations are multiplied by bf16 weights
/// @param products how products with frozen weights are computed
record Cuda(CudaCard card, CudaDriver driver, CudaMemory memory, PinnedMemory pinned, Kernels kernels,
        ComputeStream computing, CudaStream copies, long faults, List<String> libraries,
        Activations activations, CudaSettings.Products products) {
    /// Where this thread puts its verbs.
    CudaStream compute() {
        return computing.current();
    }

    /// Blocks of `block` threads for `work` threads.
    static int blocks(long work, int block) {
        return Math.toIntExact(Math.ceilDiv(work, block));
    }
}
