package bios.worker.model;

import bios.worker.device.Device;
import bios.worker.device.Slots;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// A frozen W that each adapter corrects on its own rows: y = x·Wᵀ + bias + s·(x·A)·B, s = alpha / rank. W is
/// frozen, so dW does not exist: backward computes dx, dA and dB only.
/// The base product runs over all rows at once; corrections run per adapter, so that sums over rows (dA, dB)
/// never depend on the other runs in the pass.
///
/// @param site of W in the adapters' [bios.worker.device.FactorTable]
record Projection(Weight w, Optional<Tensor> bias, int site) {

    /// Overwrites y, with `onto` added if it is there.
    ///
    /// @param low from [#low] for x
    void forward(Tensor y, Tensor x, Optional<Tensor> onto, Optional<Tensor> low, Slots slots,
            Device device) {
        device.project(y, x, w, bias, onto, slots, site, low);
    }

    /// s·x·A of every slot, `[rows, rank]`; empty where no adapter of the pass has this target.
    Optional<Tensor> low(Tensor x, Slots slots, Device device, Device.Scope scope) {
        return low(List.of(this), x, slots, device, scope).getFirst();
    }

    /// [#low] of several projections of one x, in one pass over it.
    static List<Optional<Tensor>> low(List<Projection> projections, Tensor x, Slots slots, Device device,
            Device.Scope scope) {
        List<Optional<Tensor>> all = new ArrayList<>();
        List<Tensor> lows = new ArrayList<>();
        List<Integer> sites = new ArrayList<>();
        for (Projection p : projections) {
            int rank = slots.rank(p.site);
            if (rank == 0) {
                all.add(Optional.empty());
                continue;
            }
            Tensor low = device.scratch(scope, x.dtype(), x.rows(), rank);
            all.add(Optional.of(low));
            lows.add(low);
            sites.add(p.site);
        }
        if (!lows.isEmpty()) device.lowRank(lows, x, slots, sites);
        return all;
    }

    /// dx ← the gradient for x, or added if `add`; the slots' gradients += those of A and B.
    ///
    /// @param dx empty: not needed
    void backward(Optional<Tensor> dx, boolean add, Tensor dy, Tensor x, Optional<Tensor> low,
            Slots slots, Device device) {
        if (dx.isEmpty() && low.isEmpty()) return;
        device.projectBack(dx, add, dy, x, w, slots, site, low);
    }
}
