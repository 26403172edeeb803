package bios.worker.device.cuda;

import static bios.protocol.Require.require;
import static java.lang.foreign.ValueLayout.JAVA_INT;

import bios.worker.device.Device;
import bios.worker.device.Device.Scope;
import bios.worker.device.Sequence;
import bios.worker.device.Sequences;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;

/// The sequences of a pass, and on the card their spans, the block table and lists of tiles: the structs of
/// spans.cuh. A list of tiles is uploaded when it is first used.
final class CudaSequences implements Sequences {
    private static final int SPAN_BYTES = 16;
    private static final int TILE_BYTES = 8;
    /// The span of a row that pads a pass, for `append_pages`.
    private static final int NO_SPAN = -1;

    /// Tiles of this many queries, each a position and one of `group` heads, or of keys.
    record TileKey(int size, int group, boolean ofKeys) {}

    /// A list of tiles on the card.
    record Tiles(long address, int count) {}

    /// @param work positions that it is computed with
    private record Tile(int span, int first, int work) {}

    private final List<Sequence> sequences;
    private final int rows;
    /// Rows that are of a sequence; the others pad a pass.
    private final int real;
    private final int lastPage;
    private final boolean packed;
    private final long spans;
    private final long rowSpans;
    private final long blockTable;
    private final Uploads uploads;
    private final Map<TileKey, Tiles> tiles = new LinkedHashMap<>();

    /// Gives the address of what `fill` writes.
    @FunctionalInterface interface Uploads {
        long upload(long bytes, Consumer<MemorySegment> fill);
    }

    /// The sequences of a pass, uploaded.
    CudaSequences(List<Sequence> given, CudaTransfers transfers, Scope scope) {
        this(given, Integer.MAX_VALUE, (bytes, fill) -> transfers.upload(scope, bytes, fill));
    }

    private CudaSequences(List<Sequence> given, int real, Uploads uploads) {
        int end = 0;
        int pages = 0;
        int last = -1;
        boolean whole = true;
        for (var s : given) {
            require(s.row() == end && s.count() >= 1, "sequence of rows %d+%d after row %d", s.row(),
                    s.count(), end);
            require(s.pages().length == 0 ? s.position() == 0 : s.position() >= 0 && s.position() + s.count()
                    <= (long) Device.BLOCK * s.pages().length, "%d pages for positions %d+%d",
                    s.pages().length, s.position(), s.count());
            end += s.count();
            int used = used(s);
            for (int i = 0; i < used; i++) {
                require(s.pages()[i] >= 0, "page %d", s.pages()[i]);
                last = Math.max(last, s.pages()[i]);
            }
            pages += used;
            whole &= s.position() == 0;
        }
        sequences = List.copyOf(given);
        rows = end;
        lastPage = last;
        packed = whole;
        this.real = Math.min(real, rows);
        this.uploads = uploads;
        spans = uploads.upload((long) SPAN_BYTES * sequences.size() + 4L * (pages + rows), this::write);
        rowSpans = spans + (long) SPAN_BYTES * sequences.size();
        blockTable = rowSpans + 4L * rows;
    }

    /// Sequences of one row each, and rows after them up to `all`, for which nothing is appended to pages:
    /// they attend to the first position of the first sequence.
    ///
    /// @param uploads where the data go
    CudaSequences padded(int all, Uploads uploads) {
        var padded = new ArrayList<>(sequences);
        int[] page = {sequences.getFirst().pages()[0]};
        for (int row = rows; row < all; row++) padded.add(new Sequence(row, 1, 0, page));
        return new CudaSequences(padded, rows, uploads);
    }

    /// Whether each sequence is one row and has pages.
    boolean decodes() {
        return rows > 0 && rows == sequences.size() && lastPage >= 0
                && sequences.stream().allMatch(s -> s.pages().length > 0);
    }

    /// Pages that contain a sequence's positions.
    private static int used(Sequence s) {
        return s.pages().length == 0 ? 0 : Math.ceilDiv(s.position() + s.count(), Device.BLOCK);
    }

    private void write(MemorySegment to) {
        long ofRows = (long) SPAN_BYTES * sequences.size();
        long table = ofRows + 4L * rows;
        int pages = 0;
        for (int i = 0; i < sequences.size(); i++) {
            var s = sequences.get(i);
            long at = (long) SPAN_BYTES * i;
            to.set(JAVA_INT, at, s.row());
            to.set(JAVA_INT, at + 4, s.count());
            to.set(JAVA_INT, at + 8, s.position());
            to.set(JAVA_INT, at + 12, s.pages().length == 0 ? -1 : pages);
            for (int p = 0; p < used(s); p++) to.set(JAVA_INT, table + 4L * pages++, s.pages()[p]);
            for (int row = s.row(); row < s.row() + s.count(); row++)
                to.set(JAVA_INT, ofRows + 4L * row, row < real ? i : NO_SPAN);
        }
    }

    static CudaSequences of(Sequences sequences) {
        if (sequences instanceof CudaSequences own) return own;
        throw new IllegalArgumentException("sequences of another device");
    }

    /// Address of the spans.
    long spans() {
        return spans;
    }

    /// Address of the numbers of pages of all sequences.
    long blockTable() {
        return blockTable;
    }

    /// Address of the number of the span of each row.
    long rowSpans() {
        return rowSpans;
    }

    /// The largest number of a page; -1 without pages.
    int lastPage() {
        return lastPage;
    }

    /// Throws if a sequence has pages, or does not.
    void requirePages(boolean pages) {
        for (var s : sequences)
            require(pages == s.pages().length > 0,
                    pages ? "a sequence without pages" : "a sequence of pages");
    }

    /// Throws unless all sequences are whole.
    void requireWhole() {
        require(packed, "packed keys from a later position");
    }

    /// Tiles of this many queries of each sequence, those with the most keys first.
    ///
    /// @param group heads of a position
    Tiles tiles(int queries, int group) {
        return tiles(new TileKey(queries, group, false));
    }

    /// Tiles of this many keys of each whole sequence, those with the most queries first.
    Tiles tilesOfKeys(int keys) {
        return tiles(new TileKey(keys, 1, true));
    }

    /// The lists of tiles that were used.
    List<TileKey> tileKeys() {
        return List.copyOf(tiles.keySet());
    }

    /// A list of tiles.
    Tiles tiles(TileKey wanted) {
        return tiles.computeIfAbsent(wanted, key -> {
            var all = new ArrayList<Tile>();
            for (int i = 0; i < sequences.size(); i++) {
                var s = sequences.get(i);
                for (int at = 0; at < s.count() * key.group; at += key.size)
                    all.add(new Tile(i, at, key.ofKeys ? s.count() - at : s.position() + at / key.group));
            }
            all.sort(Comparator.comparingInt(Tile::work).reversed());
            long address = uploads.upload((long) TILE_BYTES * all.size(), to -> {
                for (int i = 0; i < all.size(); i++) {
                    to.set(JAVA_INT, (long) TILE_BYTES * i, all.get(i).span);
                    to.set(JAVA_INT, (long) TILE_BYTES * i + 4, all.get(i).first);
                }
            });
            return new Tiles(address, all.size());
        });
    }

    @Override public List<Sequence> sequences() {
        return sequences;
    }

    @Override public int rows() {
        return rows;
    }
}
