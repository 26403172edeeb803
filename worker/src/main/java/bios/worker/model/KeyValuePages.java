package bios.worker.model;

import static bios.protocol.Require.require;

import bios.worker.device.Device;
import bios.worker.device.Span;
import bios.worker.device.Tensor;
import bios.worker.load.ModelSpec;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Optional;

/// The pages that keep the keys and values of decoding sequences, a bounded number. A page holds [Span#BLOCK]
/// positions of all layers. Memory is taken when a page is first needed and kept for the next sequence.
///
/// Used by the thread that owns the device, like all of a model.
public final class KeyValuePages implements AutoCloseable {
    private final ModelSpec model;
    private final Device on;
    private final int limit;
    private final Deque<Page> idle = new ArrayDeque<>();
    private final List<Page> all = new ArrayList<>();

    /// @param limit the most pages held at once
    public KeyValuePages(ModelSpec model, Device on, int limit) {
        this.model = model;
        this.on = on;
        this.limit = limit;
    }

    /// Bytes of one page.
    public static long pageBytes(ModelSpec model) {
        return 4L * 2 * model.layers() * Span.BLOCK * model.keyColumns();
    }

    /// An empty cache for one sequence; takes no page yet.
    public KeyValueCache open() {
        return new KeyValueCache(this);
    }

    /// Pages that sequences can still take.
    public int free() {
        return limit - all.size() + idle.size();
    }

    /// The most pages held at once.
    public int limit() {
        return limit;
    }

    /// A page with one user, or empty when all are in use.
    Optional<Page> take() {
        Page page = idle.poll();
        if (page == null) {
            if (all.size() == limit) return Optional.empty();
            page = new Page(on.tensor(2 * model.layers() * rows(), model.headDim()), rows());
            all.add(page);
        }
        page.users = 1;
        return Optional.of(page);
    }

    /// Of the keys or values of one layer: those of a head lie together, because a query reads them so.
    private int rows() {
        return model.keyColumns() / model.headDim() * Span.BLOCK;
    }

    void release(Page page) {
        require(page.users > 0, "a page was released twice");
        if (--page.users == 0) idle.push(page);
    }

    Device on() {
        return on;
    }

    @Override public void close() {
        all.forEach(page -> on.free(page.memory));
        all.clear();
        idle.clear();
    }

    /// Keys and values of [Span#BLOCK] positions, shared by the sequences that have
    /// these positions in common.
    static final class Page {
        private final Tensor memory;
        private final int rows;
        private int users;

        private Page(Tensor memory, int rows) {
            this.memory = memory;
            this.rows = rows;
        }

        Tensor memory() {
            return memory;
        }

        void share() {
            users++;
        }

        /// `[kvHeads·BLOCK, headDim]`
        Tensor keys(int layer) {
            return memory.rows(2 * layer * rows, rows);
        }

        Tensor values(int layer) {
            return memory.rows((2 * layer + 1) * rows, rows);
        }
    }
}
