package bios.worker.device.cuda;

import bios.worker.device.DType;
import bios.worker.device.Device.Repeated;
import bios.worker.device.Device.Scope;
import bios.worker.device.DeviceLost;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.PagePool;
import bios.worker.device.Sequences;
import bios.worker.device.Slots;
import bios.worker.device.Tensor;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.function.Consumer;
import java.util.function.Supplier;
import jcuda.driver.CUgraphExec;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Decode passes as graphs of the card, each launched by one call. The first pass of a kind is executed verb
/// by verb; so is the second, in memory that is kept for the kind; the third is captured, and from then on
/// its graph is launched. What differs between passes of a kind is data in the kept memory: tokens,
/// positions, pages and spans of the sequences, tables of the adapters' factors. What a launch takes by value
/// is the same, or part of what makes the kind.
///
/// A pass is padded with rows that belong to no sequence, up to one of a few numbers of rows ([#padded]), so
/// that sequences may come and go without another graph. Rows do not depend on each other, so those of the
/// sequences have the bits of a pass without padding.
///
/// The kernels of a graph are those of the verbs, with the same operands, so its results have the same bits.
/// The first launches of each graph are followed by the verbs themselves, and the results are compared: if a
/// bit differs, the driver has a fault, and there are no graphs any more.
final class CudaGraphs {
    /// Most rows of a pass: of more, a launch takes longer than its call.
    private static final int MOST_ROWS = 256;
    /// Rows of a pass are a power of two up to FEW_ROWS, a multiple of that up to MANY_ROWS, then a multiple
    /// of HALF of those. The kernels for few rows multiply 8, 16, 32 or 64 rows in any case.
    private static final int FEW_ROWS = 8, MANY_ROWS = 64, HALF = 32;
    /// Launches of a graph whose results are compared: the first has the data of the capture, the second has
    /// others.
    private static final int COMPARED = 2;
    private static final int MOST_GRAPHS = 48, MOST_KINDS = 512;
    /// The share of the card's memory that graphs keep at most, and what they may keep on any card.
    private static final int SHARE = 64;
    private static final long LEAST_BYTES = 64L << 20;
    private static final int LEAST_REGION = 32;
    private static final Logger log = LoggerFactory.getLogger(CudaGraphs.class);

    private record Shape(DType dtype, int rows, int columns) {}

    /// What passes have in common that one graph computes.
    private record Kind(Object what, CudaPages pages, long table, List<Shape> inputs, int rows,
            CudaSlots.Shape slots) {}

    /// A region whose data do not fit any more.
    private static final class Outgrown extends RuntimeException {
        private static final long serialVersionUID = 1;

        Outgrown() {
            super("more pages than before", null, false, false);
        }
    }

    /// The operands of a pass.
    private record Pass(List<CudaTensor> inputs, CudaSlots slots, CudaSequences sequences, Repeated verbs) {
        int rows() {
            return sequences.rows();
        }

        /// Whether an input has a row for each row of the pass, and so rows of zeros after them.
        boolean byRow(CudaTensor input) {
            return input.rows() == rows() && input.dense();
        }

        Shape shape(CudaTensor input) {
            return new Shape(input.dtype(), byRow(input) ? padded(rows()) : input.rows(), input.columns());
        }
    }

    private final Cuda cuda;
    private final Runnable flush;
    private boolean on;
    private final LinkedHashMap<Kind, Graph> known = new LinkedHashMap<>(16, 0.75f, true);
    private Thread thread;
    private boolean busy;
    private long launches;
    private long captures;

    /// @param flush launches what waits for other verbs
    /// @param on whether there are graphs
    CudaGraphs(Cuda cuda, Runnable flush, boolean on) {
        this.cuda = cuda;
        this.flush = flush;
        this.on = on;
        cuda.memory().whenFull(this::dropForMemory);
    }

    /// Launches of graphs so far.
    long launches() {
        return launches;
    }

    /// Graphs that were made so far.
    long captures() {
        return captures;
    }

    /// Bytes of the card that graphs keep.
    long bytes() {
        return known.values().stream().mapToLong(graph -> graph.memory.bytes()).sum();
    }

    /// The rows of a graph for a pass of this many.
    static int padded(int rows) {
        if (rows <= FEW_ROWS) return Integer.highestOneBit(2 * rows - 1);
        int step = rows <= MANY_ROWS ? FEW_ROWS : HALF;
        return Math.ceilDiv(rows, step) * step;
    }

    /// See [bios.worker.device.Device#repeat].
    Tensor repeat(Scope scope, Object what, List<Tensor> inputs, Slots slots, Sequences sequences,
            PagePool pool, Repeated verbs) {
        thread = Thread.currentThread();
        var own = CudaSequences.of(sequences);
        if (!on || busy || own.rows() > MOST_ROWS || !own.decodes())
            return verbs.call(scope, inputs, slots, sequences);
        var pass = new Pass(inputs.stream().map(CudaTensor::of).toList(), CudaSlots.of(slots), own, verbs);
        var pages = CudaPages.of(pool);
        pages.page(own.lastPage());
        int rows = padded(own.rows());
        var kind = new Kind(what, pages, pages.table(), pass.inputs.stream().map(pass::shape).toList(),
                rows, pass.slots.shape());
        var graph = known.get(kind);
        if (graph == null || graph.refused) {
            if (graph == null) add(kind);
            return verbs.call(scope, inputs, slots, sequences);
        }
        try {
            return runOrGrow(graph, scope, pass);
        } catch (OutOfDeviceMemory _) {
            drop();
        } catch (NoGraph failed) {
            log.warn("passes of {} rows have no graph: {}", own.rows(), failed.getMessage());
            graph.drop();
            graph.refused = true;
        }
        return verbs.call(scope, inputs, slots, sequences);
    }

    private void add(Kind kind) {
        known.put(kind, new Graph());
        if (known.size() > MOST_KINDS) {
            known.firstEntry().getValue().drop();
            known.pollFirstEntry();
        }
    }

    private Tensor runOrGrow(Graph graph, Scope scope, Pass pass) {
        try {
            return run(graph, scope, pass);
        } catch (Outgrown _) {
            graph.drop();
            return run(graph, scope, pass);
        }
    }

    private Tensor run(Graph graph, Scope scope, Pass pass) {
        busy = true;
        try {
            var output = graph.execute(pass).rows(0, pass.rows());
            // what a graph computes is there until its next launch, the result until the scope is closed
            var result = copied(output, scope);
            if (on) bound(graph);
            else drop();
            return result;
        } finally {
            busy = false;
        }
    }

    private CudaTensor copied(CudaTensor from, Scope scope) {
        var to = cuda.memory().scratch(scope, from.dtype(), from.rows(), from.columns());
        cuda.driver().onDevice(to.address(), from.address(), from.span(), cuda.compute());
        return to;
    }

    /// Drops the graphs that were used least recently until the rest is within the bounds.
    private void bound(Graph used) {
        long most = Math.max(LEAST_BYTES, cuda.memory().limit() / SHARE);
        long bytes = 0;
        int count = 0;
        for (var graph : known.sequencedValues().reversed()) {
            if (graph.memory.bytes() == 0) continue;
            bytes += graph.memory.bytes();
            if ((++count > MOST_GRAPHS || bytes > most) && graph != used) graph.drop();
        }
    }

    /// Frees all graphs and their memory.
    void drop() {
        known.values().forEach(Graph::drop);
        known.clear();
    }

    /// Whether memory was freed for an allocation that found none.
    private boolean dropForMemory() {
        if (busy || thread != Thread.currentThread()) return false;
        long before = cuda.memory().inUse();
        drop();
        return cuda.memory().inUse() < before;
    }

    /// Why a pass is not repeated by a graph.
    private static final class NoGraph extends RuntimeException {
        private static final long serialVersionUID = 1;

        NoGraph(RuntimeException cause) {
            super(cause.getMessage(), cause);
        }
    }

    private record Region(long address, long bytes) {}

    /// The graph of a kind of passes, or what is there before it.
    private final class Graph {
        private KeptMemory memory = new KeptMemory();
        private final List<Region> regions = new ArrayList<>();
        private List<CudaSequences.TileKey> tiles = List.of();
        private int next;
        private boolean rehearsed;
        private boolean refused;
        private int compared;
        private CUgraphExec program;
        private CudaTensor output;

        void drop() {
            if (program != null) cuda.driver().destroy(program);
            program = null;
            memory.addresses().forEach(cuda.memory()::release);
            memory = new KeptMemory();
            regions.clear();
            tiles = List.of();
            rehearsed = false;
            compared = 0;
        }

        /// Executes a pass with its own memory; the result, with the rows of padding, is valid until the next
        /// one.
        CudaTensor execute(Pass pass) {
            var own = kept(() -> place(pass));
            if (!rehearsed) {
                output = kept(() -> verbs(own));
                tiles = own.sequences.tileKeys();
                memory.seal();
                rehearsed = true;
                return output;
            }
            if (program == null) output = kept(() -> capture(own));
            cuda.driver().launch(program, cuda.compute());
            launches++;
            return compared < COMPARED ? compared(own, pass.rows()) : output;
        }

        /// Does `work`, whose memory is that of this graph.
        private <T> T kept(Supplier<T> work) {
            cuda.memory().keep(memory);
            try {
                return work.get();
            } finally {
                cuda.memory().keep(null);
            }
        }

        /// The pass with its data in the regions.
        private Pass place(Pass pass) {
            next = 0;
            List<CudaTensor> inputs = new ArrayList<>();
            for (var input : pass.inputs) inputs.add(pass.byRow(input) ? padded(input)
                    : new CudaTensor(copy(input.address(), input.span()), input.dtype(), input.rows(),
                            input.columns(), input.stride()));
            var slots = pass.slots.paddedAt(copy(pass.slots.address(), pass.slots.bytes()));
            var sequences = pass.sequences.padded(CudaGraphs.padded(pass.rows()), this::upload);
            for (var key : tiles) sequences.tiles(key);
            return new Pass(inputs, slots, sequences, pass.verbs);
        }

        /// An input with rows of zeros after its own.
        private CudaTensor padded(CudaTensor input) {
            int rows = CudaGraphs.padded(input.rows());
            long own = input.span();
            long all = (long) rows * input.columns() * input.dtype().bytes();
            long to = region(all);
            if (own > 0) cuda.driver().onDevice(to, input.address(), own, cuda.compute());
            if (all > own) cuda.driver().zero(to + own, all - own, cuda.compute());
            return new CudaTensor(to, input.dtype(), rows, input.columns(), input.columns());
        }

        /// Executes a pass that was launched as a graph verb by verb, after it, and compares the rows of the
        /// sequences. The result is that of the verbs, and so is what is appended to pages.
        private CudaTensor compared(Pass own, int rows) {
            compared++;
            try (var scope = cuda.memory().scope()) {
                var launched = copied(output.rows(0, rows), scope);
                var result = kept(() -> verbs(own));
                var different = new DifferentBits(cuda, scope);
                different.add(launched, result.rows(0, rows));
                long words = different.read();
                if (words == 0) return result;
                on = false;
                log.warn("a graph of passes of {} rows gives {} of {} numbers with other bits than its"
                        + " kernels one by one, a fault of the driver: from now on, all kernels are launched"
                        + " one by one", rows, words, launched.elements());
                return result;
            }
        }

        /// Captures a pass; its result is there after each launch.
        private CudaTensor capture(Pass own) {
            try {
                var captured = cuda.computing().capture(() -> verbs(own));
                program = captured.graph();
                captures++;
                return captured.result();
            } catch (DeviceLost | OutOfDeviceMemory failed) {
                throw failed;
            } catch (RuntimeException failed) {
                throw new NoGraph(failed);
            }
        }

        private CudaTensor verbs(Pass own) {
            try (var scope = cuda.memory().scope()) {
                var result = CudaTensor.of(own.verbs.call(scope, List.copyOf(own.inputs), own.slots,
                        own.sequences));
                flush.run();
                return result;
            }
        }

        /// The address of the next region of data, which has the same address in every pass.
        private long region(long bytes) {
            if (next == regions.size()) {
                if (rehearsed) throw new IllegalStateException("a repeated pass has other data than before");
                long room = Math.max(LEAST_REGION, Long.highestOneBit(2 * Math.max(1, bytes) - 1));
                regions.add(new Region(cuda.memory().allocate(room), room));
            }
            var region = regions.get(next++);
            if (bytes > region.bytes) throw new Outgrown();
            return region.address;
        }

        private long copy(long from, long bytes) {
            long to = region(bytes);
            if (bytes > 0) cuda.driver().onDevice(to, from, bytes, cuda.compute());
            return to;
        }

        private long upload(long bytes, Consumer<MemorySegment> fill) {
            if (cuda.computing().capturing())
                throw new IllegalStateException("a repeated pass uploads data that it did not before");
            long to = region(bytes);
            if (bytes == 0) return to;
            var block = cuda.pinned().take(bytes);
            fill.accept(block);
            cuda.driver().toDevice(to, block.asSlice(0, bytes), cuda.compute());
            cuda.pinned().giveAfter(block, cuda.compute());
            return to;
        }
    }
}
