package bios.worker.device.cpu;

import bios.worker.device.Draw;
import bios.worker.device.Draws;
import java.util.List;

/// The draws of a pass, as a list.
///
/// @param firstRow row of the pass that is row 0 of the logits
record HostDraws(List<Draw> draws, int firstRow) implements Draws {
    static HostDraws of(Draws draws) {
        if (draws instanceof HostDraws own) return own;
        throw new IllegalArgumentException("draws of another device");
    }

    @Override public int count() {
        return draws.size();
    }

    @Override public Draws part(int from, int count, int firstRow) {
        return new HostDraws(draws.subList(from, from + count), firstRow);
    }

    /// Row of the logits from which the i-th token is drawn.
    int row(int i) {
        return draws.get(i).row() - firstRow;
    }
}
