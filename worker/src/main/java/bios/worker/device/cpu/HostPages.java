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
    private final Shape shape;
    private final int limit;
    private final List<Page> pages = new ArrayList<>();

    /// The memory of a page, and for each layer the views `[kvHeads·BLOCK, headDim]` that attention reads.
    record Page(HostTensor memory, List<HostTensor> keys, List<HostTensor> values) {}

    HostPages(Memory memory, Shape shape, int limit) {
        require(limit >= 0, "a pool of %d pages", limit);
        require(shape.dtype().isFloat(), "pages of %s", shape.dtype());
        this.memory = memory;
        this.shape = shape;
        this.limit = limit;
    }

    static HostPages of(PagePool pool) {
        if (pool instanceof HostPages own) return own;
        throw new IllegalArgumentException("a page pool of another device");
    }

    @Override public Shape shape() {
        return shape;
    }

    /// A page that [#reserve] has allocated.
    Page page(int number) {
        require(number >= 0 && number < pages.size(), "page %d of %d", number, pages.size());
        return pages.get(number);
    }

    private int rows() {
        return Math.multiplyExact(shape.kvHeads(), Device.BLOCK);
    }

    @Override public long pageBytes() {
        return 2L * shape.layers() * rows() * shape.headDim() * shape.dtype().bytes();
    }

    @Override public void reserve(int count) {
        require(count <= limit, "%d pages of a pool of at most %d", count, limit);
        if (count <= pages.size()) return;
        for (var tensor : memory.tensors(shape.dtype(), count - pages.size(),
                Math.multiplyExact(2 * shape.layers(), rows()), shape.headDim()))
            pages.add(new Page(tensor, views(tensor, 0), views(tensor, 1)));
    }

    private List<HostTensor> views(HostTensor page, int first) {
        var views = new ArrayList<HostTensor>();
        for (int layer = 0; layer < shape.layers(); layer++)
            views.add(page.rows((2 * layer + first) * rows(), rows()));
        return views;
    }

    @Override public void close() {
        pages.forEach(page -> memory.release(page.memory));
        pages.clear();
    }
}
