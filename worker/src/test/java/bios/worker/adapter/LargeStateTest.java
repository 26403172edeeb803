package bios.worker.adapter;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.model.LoraSpec;
import bios.protocol.run.AdamParams;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.Tensor;
import bios.worker.load.ModelSpec;
import bios.worker.load.Rope;
import bios.worker.load.SafetensorsWriter;
import bios.worker.load.SafetensorsWriter.Shape;
import bios.worker.load.StagingBuffer;
import bios.worker.load.TensorRange;
import bios.worker.load.TensorStream;
import com.sun.management.ThreadMXBean;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.PipedInputStream;
import java.io.PipedOutputStream;
import java.io.RandomAccessFile;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.lang.reflect.Proxy;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// The state of a rank-256 adapter on a model of 70 billion parameters: 53 GB in a sparse file, a part of it
/// through a pipe, and a device
/// that counts elements instead of storing them.
class LargeStateTest {
    private static final ModelSpec MODEL = model(80);
    private static final LoraSpec LORA = new LoraSpec(256, 256, 1, List.copyOf(LoraSpec.ALL_LINEAR));
    private static final List<String> SUFFIXES = List.of("", ".exp_avg", ".exp_avg_sq", ".grad");

    @TempDir Path folder;

    private static ModelSpec model(int layers) {
        return new ModelSpec("LlamaForCausalLM", 128_256, 8192, 28_672, layers, 64, 8, 128, 1e-5f, false,
                false, false, false, false, new Rope(new float[64], 1), Collections.nCopies(layers, 0), 8192,
                Set.of(1));
    }

    /// A tensor without elements; the device counts what is written to its rows and columns.
    private record Shaped(Device on, DType dtype, int rows, int columns) implements Tensor {
        @Override public Tensor rows(int from, int count) {
            return new Shaped(on, dtype, count, columns);
        }

        @Override public Tensor columns(int from, int count) {
            assertTrue(from >= 0 && from + count <= columns);
            return new Shaped(on, dtype, rows, count);
        }

        @Override public Tensor rowsOf(int width) {
            return new Shaped(on, dtype, rows * (columns / width), width);
        }

        @Override public Tensor matrix(long from, int rows, int columns) {
            assertTrue(from >= 0 && from + (long) rows * columns <= this.columns);
            return new Shaped(on, dtype, rows, columns);
        }
    }

    private long allocated;
    private long written;
    private long read;
    private double sum;

    private Device device() {
        Device[] self = new Device[1];
        self[0] = (Device) Proxy.newProxyInstance(Device.class.getClassLoader(),
                new Class<?>[] {Device.class},
                (_, method, arguments) -> switch (method.getName()) {
                    case "tensor" -> {
                        allocated += (long) (int) arguments[0] * (int) arguments[1];
                        yield new Shaped(self[0], DType.F32, (int) arguments[0], (int) arguments[1]);
                    }
                    case "write" -> {
                        Tensor to = (Tensor) arguments[0];
                        float[] values = (float[]) arguments[1];
                        written += to.elements();
                        sum += values[0] + values[Math.toIntExact(to.elements()) - 1];
                        yield null;
                    }
                    case "read" -> {
                        Tensor from = (Tensor) arguments[0];
                        int at = (int) arguments[2];
                        Arrays.fill((float[]) arguments[1], at, at + Math.toIntExact(from.elements()),
                                from.rows());
                        read += from.elements();
                        yield null;
                    }
                    case "free" -> {
                        allocated -= ((Tensor) arguments[0]).elements();
                        yield null;
                    }
                    default -> throw new UnsupportedOperationException(method.getName());
                });
        return self[0];
    }

    private static TreeMap<String, Shape> shapes(FactorLayout layout) {
        TreeMap<String, Shape> shapes = new TreeMap<>();
        for (String suffix : SUFFIXES)
            layout.parts().forEach(p -> shapes.put(p.name() + suffix, new Shape(p.rows(), p.columns())));
        return shapes;
    }

    @Test void aLargeStateIsAllocatedReadAndMeasuredInLongsWithSmallBuffers() throws IOException {
        FactorLayout layout = FactorLayout.of(LORA, MODEL);
        var header = new StateSnapshot.Header(LORA, 7, 1, AdamParams.DEFAULT);
        TreeMap<String, Shape> shapes = shapes(layout);
        byte[] head = SafetensorsWriter.header(shapes, header.metadata());
        long bytes = head.length + SafetensorsWriter.dataBytes(shapes);
        assertTrue(bytes > 50_000_000_000L, bytes + " bytes");
        assertEquals(5 * 4 * layout.elements(), TrainingState.mostBytes(LORA, MODEL));
        Path file = folder.resolve("state.safetensors");
        long before = heapAllocated();
        try (RandomAccessFile out = new RandomAccessFile(file.toFile(), "rw")) {
            out.write(head);
            out.setLength(bytes);
            // The last element of the last tensor: its offset is far beyond an int.
            out.seek(bytes - 4);
            out.write(ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN).putFloat(3).array());
        }
        Device on = device();
        try (var source = new StateSource.RecoveryPoint(
                TensorStream.open("state", new FileInputStream(file.toFile()), bytes))) {
            source.check(MODEL);
            checkRanges(source.file().tensors(), shapes, bytes - head.length);
            TrainingState state = source.allocate(MODEL, on);
            assertEquals(4 * layout.elements(), allocated);
            assertEquals(bytes, new StateSnapshot(header, layout, SUFFIXES,
                    new StateSnapshot.LiveTensors(on, List.of())).recoveryPointBytes());
            readSome(source.file(), state);
            state.close();
            assertEquals(0, allocated);
        }
        assertEquals(3, sum);
        assertTrue(heapAllocated() - before < 400 << 20, "heap: " + (heapAllocated() - before));
    }

    /// Five of the layers: more bytes than an int counts. They are read back while they are written, so that
    /// nothing is stored.
    @Test void whatIsWrittenOfALargeStateComesBackThroughSmallBuffers() throws Exception {
        ModelSpec model = model(5);
        FactorLayout layout = FactorLayout.of(LORA, model);
        Device on = device();
        List<Tensor> tensors = new ArrayList<>();
        for (int i = 0; i < SUFFIXES.size(); i++)
            layout.parts().forEach(part -> tensors.add(on.tensor(part.columns(), part.rows())));
        var header = new StateSnapshot.Header(LORA, 7, 1, AdamParams.DEFAULT);
        var snapshot = new StateSnapshot(header, layout, SUFFIXES,
                new StateSnapshot.LiveTensors(on, tensors));
        long bytes = snapshot.recoveryPointBytes();
        assertTrue(bytes > Integer.MAX_VALUE, bytes + " bytes");
        var heap = new AtomicLong();
        try (var pipe = new PipedInputStream(1 << 20)) {
            var out = new PipedOutputStream(pipe);
            var writer = Thread.ofPlatform().start(() -> {
                long before = heapAllocated();
                try (out) {
                    snapshot.writeRecoveryPoint(out, new StagingBuffer());
                } catch (IOException failed) {
                    throw new UncheckedIOException(failed);
                }
                heap.set(heapAllocated() - before);
            });
            try (var source = new StateSource.RecoveryPoint(TensorStream.open("state", pipe, bytes))) {
                source.check(model);
                assertEquals(header, source.header());
                source.fill(source.allocate(model, on), new StagingBuffer());
            }
            writer.join();
        }
        assertEquals(4 * layout.elements(), read);
        assertEquals(read, written);
        assertTrue(heap.get() < 100 << 20, "heap: " + heap.get());
    }

    private static void checkRanges(List<TensorRange> ranges, Map<String, Shape> shapes, long dataBytes) {
        long at = 0;
        for (TensorRange range : ranges) {
            assertEquals(at, range.begin());
            assertEquals(4 * shapes.get(range.name()).elements(), range.bytes());
            at = range.end();
        }
        assertEquals(dataBytes, at);
    }

    /// Reads the first and the last layer of all parts through the sinks that a whole state is read with.
    private void readSome(TensorStream file, TrainingState state) {
        var staging = new StagingBuffer();
        Map<String, TensorStream.RowSink> sinks = new HashMap<>();
        state.adapter().weights().sinks(sinks, "", staging);
        state.firstMoment().sinks(sinks, ".exp_avg", staging);
        state.secondMoment().sinks(sinks, ".exp_avg_sq", staging);
        state.gradient().orElseThrow().sinks(sinks, ".grad", staging);
        String last = file.tensors().getLast().name();
        sinks.keySet().removeIf(name -> !name.contains(".layers.0.") && !name.equals(last));
        file.read(sinks, staging);
        long layer = state.adapter().weights().layout().parts().stream().filter(p -> p.layer() == 0)
                .mapToLong(FactorLayout.Part::elements).sum();
        TensorRange end = file.tensors().getLast();
        assertEquals(4 * layer + end.bytes() / 4, written);
    }

    private static long heapAllocated() {
        return ((ThreadMXBean) ManagementFactory.getThreadMXBean()).getCurrentThreadAllocatedBytes();
    }
}
