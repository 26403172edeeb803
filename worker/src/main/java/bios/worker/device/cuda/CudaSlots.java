package bios.worker.device.cuda;

import static bios.protocol.Require.require;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;

import bios.worker.device.DType;
import bios.worker.device.Device.Scope;
import bios.worker.device.FactorTable.Factor;
import bios.worker.device.Slot;
import bios.worker.device.Slots;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// The adapters of a pass, and for each site an array of `struct SlotSite` of tiles.cuh on the card, one for
/// each slot, and absent ones up to a power of two. Views share the arrays.
final class CudaSlots implements Slots {
    private static final int MATRICES = 4;
    private static final int ENTRY_BYTES = MATRICES * Matrix.BYTES + 16;

    private final List<Slot> all;
    private final int sites;
    private final long table;
    private final int from;
    private final int count;
    private final boolean padded;

    /// What decides, beside data on the card, how the kernels are launched for these slots.
    ///
    /// @param entries of a site, the absent ones included
    /// @param ranks of each site
    /// @param wide see [#widePieces], of each site
    record Shape(int entries, List<Integer> ranks, List<Boolean> wide) {}

    /// @param all those with rows
    /// @param sites of each of them
    /// @param table address of the entries of site 0
    /// @param from first row of this view
    /// @param padded whether kernels are launched for absent entries and tiles as well
    private CudaSlots(List<Slot> all, int sites, long table, int from, int count, boolean padded) {
        this.all = all;
        this.sites = sites;
        this.table = table;
        this.from = from;
        this.count = count;
        this.padded = padded;
    }

    /// The slots of a pass, uploaded.
    static CudaSlots of(List<Slot> slots, CudaTransfers transfers, Scope scope) {
        int end = 0;
        int sites = 0;
        for (var slot : slots) {
            require(slot.row() >= end && slot.count() >= 0, "slot of rows %d+%d after row %d", slot.row(),
                    slot.count(), end);
            end = slot.row() + slot.count();
            sites = Math.max(sites, slot.weights().sites());
        }
        var all = slots.stream().filter(slot -> slot.count() > 0).toList();
        int most = sites;
        int room = roundedUp(all.size());
        long table = transfers.upload(scope, (long) ENTRY_BYTES * most * room, to -> {
            for (int site = 0; site < most; site++)
                for (int i = 0; i < room; i++) {
                    long at = (long) ENTRY_BYTES * (site * room + i);
                    if (i < all.size()) write(to, at, all.get(i), site);
                    else to.asSlice(at, ENTRY_BYTES).fill((byte) 0);
                }
        });
        return new CudaSlots(all, most, table, 0, Integer.MAX_VALUE, false);
    }

    /// The next power of two, or 0.
    private static int roundedUp(int n) {
        return n == 0 ? 0 : Integer.highestOneBit(2 * n - 1);
    }

    /// The same slots, whose entries have been copied to an address. Kernels are launched for absent entries
    /// too, and for as many tiles as slots of any lengths may have, so that one graph executes passes of
    /// other slots; what is absent has no rows.
    CudaSlots paddedAt(long address) {
        return new CudaSlots(all, sites, address, from, count, true);
    }

    /// Address of all entries.
    long address() {
        return table;
    }

    /// Bytes of all entries.
    long bytes() {
        return (long) ENTRY_BYTES * sites * roundedUp(all.size());
    }

    /// The shape, as [#paddedAt] has it.
    Shape shape() {
        var ranks = new ArrayList<Integer>();
        var wide = new ArrayList<Boolean>();
        for (int site = 0; site < sites; site++) {
            ranks.add(rank(site));
            wide.add(widePieces(site));
        }
        return new Shape(roundedUp(all.size()), ranks, wide);
    }

    static CudaSlots of(Slots slots) {
        if (slots instanceof CudaSlots own) return own;
        throw new IllegalArgumentException("slots of another device");
    }

    private static Optional<Factor> factor(Slot slot, int site) {
        return site < slot.weights().sites() ? slot.weights().at(site) : Optional.empty();
    }

    private static void write(MemorySegment to, long at, Slot slot, int site) {
        var factor = factor(slot, site);
        var gradient = factor.isEmpty() ? Optional.<Factor>empty()
                : slot.gradient().flatMap(table -> table.at(site));
        write(to, at, factor);
        write(to, at + 2 * Matrix.BYTES, gradient);
        long rest = at + MATRICES * Matrix.BYTES;
        to.set(JAVA_INT, rest, slot.row());
        to.set(JAVA_INT, rest + 4, slot.count());
        to.set(JAVA_INT, rest + 8, factor.map(Factor::rank).orElse(0));
        to.set(JAVA_FLOAT, rest + 12, slot.scale());
    }

    private static void write(MemorySegment to, long at, Optional<Factor> factor) {
        if (factor.isEmpty()) {
            Matrix.writeNone(to, at);
            Matrix.writeNone(to, at + Matrix.BYTES);
            return;
        }
        Matrix.write(to, at, CudaTensor.of(factor.get().a()).floats());
        Matrix.write(to, at + Matrix.BYTES, CudaTensor.of(factor.get().b()).floats());
    }

    /// Address of the entries of a site.
    long table(int site) {
        return table + (long) ENTRY_BYTES * site * roundedUp(all.size());
    }

    /// Entries of a site for which kernels are launched.
    int entries() {
        return padded ? roundedUp(all.size()) : all.size();
    }

    /// The row of the pass that is row 0 of this view.
    int from() {
        return from;
    }

    /// Whether the first factors of a site are fp32 matrices whose rows are whole 16-byte pieces.
    boolean widePieces(int site) {
        for (var slot : all) {
            var factor = factor(slot, site);
            if (factor.isEmpty()) continue;
            var a = CudaTensor.of(factor.get().a());
            boolean pieces = a.columns() % 4 == 0 && a.stride() % 4 == 0 && a.address() % 16 == 0;
            if (a.dtype() != DType.F32 || !pieces) return false;
        }
        return true;
    }

    private int first(Slot slot) {
        return Math.max(slot.row(), from);
    }

    private int end(Slot slot) {
        return Math.min(slot.row() + slot.count(), count == Integer.MAX_VALUE ? count : from + count);
    }

    /// Tiles of rows of this view for which kernels are launched, as `slotTile` of tiles.cuh counts them.
    ///
    /// @param rows of the view
    /// @param gaps whether the rows between slots have tiles too
    int tiles(int rows, int size, boolean gaps) {
        if (padded) return rows / size + (gaps ? 2 * entries() + 1 : entries());
        int tiles = 0;
        int at = from;
        for (var slot : all) {
            int first = first(slot);
            int end = Math.min(end(slot), from + rows);
            if (end <= first) continue;
            if (gaps) tiles += Math.ceilDiv(first - at, size);
            tiles += Math.ceilDiv(end - first, size);
            at = end;
        }
        return gaps ? tiles + Math.ceilDiv(from + rows - at, size) : tiles;
    }

    /// Throws if a slot with an adapter at this site has no gradient there, or its factors do not fit.
    void requireGradients(int site) {
        for (var slot : all) {
            if (end(slot) <= first(slot) || factor(slot, site).isEmpty()) continue;
            if (slot.gradient().flatMap(table -> table.at(site)).isEmpty())
                throw new IllegalArgumentException("a slot without gradient at site " + site);
        }
    }

    @Override public List<Slot> slots() {
        var part = new ArrayList<Slot>();
        for (var slot : all)
            if (first(slot) < end(slot)) part.add(new Slot(first(slot) - from, end(slot) - first(slot),
                    slot.scale(), slot.weights(), slot.gradient()));
        return part;
    }

    @Override public int rank(int site) {
        int rank = 0;
        for (var slot : all)
            if (first(slot) < end(slot))
                rank = Math.max(rank, factor(slot, site).map(Factor::rank).orElse(0));
        return rank;
    }

    @Override public CudaSlots rows(int first, int rows) {
        require(first >= 0 && rows >= 0, "rows %d+%d", first, rows);
        int most = count == Integer.MAX_VALUE ? rows : Math.clamp(count - first, 0, rows);
        return new CudaSlots(all, sites, table, from + first, most, padded);
    }
}
