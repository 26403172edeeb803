package bios.worker.load;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;

/// Writes fp32 tensors in the safetensors format. The same tensors and metadata give the same bytes: names
/// are sorted, the header is padded with spaces to a multiple of 8 bytes.
public final class SafetensorsWriter {
    private static final int BUFFER_BYTES = 1 << 16;

    private SafetensorsWriter() {}

    /// Where a tensor's values come from: `length` elements of `values` from `offset`, in the given shape.
    public record Values(float[] values, int offset, List<Integer> shape) {
        int length() {
            int n = 1;
            for (int extent : shape) n = Math.multiplyExact(n, extent);
            return n;
        }
    }

    /// Writes all tensors to `out`, which stays open.
    ///
    /// @param metadata the header's `__metadata__`, left out when empty
    public static void write(OutputStream out, SortedMap<String, Values> tensors,
            Map<String, String> metadata) throws IOException {
        byte[] header = header(tensors, metadata);
        out.write(ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(header.length).array());
        out.write(header);
        ByteBuffer buffer = ByteBuffer.allocate(BUFFER_BYTES).order(ByteOrder.LITTLE_ENDIAN);
        for (Values v : tensors.values()) {
            int end = v.offset() + v.length();
            for (int at = v.offset(); at < end; at += BUFFER_BYTES / 4) {
                int n = Math.min(BUFFER_BYTES / 4, end - at);
                buffer.clear().asFloatBuffer().put(v.values(), at, n);
                out.write(buffer.array(), 0, 4 * n);
            }
        }
    }

    /// All tensors as bytes, when they fit into an array.
    public static byte[] bytes(SortedMap<String, Values> tensors, Map<String, String> metadata) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        try {
            write(out, tensors, metadata);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return out.toByteArray();
    }

    private static byte[] header(SortedMap<String, Values> tensors, Map<String, String> metadata) {
        ObjectNode header = Safetensors.JSON.createObjectNode();
        if (!metadata.isEmpty()) new TreeMap<>(metadata).forEach(header.putObject("__metadata__")::put);
        long at = 0;
        for (var e : tensors.entrySet()) {
            ObjectNode node = header.putObject(e.getKey()).put("dtype", "F32");
            e.getValue().shape().forEach(node.putArray("shape")::add);
            long end = at + 4L * e.getValue().length();
            node.putArray("data_offsets").add(at).add(end);
            at = end;
        }
        try {
            String text = Safetensors.JSON.writeValueAsString(header);
            int bytes = text.getBytes(StandardCharsets.UTF_8).length;
            return (text + " ".repeat((8 - bytes % 8) % 8)).getBytes(StandardCharsets.UTF_8);
        } catch (JsonProcessingException e) {
            throw new UncheckedIOException(e);
        }
    }
}
