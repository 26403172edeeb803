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
import jcuda.driver.CUgraphExec;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Decode passes as graphs of the card, each launched by one call. The first pass of a kind is executed verb
/// by verb; so is the second, in memory that is kept for the kind; the third is captured, and from then on
/// its graph is launched. What differs between passes of a kind is data in the kept memory: tokens,
/// positions, pages and spans of the sequences, tables of the adapters' factors. What a launch takes by value
/// is the same, or part of what makes the kind.
///
/// The kernels of a graph are those of the verbs, with the same operands, so its results have the same bits.
final class CudaGraphs {
    /// Most rows of a pass: of more, a launch takes longer than its call.
    private static final int MOST_ROWS = 256;
    private static final int MOST_GRAPHS = 48, MOST_KINDS = 512;
    /// The share of the card's memory that graphs keep at most, and what they may keep on any card.
    private static final int SHARE = 64;
    private static final long LEAST_BYTES = 64L << 20;
    private static final int LEAST_REGION = 32;
    private static final Logger log = LoggerFactory.getLogger(CudaGraphs.class);

    private record Shape(DType dtype, int rows, int columns) {
        static Shape of(CudaTensor t) {
            return new Shape(t.dtype(), t.rows(), t.columns());
        }
    }

    /// What passes have in common that one graph computes.
    private record Kind(Object what, CudaPages pages, long table, List<Shape> inputs, int sequences,
            CudaSlots.Shape slots) {}

    /// A region whose data do not fit any more.
    private static final class Outgrown extends RuntimeException {
        private static final long serialVersionUID = 1;

        Outgrown() {
            super("more pages than before", null, false, false);
        }
    }

    /// The operands of a pass.
    private record Pass(List<CudaTensor> inputs, CudaSlots slots, CudaSequences sequences, Repeated verbs) {}

    private final Cuda cuda;
    private final Runnable flush;
    private final boolean on;
    private final LinkedHashMap<Kind, Graph> known = new LinkedHashMap<>(16, 0.75f, true);
    private Thread thread;
    private boolean busy;
    private long launches;

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
        var kind = new Kind(what, pages, pages.table(), pass.inputs.stream().map(Shape::of).toList(),
                own.sequences().size(), pass.slots.shape(own.rows()));
        var graph = known.get(kind);
        if (graph == null || graph.refused) {
            if (graph == null) add(kind);
            return verbs.call(scope, inputs, slots, sequences);
        }
        try {
            return run(graph, scope, pass);
        } catch (Outgrown _) {
            graph.drop();
            return run(graph, scope, pass);
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

    private Tensor run(Graph graph, Scope scope, Pass pass) {
        busy = true;
        try {
            var output = graph.execute(pass);
            // what a graph computes is there until its next launch, the result until the scope is closed
            var result = cuda.memory().scratch(scope, output.dtype(), output.rows(), output.columns());
            cuda.driver().onDevice(result.address(), output.address(), output.span(), cuda.compute());
            bound(graph);
            return result;
        } finally {
            busy = false;
        }
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
        }

        /// Executes a pass with its own memory; the result is valid until the next one.
        CudaTensor execute(Pass pass) {
            cuda.memory().keep(memory);
            try {
                return run(pass);
            } finally {
                cuda.memory().keep(null);
            }
        }

        private CudaTensor run(Pass pass) {
            next = 0;
            List<Tensor> inputs = new ArrayList<>();
            for (var input : pass.inputs) inputs.add(new CudaTensor(copy(input.address(), input.span()),
                    input.dtype(), input.rows(), input.columns(), input.stride()));
            var slots = pass.slots.at(copy(pass.slots.address(), pass.slots.bytes()));
            var sequences = pass.sequences.at(copy(pass.sequences.spans(), pass.sequences.bytes()),
                    this::upload);
            for (var key : tiles) sequences.tiles(key);
            if (!rehearsed) {
                output = verbs(pass, inputs, slots, sequences);
                tiles = sequences.tileKeys();
                memory.seal();
                rehearsed = true;
                return output;
            }
            if (program == null) capture(pass, inputs, slots, sequences);
            cuda.driver().launch(program, cuda.compute());
            launches++;
            return output;
        }

        private void capture(Pass pass, List<Tensor> inputs, CudaSlots slots, CudaSequences sequences) {
            try {
                var captured = cuda.computing().capture(() -> verbs(pass, inputs, slots, sequences));
                program = captured.graph();
                output = captured.result();
            } catch (DeviceLost | OutOfDeviceMemory failed) {
                throw failed;
            } catch (RuntimeException failed) {
                throw new NoGraph(failed);
            }
        }

        private CudaTensor verbs(Pass pass, List<Tensor> inputs, CudaSlots slots, CudaSequences sequences) {
            try (var scope = cuda.memory().scope()) {
                var result = CudaTensor.of(pass.verbs.call(scope, inputs, slots, sequences));
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
