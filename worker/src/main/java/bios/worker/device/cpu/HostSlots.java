package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.Slot;
import bios.worker.device.Slots;
import java.util.ArrayList;
import java.util.List;

/// The adapters of a pass, as a list.
record HostSlots(List<Slot> slots) implements Slots {
    HostSlots {
        int end = 0;
        for (var slot : slots) {
            require(slot.row() >= end && slot.count() >= 0, "slot of rows %d+%d after row %d", slot.row(),
                    slot.count(), end);
            end = slot.row() + slot.count();
        }
        slots = slots.stream().filter(slot -> slot.count() > 0).toList();
    }

    static HostSlots of(Slots slots) {
        if (slots instanceof HostSlots own) return own;
        throw new IllegalArgumentException("slots of another device");
    }

    @Override public int rank(int site) {
        int rank = 0;
        for (var slot : slots)
            rank = Math.max(rank, slot.weights().at(site).map(factor -> factor.rank()).orElse(0));
        return rank;
    }

    @Override public Slots rows(int from, int count) {
        require(from >= 0 && count >= 0, "rows %d+%d", from, count);
        var part = new ArrayList<Slot>();
        for (var slot : slots) {
            int first = Math.max(slot.row(), from);
            int end = Math.min(slot.row() + slot.count(), from + count);
            if (first < end) part.add(new Slot(first - from, end - first, slot.scale(), slot.weights(),
                    slot.gradient()));
        }
        return new HostSlots(part);
    }
}
