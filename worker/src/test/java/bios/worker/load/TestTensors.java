package bios.worker.load;

import bios.worker.load.SafetensorsWriter.Shape;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;

/// Small safetensors files in memory, for tests.
public final class TestTensors {
    private TestTensors() {}

    /// Elements of `values` from `offset`, in the given shape.
    public record Values(float[] values, int offset, List<Integer> shape) {}

    /// The bytes of a file of these tensors.
    public static byte[] bytes(SortedMap<String, Values> tensors, Map<String, String> metadata) {
        SortedMap<String, Shape> shapes = new TreeMap<>();
        tensors.forEach((name, v) ->
                shapes.put(name, new Shape(v.shape.stream().mapToInt(Integer::intValue).toArray())));
        var out = new ByteArrayOutputStream();
        var staging = new StagingBuffer();
        try {
            out.write(SafetensorsWriter.header(shapes, metadata));
            for (var e : tensors.entrySet()) {
                int elements = Math.toIntExact(shapes.get(e.getKey()).elements());
                Values v = e.getValue();
                SafetensorsWriter.write(out, Arrays.copyOfRange(v.values, v.offset, v.offset + elements),
                        elements, staging);
            }
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
        return out.toByteArray();
    }
}
