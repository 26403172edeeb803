package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.FactorTable.Factor;
import bios.worker.device.Slot;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Products with frozen weights and the low-rank corrections of adapters. The base product runs over all rows
/// at once; corrections run slot by slot, so that sums over rows (dA, dB) depend on one slot only.
final class AdapterProducts {
    private final Products products;

    AdapterProducts(Products products) {
        this.products = products;
    }

    /// A slot that a site corrects, with its factors.
    private record Corrected(Slot slot, Factor factor) {
        HostTensor rows(HostTensor of) {
            return of.rows(slot.row(), slot.count());
        }

        /// The slot's rows and columns of the result of [#lowRank] for all slots.
        HostTensor low(HostTensor of) {
            return rows(of).columns(0, factor.rank());
        }
    }

    private static List<Corrected> corrected(HostSlots slots, int site) {
        var all = new ArrayList<Corrected>();
        for (var slot : slots.slots())
            slot.weights().at(site).ifPresent(factor -> all.add(new Corrected(slot, factor)));
        return all;
    }

    void lowRank(List<Tensor> lows, Tensor input, HostSlots slots, List<Integer> sites,
            Fp32Operands operands) {
        require(lows.size() == sites.size(), "%d results for %d sites", lows.size(), sites.size());
        var x = operands.read(input);
        var ys = new ArrayList<HostTensor>();
        for (int i = 0; i < lows.size(); i++) {
            require(lows.get(i).rows() == x.rows() && lows.get(i).columns() >= slots.rank(sites.get(i)),
                    "[%d, %d] for %d rows of rank %d", lows.get(i).rows(), lows.get(i).columns(), x.rows(),
                    slots.rank(sites.get(i)));
            ys.add(operands.update(lows.get(i)));
        }
        var groups = new ArrayList<HostGroup>();
        for (var slot : slots.slots()) {
            var own = new ArrayList<HostTensor>();
            var factors = new ArrayList<HostTensor>();
            for (int i = 0; i < ys.size(); i++) {
                var factor = slot.weights().at(sites.get(i));
                if (factor.isEmpty()) continue;
                own.add(new Corrected(slot, factor.get()).low(ys.get(i)));
                factors.add(operands.read(factor.get().a()));
            }
            if (!own.isEmpty())
                groups.add(new HostGroup(own, x.rows(slot.row(), slot.count()), factors, slot.scale()));
        }
        if (!groups.isEmpty()) products.multiplyByEach(groups);
    }

    void project(Tensor y, Tensor x, Weight w, Optional<Tensor> bias, Optional<Tensor> onto,
            HostSlots slots, int site, Optional<Tensor> low, Fp32Operands operands) {
        var corrections = new ArrayList<HostLowRank>();
        if (low.isPresent()) {
            var lows = operands.read(low.get());
            for (var c : corrected(slots, site))
                corrections.add(new HostLowRank(c.slot.row(), c.low(lows), operands.read(c.factor.b())));
        }
        products.project(operands.write(y), operands.read(x), w, operands.read(bias), operands.read(onto),
                corrections);
    }

    void projectBack(Optional<Tensor> dx, boolean add, Tensor dyGiven, Tensor xGiven, Weight w,
            HostSlots slots, int site, Optional<Tensor> low, Fp32Operands operands) {
        var dy = operands.read(dyGiven);
        Optional<HostTensor> to = dx.map(t -> add ? operands.update(t) : operands.write(t));
        if (dx.isPresent()) products.prepareBackward(w);
        var corrections = new ArrayList<HostLowRank>();
        if (low.isPresent()) {
            var x = operands.read(xGiven);
            var lows = operands.read(low.get());
            var all = corrected(slots, site);
            // Allocates all scratch before the first sum, so that no gradient has changed if memory runs out.
            var dlows = all.stream().map(c -> operands.scratch(c.slot.count(), c.factor.rank())).toList();
            for (int i = 0; i < all.size(); i++) {
                var c = all.get(i);
                gradients(c, dlows.get(i), c.rows(dy), c.rows(x), c.low(lows), site, operands);
                corrections.add(new HostLowRank(c.slot.row(), dlows.get(i), operands.read(c.factor.a())));
            }
        }
        to.ifPresent(t -> products.projectBack(t, dy, w, add, corrections));
    }

    /// dlow ← s·dy·Bᵀ, dB += lowᵀ·dy, dA += xᵀ·dlow, of one slot.
    private void gradients(Corrected c, HostTensor dlow, HostTensor dy, HostTensor x, HostTensor low,
            int site, Fp32Operands operands) {
        var gradient = c.slot.gradient().flatMap(table -> table.at(site))
                .orElseThrow(() -> new IllegalArgumentException("a slot without gradient at site " + site));
        products.multiplyByTransposed(dlow, dy, operands.read(c.factor.b()), c.slot.scale(), false);
        products.outerAdd(operands.update(gradient.b()), low, dy, 1);
        products.outerAdd(operands.update(gradient.a()), x, dlow, 1);
    }
}
