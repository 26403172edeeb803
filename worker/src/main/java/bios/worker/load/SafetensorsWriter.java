package bios.worker.load;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;

/// Writes fp32 tensors in the safetensors format: the header, then the values of all tensors in the order of
/// their names. The same tensors and metadata give the same bytes: names are sorted, the header is padded
/// with spaces to a multiple of 8 bytes.
public final class SafetensorsWriter {
    private SafetensorsWriter() {}

    /// Shape of a tensor: any number of extents.
    public record Shape(int... extents) {
        /// Number of elements.
        public long elements() {
            long n = 1;
            for (int extent : extents) n = Math.multiplyExact(n, extent);
            return n;
        }
    }

    /// Everything before the data: the length of the header and the header.
    ///
    /// @param metadata the header's `__metadata__`, left out when empty
    public static byte[] header(SortedMap<String, Shape> tensors, Map<String, String> metadata) {
        ObjectNode header = Safetensors.JSON.createObjectNode();
        if (!metadata.isEmpty()) new TreeMap<>(metadata).forEach(header.putObject("__metadata__")::put);
        long at = 0;
        for (var e : tensors.entrySet()) {
            ObjectNode node = header.putObject(e.getKey()).put("dtype", "F32");
            var shape = node.putArray("shape");
            for (int extent : e.getValue().extents()) shape.add(extent);
            long end = at + 4 * e.getValue().elements();
            node.putArray("data_offsets").add(at).add(end);
            at = end;
        }
        try {
            byte[] json = Safetensors.JSON.writeValueAsString(header).getBytes(StandardCharsets.UTF_8);
            int padded = Math.ceilDiv(json.length, 8) * 8;
            ByteBuffer whole = ByteBuffer.allocate(8 + padded).order(ByteOrder.LITTLE_ENDIAN)
                    .putLong(padded).put(json);
            while (whole.hasRemaining()) whole.put((byte) ' ');
            return whole.array();
        } catch (JsonProcessingException e) {
            throw new UncheckedIOException(e);
        }
    }

    /// Number of bytes of the data of all tensors.
    public static long dataBytes(SortedMap<String, Shape> tensors) {
        return 4 * tensors.values().stream().mapToLong(Shape::elements).sum();
    }

    /// Writes the next `count` values of the data.
    public static void write(OutputStream out, float[] values, int count, StagingBuffer staging)
            throws IOException {
        byte[] bytes = staging.bytes(Math.multiplyExact(4, count));
        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().put(values, 0, count);
        out.write(bytes, 0, 4 * count);
    }
}
