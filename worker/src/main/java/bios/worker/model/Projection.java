package bios.worker.model;

import bios.protocol.model.TargetModule;
import bios.worker.adapter.Factors.Factor;
import bios.worker.device.Device;
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

    /// Overwrites y; returns [#low], for backward.
    List<Optional<Tensor>> forward(Tensor y, Tensor x, List<Slot> slots, Device on, Device.Scope scope) {
        on.multiply(y, x, w);
        bias.ifPresent(b -> on.addBias(y, b));
        List<Optional<Tensor>> low = low(x, slots, on, scope);
        for (int i = 0; i < slots.size(); i++) {
            if (low.get(i).isEmpty()) continue;
            Slot slot = slots.get(i);
            Tensor b = slot.adapter().at(layer, target).orElseThrow().b();
            on.multiplyByTransposedAdd(y.rows(slot.row(), slot.count()), low.get(i).get(), b,
                    slot.adapter().scale());
        }
        return low;
    }

    /// x·Aᵀ of every slot, `[slot's rows, rank]`; empty where its adapter has no such target.
    List<Optional<Tensor>> low(Tensor x, List<Slot> slots, Device on, Device.Scope scope) {
        List<Optional<Tensor>> low = new ArrayList<>();
        for (Slot slot : slots)
            low.add(slot.adapter().at(layer, target).map(factor -> {
                Tensor xa = on.scratch(scope, slot.count(), factor.a().rows());
                on.multiplyByTransposed(xa, x.rows(slot.row(), slot.count()), factor.a(), 1);
                return xa;
            }));
        return low;
    }

    /// dx += dy·W + dxa·A; the slots' gradients += dxaᵀ·x and s·dyᵀ·xa, where dxa = s·dy·B.
    void backwardAdd(Tensor dx, Tensor dy, Tensor x, List<Optional<Tensor>> low, List<Slot> slots,
            Device on) {
        on.multiplyTransposedAdd(dx, dy, w);
        for (int i = 0; i < slots.size(); i++) {
            Slot slot = slots.get(i);
            Optional<Factor> factor = slot.adapter().at(layer, target);
            if (factor.isEmpty()) continue;
            Factor f = factor.get();
            Factor d = slot.gradient().orElseThrow().at(layer, target).orElseThrow();
            Tensor xa = low.get(i).orElseThrow();
            Tensor dyHere = dy.rows(slot.row(), slot.count());
            try (Device.Scope scope = on.scope()) {
                Tensor dxa = on.scratch(scope, xa.rows(), xa.columns());
                on.multiplyBy(dxa, dyHere, f.b(), slot.adapter().scale());
                on.outerAdd(d.b(), dyHere, xa, slot.adapter().scale());
                on.outerAdd(d.a(), dxa, x.rows(slot.row(), slot.count()), 1);
                on.multiplyByAdd(dx.rows(slot.row(), slot.count()), dxa, f.a(), 1);
            }
        }
    }
}
