package bios.worker.device.cpu;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/// The compiled products and reorders of a device, cached by shape, because compiling one takes milliseconds.
/// The device thread compiles them; any thread of the pool runs them.
final class DnnlKernels implements AutoCloseable {
    /// Most kernels in the cache; more are needed only with very many different shapes of adapters.
    private static final int KEPT = 1024;
    /// The number of rows that the packed form of a right factor is chosen for.
    private static final int USUAL_ROWS = 128;

    /// A product `[rows, depth]·[depth, width]`, with the row strides of src and dst.
    private record ProductKey(int type, int rows, int depth, int width, int srcStride, int dstStride,
            boolean add) {}

    private record PlainKey(int rows, int depth, int width, int rightStride, int dstStride,
            boolean transposed, boolean add) {}

    private record PackKey(int type, int depth, int width, long rowStride, long columnStride) {}

    private record RoundKey(int rows, int columns, int srcStride, int dstStride) {}

    private record FormKey(int type, int depth, int width) {}

    /// The packed form of a right factor `[depth, width]`.
    record Form(MemorySegment descriptor, long bytes) {}

    private final Dnnl dnnl;
    private final int threads;
    private final NativeBuffer[] scratchpads;
    private final Map<FormKey, Form> forms = new HashMap<>();
    private final Map<Record, Kernel> kernels = new LinkedHashMap<>(64, 0.75f, true);

    DnnlKernels(Dnnl dnnl, int threads, Memory memory) {
        this.dnnl = dnnl;
        this.threads = threads;
        scratchpads = NativeBuffer.each(threads, memory);
    }

    /// One compiled operation, with memory objects for each thread of the pool.
    final class Kernel implements AutoCloseable {
        private final Dnnl.Primitive primitive;
        private final boolean product;
        private final MemorySegment[] descriptors;
        private final MemorySegment scratchpad;
        private final long scratchpadBytes;
        private final long dstBytes;
        private final Binding[] bindings = new Binding[threads];

        private Kernel(Dnnl.Primitive primitive, boolean product, MemorySegment... descriptors) {
            this.primitive = primitive;
            this.product = product;
            this.descriptors = descriptors;
            scratchpad = primitive.scratchpad();
            scratchpadBytes = dnnl.size(scratchpad);
            dstBytes = (dnnl.size(descriptors[1]) + 63) / 64 * 64;
        }

        /// dst ← src·weights; a reorder has no weights.
        void run(int thread, MemorySegment src, MemorySegment weights, MemorySegment dst) {
            if (bindings[thread] == null) bindings[thread] = new Binding(this);
            bindings[thread].run(scratchpads[thread].atLeast(scratchpadBytes), src, weights, dst);
        }

        /// Bytes of its result, rounded up to a multiple of 64.
        long dstBytes() {
            return dstBytes;
        }

        String implementation() {
            return primitive.implementation();
        }

        @Override public void close() {
            for (var binding : bindings) if (binding != null) binding.close();
            primitive.close();
            for (var descriptor : descriptors) dnnl.destroyDescriptor(descriptor);
        }
    }

    /// Memory objects and the argument list of one kernel for one thread.
    private final class Binding implements AutoCloseable {
        private static final int PAIR = 16;

        private final Kernel kernel;
        private final Arena arena = Arena.ofShared();
        private final MemorySegment arguments = arena.allocate(4 * PAIR, 8);
        private final MemorySegment src;
        private final MemorySegment dst;
        private final MemorySegment scratchpad;
        private final MemorySegment weights;

        Binding(Kernel kernel) {
            this.kernel = kernel;
            src = argument(0, Dnnl.ARG_SRC, kernel.descriptors[0]);
            dst = argument(1, Dnnl.ARG_DST, kernel.descriptors[1]);
            scratchpad = argument(2, Dnnl.ARG_SCRATCHPAD, kernel.scratchpad);
            weights = kernel.product ? argument(3, Dnnl.ARG_WEIGHTS, kernel.descriptors[2]) : null;
        }

        private MemorySegment argument(int i, int name, MemorySegment descriptor) {
            var memory = dnnl.memory(descriptor);
            arguments.set(ValueLayout.JAVA_INT, (long) i * PAIR, name);
            arguments.set(ValueLayout.ADDRESS, (long) i * PAIR + 8, memory);
            return memory;
        }

        void run(MemorySegment scratch, MemorySegment from, MemorySegment right, MemorySegment to) {
            dnnl.point(src, from);
            dnnl.point(dst, to);
            dnnl.point(scratchpad, scratch);
            if (kernel.product) dnnl.point(weights, right);
            kernel.primitive.execute(kernel.product ? 4 : 3, arguments);
        }

        @Override public void close() {
            dnnl.destroyMemory(src);
            dnnl.destroyMemory(dst);
            dnnl.destroyMemory(scratchpad);
            if (weights != null) dnnl.destroyMemory(weights);
            arena.close();
        }
    }

    /// The packed form of a right factor.
    Form form(int type, int depth, int width) {
        return forms.computeIfAbsent(new FormKey(type, depth, width), _ -> {
            dnnl.enter();
            var src = dnnl.strided(type, USUAL_ROWS, depth, depth, 1);
            var right = dnnl.any(type, depth, width);
            var dst = dnnl.strided(Dnnl.F32, USUAL_ROWS, width, width, 1);
            try (var primitive = dnnl.matmul(src, right, dst, false)) {
                var descriptor = primitive.weights();
                return new Form(descriptor, dnnl.size(descriptor));
            } finally {
                for (var d : List.of(src, right, dst)) dnnl.destroyDescriptor(d);
            }
        });
    }

    /// dst ← (or +=) src·weights with packed weights.
    Kernel product(int type, int rows, int depth, int width, int srcStride, int dstStride, boolean add) {
        var key = new ProductKey(type, rows, depth, width, srcStride, dstStride, add);
        var kernel = kernels.get(key);
        if (kernel != null) return kernel;
        var form = form(type, depth, width);
        dnnl.enter();
        var src = dnnl.strided(type, rows, depth, srcStride, 1);
        var dst = dnnl.strided(Dnnl.F32, rows, width, dstStride, 1);
        var primitive = dnnl.matmul(src, form.descriptor, dst, add);
        return keep(key, new Kernel(primitive, true, src, dst, primitive.weights()));
    }

    /// dst ← (or +=) src·weights in fp32 with row-major weights, and src `[rows, depth]` dense, or the
    /// transpose of a dense `[depth, rows]`.
    Kernel plainProduct(int rows, int depth, int width, int rightStride, int dstStride, boolean transposed,
            boolean add) {
        var key = new PlainKey(rows, depth, width, rightStride, dstStride, transposed, add);
        var kernel = kernels.get(key);
        if (kernel != null) return kernel;
        dnnl.enter();
        var src = dnnl.strided(Dnnl.F32, rows, depth, transposed ? 1 : depth, transposed ? rows : 1);
        var right = dnnl.strided(Dnnl.F32, depth, width, rightStride, 1);
        var dst = dnnl.strided(Dnnl.F32, rows, width, dstStride, 1);
        return keep(key, new Kernel(dnnl.matmul(src, right, dst, add), true, src, dst, right));
    }

    /// Packs a right factor whose element (k, n) is at k·rowStride + n·columnStride.
    Kernel pack(int type, int depth, int width, long rowStride, long columnStride) {
        var key = new PackKey(type, depth, width, rowStride, columnStride);
        var kernel = kernels.get(key);
        if (kernel != null) return kernel;
        var form = form(type, depth, width);
        dnnl.enter();
        var from = dnnl.strided(type, depth, width, rowStride, columnStride);
        var primitive = dnnl.reorder(from, form.descriptor);
        // the form's descriptor is cloned, because a kernel destroys its own descriptors
        return keep(key, new Kernel(primitive, false, from, dnnl.copy(form.descriptor)));
    }

    /// Rounds an fp32 matrix `[rows, columns]` with row stride `srcStride` to bf16 with row stride
    /// `dstStride`.
    Kernel round(int rows, int columns, int srcStride, int dstStride) {
        var key = new RoundKey(rows, columns, srcStride, dstStride);
        var kernel = kernels.get(key);
        if (kernel != null) return kernel;
        dnnl.enter();
        var from = dnnl.strided(Dnnl.F32, rows, columns, srcStride, 1);
        var to = dnnl.strided(Dnnl.BF16, rows, columns, dstStride, 1);
        return keep(key, new Kernel(dnnl.reorder(from, to), false, from, to));
    }

    private Kernel keep(Record key, Kernel kernel) {
        if (kernels.size() >= KEPT) {
            var eldest = kernels.entrySet().iterator();
            eldest.next().getValue().close();
            eldest.remove();
        }
        kernels.put(key, kernel);
        return kernel;
    }

    @Override public void close() {
        kernels.values().forEach(Kernel::close);
        kernels.clear();
        forms.values().forEach(f -> dnnl.destroyDescriptor(f.descriptor));
        forms.clear();
        for (NativeBuffer scratchpad : scratchpads) scratchpad.close();
    }
}
