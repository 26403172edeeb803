package bios.worker.model;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.PagePool;
import bios.worker.load.ModelSpec;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.List;
import java.util.Optional;

/// Tracks which pages of a [PagePool] are in use, for the KV caches of all decoding sequences. A page
/// contains [Device#BLOCK] positions of every layer. Sequences with the same beginning may share it. Memory
/// is allocated when a page number is first taken and kept for the next sequence, until [#releaseUnused].
///
/// Used by the thread that calls the device's verbs.
public final class KeyValuePages implements AutoCloseable {
    private final Device device;
    private final PagePool pool;
    private final int limit;
    private final Deque<Integer> idle = new ArrayDeque<>();
    private int[] users = new int[0];
    private int allocated;
    private Optional<OutOfDeviceMemory> shortage = Optional.empty();

    /// @param limit the most pages in use at once
    /// @param dtype of cached keys and values
    public KeyValuePages(ModelSpec model, Device device, int limit, DType dtype) {
        this.device = device;
        this.limit = limit;
        this.pool = device.pagePool(format(model, dtype), limit);
    }

    private static PagePool.Format format(ModelSpec model, DType dtype) {
        int kvHeads = model.keyColumns() / model.headDim();
        return new PagePool.Format(model.layers(), kvHeads, model.headDim(), dtype);
    }

    /// Bytes of one page.
    public static long pageBytes(ModelSpec model, DType dtype) {
        return (long) dtype.bytes() * 2 * model.layers() * Device.BLOCK * model.keyColumns();
    }

    /// An empty cache for one sequence; has no page yet.
    public KeyValueCache open() {
        return new KeyValueCache(this);
    }

    /// Pages that sequences can still take, if the device has memory for them.
    public int free() {
        return limit - allocated + idle.size();
    }

    /// The most pages in use at once.
    public int limit() {
        return limit;
    }

    /// The reason why the last [KeyValueCache#reserve] or [KeyValueCache#fork] failed: present if the device
    /// had no memory, empty if the limit was reached.
    public Optional<OutOfDeviceMemory> shortage() {
        return shortage;
    }

    /// The pages themselves.
    PagePool pool() {
        return pool;
    }

    Device device() {
        return device;
    }

    /// Assigns pages with one user each; empty if there are too few, and then none is assigned.
    Optional<List<Integer>> take(int count) {
        shortage = Optional.empty();
        if (count > free()) return Optional.empty();
        int missing = count - idle.size();
        if (missing > 0) try {
            pool.growTo(allocated + missing);
        } catch (OutOfDeviceMemory e) {
            shortage = Optional.of(e);
            return Optional.empty();
        }
        for (int i = 0; i < missing; i++) idle.addLast(allocated++);
        if (allocated > users.length) users = Arrays.copyOf(users, Math.max(allocated, 2 * users.length));
        List<Integer> pages = new ArrayList<>();
        for (int i = 0; i < count; i++) pages.add(idle.removeFirst());
        for (int page : pages) users[page] = 1;
        return Optional.of(pages);
    }

    /// One more sequence uses the page, idle or not.
    void use(int page) {
        if (users[page]++ > 0) return;
        require(idle.remove((Integer) page), "page %d is neither used nor idle", page);
    }

    void release(int page) {
        require(users[page] > 0, "page %d was released twice", page);
        if (--users[page] == 0) idle.addFirst(page);
    }

    /// Frees the memory of all pages, if none is in use.
    public void releaseUnused() {
        if (allocated == 0 || idle.size() < allocated) return;
        pool.clear();
        idle.clear();
        allocated = 0;
    }

    @Override public void close() {
        pool.close();
    }
}
