package bios.worker.device.cuda;

import static bios.protocol.Require.require;

import bios.worker.device.Device;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.PagePool;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;

/// Pages of keys and values: for each layer the keys `[kvHeads, BLOCK, headDim]`, then the values. The card
/// has a table of their addresses.
final class CudaPages implements PagePool {
    private static final int LEAST_TABLE = 256;

    private final Cuda cuda;
    private final Format format;
    private final int limit;
    private final List<Long> pages = new ArrayList<>();
    private long table;
    private int capacity;

    CudaPages(Cuda cuda, Format format, int limit) {
        require(limit >= 0, "a pool of %d pages", limit);
        require(format.dtype().isFloat(), "pages of %s", format.dtype());
        this.cuda = cuda;
        this.format = format;
        this.limit = limit;
    }

    static CudaPages of(PagePool pool) {
        if (pool instanceof CudaPages own) return own;
        throw new IllegalArgumentException("a page pool of another device");
    }

    @Override public Format format() {
        return format;
    }

    /// Throws unless [#growTo] has allocated the page.
    long page(int number) {
        require(number >= 0 && number < pages.size(), "page %d of %d", number, pages.size());
        return pages.get(number);
    }

    /// Address of the table of addresses.
    long table() {
        return table;
    }

    private long sideBytes() {
        return (long) format.kvHeads() * Device.BLOCK * format.headDim() * format.dtype().bytes();
    }

    /// Bytes from the beginning of a page to the keys of a layer, or to its values.
    long offset(int layer, boolean values) {
        require(layer >= 0 && layer < format.layers(), "layer %d of %d", layer, format.layers());
        return (2L * layer + (values ? 1 : 0)) * sideBytes();
    }

    @Override public long pageBytes() {
        return 2L * format.layers() * sideBytes();
    }

    @Override public void growTo(int count) {
        require(count <= limit, "%d pages of a pool of at most %d", count, limit);
        int before = pages.size();
        if (count <= before) return;
        long larger = 0;
        int room = capacity;
        try {
            if (count > capacity) {
                room = Math.max(count, Math.max(LEAST_TABLE, 2 * capacity));
                larger = cuda.memory().allocate((long) Long.BYTES * room);
            }
            while (pages.size() < count) pages.add(cuda.memory().allocate(pageBytes()));
        } catch (OutOfDeviceMemory e) {
            if (larger != 0) cuda.memory().release(larger);
            while (pages.size() > before) cuda.memory().release(pages.removeLast());
            throw e;
        }
        if (larger != 0) {
            if (table != 0) cuda.memory().release(table);
            table = larger;
            capacity = room;
            before = 0;
        }
        send(before);
    }

    /// Copies the addresses of pages from a number on to the card.
    private void send(int from) {
        long bytes = (long) Long.BYTES * (pages.size() - from);
        var block = cuda.pinned().take(bytes);
        for (int i = from; i < pages.size(); i++)
            block.setAtIndex(ValueLayout.JAVA_LONG, i - from, pages.get(i));
        cuda.driver().toDevice(table + (long) Long.BYTES * from, block.asSlice(0, bytes), cuda.compute());
        cuda.pinned().giveAfter(block, cuda.compute());
    }

    @Override public void clear() {
        pages.forEach(cuda.memory()::release);
        pages.clear();
        if (table != 0) cuda.memory().release(table);
        table = 0;
        capacity = 0;
    }

    @Override public void close() {
        clear();
    }
}
