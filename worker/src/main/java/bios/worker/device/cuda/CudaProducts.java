package bios.worker.device.cuda;

import bios.worker.device.Device.Scope;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.Slot;
import bios.worker.device.Slots;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import java.util.List;
import java.util.Optional;

/// Products of activations with frozen weights and adapters.
final class CudaProducts implements AutoCloseable {
    CudaProducts(Cuda cuda, CudaTransfers transfers, CudaRows rows, WeightLoader loader) {}

    /// Words for [bios.worker.device.Device#description].
    String description() {
        throw new UnsupportedOperationException();
    }

    Weight packWeight(FrozenMatrix matrix) {
        throw new UnsupportedOperationException();
    }

    long packedBytes(FrozenMatrix matrix) {
        return WeightLoader.bytes(matrix);
    }

    Slots slots(Scope scope, List<Slot> slots) {
        throw new UnsupportedOperationException();
    }

    void lowRank(List<Tensor> lows, Tensor x, Slots slots, List<Integer> sites) {
        throw new UnsupportedOperationException();
    }

    void project(Tensor y, Tensor x, Weight w, Optional<Tensor> bias, Optional<Tensor> onto, Slots slots,
            int site, Optional<Tensor> low) {
        throw new UnsupportedOperationException();
    }

    void projectBack(Optional<Tensor> dx, boolean add, Tensor dy, Tensor x, Weight w, Slots slots, int site,
            Optional<Tensor> low) {
        throw new UnsupportedOperationException();
    }

    @Override public void close() {}
}
