package bios.worker.model;

import bios.protocol.model.TargetModule;
import bios.worker.device.Device;
import bios.worker.device.FactorTable.Factor;
import bios.worker.device.LowRank;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// A frozen W that each adapter corrects on its own rows: y = x·Wᵀ + bias + s·(x·Aᵀ)·Bᵀ, s = alpha / rank. W
/// is frozen, so dW does not exist: backward pays for dx, dA and dB only.
/// The base product runs over all rows at once; corrections run per adapter, so that sums over rows (dA, dB)
/// never depend on who else is in the pass.
///
/// @param layer index of the layer in which an adapter keeps its factors
record Projection(Weight w, Optional<Tensor> bias, int layer, TargetModule target) {

    /// Overwrites y, with `onto` added if it is there.
    ///
    /// @param low what [#low] gives for x
    void forward(Tensor y, Tensor x, Optional<Tensor> onto, List<Optional<Tensor>> low, List<Slot> slots,
            Device on) {
        List<LowRank> corrections = new ArrayList<>();
        for (int i = 0; i < slots.size(); i++)
            if (low.get(i).isPresent())
                corrections.add(new LowRank(slots.get(i).row(), low.get(i).get(), factor(slots.get(i)).b()));
        on.project(y, x, w, bias, onto, corrections);
    }

    /// s·x·Aᵀ of every slot, `[slot's rows, rank]`; empty where its adapter has no such target.
    List<Optional<Tensor>> low(Tensor x, List<Slot> slots, Device on, Device.Scope scope) {
        return low(List.of(this), x, slots, on, scope).getFirst();
    }

    /// [#low] of several projections of one x, in one pass over it.
    static List<List<Optional<Tensor>>> low(List<Projection> projections, Tensor x, List<Slot> slots,
            Device on, Device.Scope scope) {
        List<List<Optional<Tensor>>> all = new ArrayList<>();
        for (int i = 0; i < projections.size(); i++) all.add(new ArrayList<>());
        List<Device.Group> groups = new ArrayList<>();
        for (Slot slot : slots) {
            List<Tensor> ys = new ArrayList<>();
            List<Tensor> factors = new ArrayList<>();
            for (int i = 0; i < projections.size(); i++) {
                Projection p = projections.get(i);
                Optional<Factor> factor = slot.adapter().at(p.layer, p.target);
                Optional<Tensor> y = factor.map(f -> on.scratch(scope, slot.count(), f.a().columns()));
                all.get(i).add(y);
                y.ifPresent(ys::add);
                factor.ifPresent(f -> factors.add(f.a()));
            }
            if (!ys.isEmpty()) groups.add(new Device.Group(ys, x.rows(slot.row(), slot.count()), factors,
                    slot.adapter().scale()));
        }
        if (!groups.isEmpty()) on.multiplyByEach(groups);
        return all;
    }

    private Factor factor(Slot slot) {
        return slot.adapter().at(layer, target).orElseThrow();
    }

    /// dx ← dy·W + dxa·A, or added if `add`; the slots' gradients += xᵀ·dxa and s·xaᵀ·dy, where dxa = s·dy·B.
    ///
    /// @param dx empty: nobody asks for it
    void backward(Optional<Tensor> dx, boolean add, Tensor dy, Tensor x, List<Optional<Tensor>> low,
            List<Slot> slots, Device on) {
        try (Device.Scope scope = on.scope()) {
            List<LowRank> corrections = new ArrayList<>();
            for (int i = 0; i < slots.size(); i++) {
                Slot slot = slots.get(i);
                if (low.get(i).isEmpty()) continue;
                Factor f = factor(slot);
                Factor d = slot.gradient().orElseThrow().at(layer, target).orElseThrow();
                Tensor dyHere = dy.rows(slot.row(), slot.count());
                Tensor dxa = on.scratch(scope, slot.count(), f.a().columns());
                on.multiplyByTransposed(dxa, dyHere, f.b(), slot.adapter().scale());
                on.outerAdd(d.b(), low.get(i).get(), dyHere, 1);
                on.outerAdd(d.a(), x.rows(slot.row(), slot.count()), dxa, 1);
                corrections.add(new LowRank(slot.row(), dxa, f.a()));
            }
            dx.ifPresent(to -> on.projectBack(to, dy, w, add, corrections));
        }
    }
}
