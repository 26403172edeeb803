package bios.worker.load;

import bios.worker.kernel.Sums;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.ShortBuffer;
import java.util.List;
import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;

/// One safetensors file of any size, read once from begin to end: the header first, then the tensors in the
/// order of the file, in blocks of rows. The whole header is checked before any data is read; [ModelRefused]
/// if a tensor is missing, has a wrong shape, or the file is truncated. Not thread-safe.
public final class TensorStream implements AutoCloseable {
    private final String where;
    private final InputStream in;
    private final SafetensorsHeader header;
    private final Map<String, TensorRange> byName = new TreeMap<>();

    /// Receives the rows of one tensor, in their order.
    @FunctionalInterface
    public interface RowSink {
        /// @param row number of the first row
        /// @param values row-major, `rows` rows; overwritten by the next call
        void rows(int row, int rows, float[] values);
    }

    private TensorStream(String where, InputStream in, SafetensorsHeader header) {
        this.where = where;
        this.in = in;
        this.header = header;
        header.tensors().forEach(tensor -> byName.put(tensor.name(), tensor));
    }

    /// Reads the header. Closes `in` if that fails, and reads a refused file to its end before ([#verify]).
    ///
    /// @param where the file's name in messages
    /// @param bytes size of the whole file
    public static TensorStream open(String where, InputStream in, long bytes) {
        try {
            if (bytes < 8)
                throw new ModelRefused(where, "has " + bytes + " bytes and no header",
                        SafetensorsHeader.REMEDY);
            long length = ByteBuffer.wrap(exactly(where, in, 8)).order(ByteOrder.LITTLE_ENDIAN).getLong();
            SafetensorsHeader.requireLength(where, length, bytes);
            byte[] json = exactly(where, in, Math.toIntExact(length));
            return new TensorStream(where, in, SafetensorsHeader.parse(where, json, bytes - 8 - length));
        } catch (ModelRefused refused) {
            try (in) {
                readToEnd(where, in);
            } catch (IOException failed) {
                throw unreadable(where, failed);
            }
            throw refused;
        } catch (Throwable failed) {
            close(where, in);
            throw failed;
        }
    }

    /// Reads the rest of the file and discards it. A store verifies its content at the end, so damage is
    /// reported as [bios.persistence.blob.BlobDamaged] and not as invalid content. To be called before a
    /// refusal of the content is reported.
    public void verify() {
        readToEnd(where, in);
    }

    private static void readToEnd(String where, InputStream in) {
        try {
            in.transferTo(OutputStream.nullOutputStream());
        } catch (IOException failed) {
            throw unreadable(where, failed);
        }
    }

    private static byte[] exactly(String where, InputStream in, int count) {
        try {
            byte[] bytes = in.readNBytes(count);
            if (bytes.length < count) throw cutOff(where);
            return bytes;
        } catch (IOException failed) {
            throw unreadable(where, failed);
        }
    }

    private static ModelRefused cutOff(String where) {
        return new ModelRefused(where, "is cut off", SafetensorsHeader.REMEDY);
    }

    private static UncheckedIOException unreadable(String where, IOException failed) {
        return new UncheckedIOException(where + " cannot be read: " + failed.getMessage(), failed);
    }

    /// The `__metadata__` of the header, sorted.
    public SortedMap<String, String> metadata() {
        return header.metadata();
    }

    /// All tensors, in the order of their data.
    public List<TensorRange> tensors() {
        return header.tensors();
    }

    /// The file's name in messages.
    public String where() {
        return where;
    }

    /// Throws [ModelRefused] unless the file has a tensor of this name and shape `[rows, columns]` in bf16,
    /// fp16 or fp32.
    public void requireMatrix(String name, int rows, int columns) {
        TensorRange tensor = byName.get(name);
        if (tensor == null) throw new ModelRefused(where, "tensor '" + name + "' is missing",
                "the file belongs to another adapter, or is incomplete");
        if (!tensor.shape().equals(List.of((long) rows, (long) columns)))
            throw new ModelRefused(where, "tensor '" + name + "' has shape " + tensor.shape() + ", expected ["
                    + rows + ", " + columns + "]", "the file belongs to an adapter of another shape");
        bytesPerElement(tensor);
    }

    private int bytesPerElement(TensorRange tensor) {
        return switch (tensor.dtype()) {
            case "F32" -> 4;
            case "BF16", "F16" -> 2;
            default -> throw new ModelRefused(where, "tensor '" + tensor.name() + "' has dtype "
                    + tensor.dtype(), "expected BF16, F16 or F32");
        };
    }

    /// A sink that passes rows on, and refuses them with [NotFinite] if a number is infinite or NaN.
    public RowSink finite(String name, RowSink sink) {
        int columns = Math.toIntExact(byName.get(name).shape().get(1));
        return (row, rows, values) -> {
            if (!Sums.finite(values, rows * columns))
                throw NotFinite.inFile(where, name, row, columns, values);
            sink.rows(row, rows, values);
        };
    }

    /// Reads all data to the end of the file; may be called once. A tensor that [#requireMatrix] has accepted
    /// is passed to its sink, widened to fp32; tensors without a sink are skipped.
    ///
    /// @param sinks sinks by the name of their tensor
    public void read(Map<String, RowSink> sinks, StagingBuffer staging) {
        try {
            for (TensorRange tensor : header.tensors()) {
                RowSink sink = sinks.get(tensor.name());
                if (sink == null) in.skipNBytes(tensor.bytes());
                else read(tensor, sink, staging);
            }
            // The store verifies its content at the end.
            if (in.read() >= 0)
                throw new ModelRefused(where, "has bytes after its last tensor", SafetensorsHeader.REMEDY);
        } catch (EOFException _) {
            throw cutOff(where);
        } catch (IOException failed) {
            throw unreadable(where, failed);
        }
    }

    private void read(TensorRange tensor, RowSink sink, StagingBuffer staging) throws IOException {
        int rows = Math.toIntExact(tensor.shape().get(0));
        int columns = Math.toIntExact(tensor.shape().get(1));
        int step = StagingBuffer.rowsAtOnce(rows, columns);
        int width = bytesPerElement(tensor);
        for (int row = 0; row < rows; row += step) {
            int count = Math.min(step, rows - row);
            int elements = count * columns;
            byte[] bytes = staging.bytes(elements * width);
            if (in.readNBytes(bytes, 0, elements * width) < elements * width) throw cutOff(where);
            float[] values = staging.fileLayout(elements);
            widen(tensor.dtype(), ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN), values, elements);
            sink.rows(row, count, values);
        }
    }

    private static void widen(String dtype, ByteBuffer bytes, float[] values, int elements) {
        ShortBuffer halves = bytes.asShortBuffer();
        switch (dtype) {
            case "F32" -> bytes.asFloatBuffer().get(values, 0, elements);
            case "F16" -> {
                for (int i = 0; i < elements; i++) values[i] = Float.float16ToFloat(halves.get(i));
            }
            default -> {
                for (int i = 0; i < elements; i++) values[i] = Float.intBitsToFloat(halves.get(i) << 16);
            }
        }
    }

    @Override public void close() {
        close(where, in);
    }

    private static void close(String where, InputStream in) {
        try {
            in.close();
        } catch (IOException failed) {
            throw new UncheckedIOException(where + " cannot be closed", failed);
        }
    }
}
