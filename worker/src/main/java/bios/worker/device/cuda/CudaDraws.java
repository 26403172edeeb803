package bios.worker.device.cuda;

import static bios.protocol.Require.require;
import static java.lang.foreign.ValueLayout.JAVA_DOUBLE;
import static java.lang.foreign.ValueLayout.JAVA_INT;

import bios.worker.device.Device.Scope;
import bios.worker.device.Draw;
import bios.worker.device.Draws;
import bios.worker.kernel.Sampling;
import java.lang.foreign.MemorySegment;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/// The draws of a pass, and an array of `struct Draw` of sampling.cu on the card. Views share it.
final class CudaDraws implements Draws {
    private static final int ENTRY_BYTES = 40;

    /// What a scaled copy of a row is made of.
    private record Copy(int row, double temperature) {}

    private final List<Draw> all;
    /// The number of each draw's scaled copy of its row; -1 for none.
    private final int[] copies;
    private final long table;
    private final int from;
    private final int count;
    private final int firstRow;

    private CudaDraws(List<Draw> all, int[] copies, long table, int from, int count, int firstRow) {
        this.all = all;
        this.copies = copies;
        this.table = table;
        this.from = from;
        this.count = count;
        this.firstRow = firstRow;
    }

    /// The draws of a pass, uploaded.
    static CudaDraws of(List<Draw> given, CudaTransfers transfers, Scope scope) {
        var all = List.copyOf(given);
        int[] copies = new int[all.size()];
        Map<Copy, Integer> numbers = new HashMap<>();
        for (int i = 0; i < copies.length; i++) {
            var draw = all.get(i);
            copies[i] = Sampling.unscaled(draw.temperature()) ? -1
                    : numbers.computeIfAbsent(new Copy(draw.row(), draw.temperature()), _ -> numbers.size());
        }
        long table = transfers.upload(scope, (long) ENTRY_BYTES * all.size(), to -> {
            for (int i = 0; i < copies.length; i++)
                write(to, (long) ENTRY_BYTES * i, all.get(i), copies[i]);
        });
        return new CudaDraws(all, copies, table, 0, all.size(), 0);
    }

    private static void write(MemorySegment to, long at, Draw draw, int copy) {
        to.set(JAVA_DOUBLE, at, draw.temperature());
        to.set(JAVA_DOUBLE, at + 8, draw.topP());
        to.set(JAVA_DOUBLE, at + 16, Sampling.uniform(draw.seed(), draw.sample(), draw.token()));
        to.set(JAVA_INT, at + 24, draw.row());
        to.set(JAVA_INT, at + 28, draw.topK());
        to.set(JAVA_INT, at + 32, copy);
        to.set(JAVA_INT, at + 36, Sampling.simple(draw) ? 1 : 0);
    }

    static CudaDraws of(Draws draws) {
        if (draws instanceof CudaDraws own) return own;
        throw new IllegalArgumentException("draws of another device");
    }

    /// Throws unless all rows are among the first `rows` after the view's first.
    void requireRows(int rows) {
        for (var draw : all.subList(from, from + count))
            require(draw.row() >= firstRow && draw.row() - firstRow < rows, "a draw from row %d of %d",
                    draw.row() - firstRow, rows);
    }

    /// Address of the first entry of this view.
    long address() {
        return table + (long) ENTRY_BYTES * from;
    }

    /// Row of the pass that is row 0 of the logits.
    int firstRow() {
        return firstRow;
    }

    /// The lowest number of a copy of this view; 0 if there is none.
    int firstCopy() {
        int first = Integer.MAX_VALUE;
        for (int i = from; i < from + count; i++) if (copies[i] >= 0) first = Math.min(first, copies[i]);
        return first == Integer.MAX_VALUE ? 0 : first;
    }

    /// Numbers of copies from the first to the last of this view.
    int copies() {
        int last = -1;
        for (int i = from; i < from + count; i++) last = Math.max(last, copies[i]);
        return last < 0 ? 0 : last + 1 - firstCopy();
    }

    /// Whether a draw reads one block of logits.
    boolean anySimple() {
        return all.subList(from, from + count).stream().anyMatch(Sampling::simple);
    }

    @Override public int count() {
        return count;
    }

    @Override public CudaDraws part(int first, int some, int row) {
        require(first >= 0 && some >= 0 && first + some <= count, "draws %d+%d of %d", first, some, count);
        return new CudaDraws(all, copies, table, from + first, some, row);
    }
}
