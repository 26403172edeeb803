package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.Device;
import bios.worker.device.PagePool;
import java.util.ArrayList;
import java.util.List;

/// Pages of keys and values, each a tensor `[2·layers·kvHeads·BLOCK, headDim]`: for each layer the keys, then
/// the values, head by head, because a query reads all positions of one head.
final class HostPages implements PagePool {
    private final Memory memory;
    private final Format format;
    private final int limit;
    private final List<Page> pages = new ArrayList<>();

    /// The memory of a page, and for each layer the views `[kvHeads·BLOCK, headDim]` that attention reads.
    record Page(HostTensor memory, List<HostTensor> keys, List<HostTensor> values) {}

    HostPages(Memory memory, Format format, int limit) {
        require(limit >= 0, "a pool of %d pages", limit);
        require(format.dtype().isFloat(), "pages of %s", format.dtype());
        this.memory = memory;
        this.format = format;
        this.limit = limit;
    }

    static HostPages of(PagePool pool) {
        if (pool instanceof HostPages own) return own;
        throw new IllegalArgumentException("a page pool of another device");
    }

    @Override public Format format() {
        return format;
    }

    /// A page that [#growTo] has allocated.
    Page page(int number) {
        require(number >= 0 && number < pages.size(), "page %d of %d", number, pages.size());
        return pages.get(number);
    }

    private int rows() {
        return Math.multiplyExact(format.kvHeads(), Device.BLOCK);
    }

    @Override public long pageBytes() {
        return 2L * format.layers() * rows() * format.headDim() * format.dtype().bytes();
    }

    @Override public void growTo(int count) {
        require(count <= limit, "%d pages of a pool of at most %d", count, limit);
        if (count <= pages.size()) return;
        for (var tensor : memory.tensors(format.dtype(), count - pages.size(),
                Math.multiplyExact(2 * format.layers(), rows()), format.headDim()))
            pages.add(new Page(tensor, views(tensor, 0), views(tensor, 1)));
    }

    private List<HostTensor> views(HostTensor page, int first) {
        var views = new ArrayList<HostTensor>();
        for (int layer = 0; layer < format.layers(); layer++)
            views.add(page.rows((2 * layer + first) * rows(), rows()));
        return views;
    }

    @Override public void clear() {
        pages.forEach(page -> memory.release(page.memory));
        pages.clear();
    }

    @Override public void close() {
        clear();
    }
}
