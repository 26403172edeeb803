package bios.coordinator.gateway;

import bios.protocol.run.TensorData;
import bios.protocol.run.TensorData.DType;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.function.LongConsumer;

/// Reads a Tensor of the wire: `{"dtype", "shape"?, "data"}` or `{"dtype", "shape", "data_base64"}`; a matrix
/// also as the rows of its values (CSR), `{"dtype", "shape", "data", "sparse_crow_indices",
/// "sparse_col_indices"}`.
final class TensorReader {
    private TensorReader() {}

    /// @param heap is told the bytes that a sparse tensor takes as a dense one, before they are taken
    static TensorData read(FieldPath at, Json json, LongConsumer heap) {
        Fields fields = Fields.of(at, json);
        String name = fields.string("dtype");
        DType dtype = switch (name) {
            case "float32" -> DType.FLOAT32;
            case "int64" -> DType.INT64;
            default ->
                    throw fields.at("dtype").invalid("'" + name + "' is unknown; expected float32 or int64");
        };
        boolean packed = fields.has("data_base64");
        if (packed == fields.has("data")) throw at.invalid("needs exactly one of data and data_base64");
        boolean sparse = fields.has("sparse_crow_indices") || fields.has("sparse_col_indices");
        if (sparse && packed) throw fields.at("data").invalid("is missing; a sparse tensor needs it");
        byte[] data = packed ? fields.base64("data_base64")
                : bytes(fields.at("data"), fields.required("data"), dtype);
        if ((packed || sparse) && !fields.has("shape"))
            throw fields.at("shape").invalid("is missing; " + (packed ? "data_base64" : "a sparse tensor")
                    + " needs it");
        int[] shape = fields.has("shape") ? shape(fields.at("shape"), fields.required("shape"))
                : new int[] {data.length / dtype.bytes()};
        if (sparse) data = dense(fields, dtype, shape, data, heap);
        fields.requireAllRead();
        long elements = Fields.reportAt(fields.at("shape"), () -> TensorData.elements(shape));
        if (elements * dtype.bytes() != data.length)
            throw fields.at(packed ? "data_base64" : "data")
                    .invalid("holds " + data.length + " bytes, but shape "
                            + Arrays.toString(shape) + " of " + name + " needs " + elements * dtype.bytes());
        return new TensorData(dtype, shape, data);
    }

    /// The dense form of a sparse matrix: row i has the values `crow[i]` to `crow[i + 1]` in the columns that
    /// `col` names, and zeros elsewhere.
    private static byte[] dense(Fields fields, DType dtype, int[] shape, byte[] values, LongConsumer heap) {
        if (shape.length != 2) throw fields.at("sparse_crow_indices").invalid("is for a matrix, but shape"
                + " has " + shape.length + " extents; expected 2");
        long[] crow = indices(fields, "sparse_crow_indices");
        long[] col = indices(fields, "sparse_col_indices");
        FieldPath rowsAt = fields.at("sparse_crow_indices");
        FieldPath columnsAt = fields.at("sparse_col_indices");
        if (crow.length != shape[0] + 1L)
            throw rowsAt.invalid("has " + crow.length + " items; " + shape[0] + " rows need "
                    + (shape[0] + 1L));
        if ((long) col.length * dtype.bytes() != values.length)
            throw columnsAt.invalid("has " + col.length + " items, but data holds "
                    + values.length / dtype.bytes() + " values");
        if (crow[0] != 0 || crow[shape[0]] != col.length)
            throw rowsAt.invalid("must go from 0 to " + col.length + ", the number of values");
        long bytes = (long) shape[0] * shape[1] * dtype.bytes();
        heap.accept(RequestMemory.TENSOR_BYTES_EACH * bytes);
        if (bytes > Integer.MAX_VALUE - 8) throw fields.at("shape").invalid("is too large");
        byte[] dense = new byte[(int) bytes];
        for (int row = 0; row < shape[0]; row++) {
            if (crow[row + 1] < crow[row]) throw rowsAt.item(row + 1).invalid("is less than the one before");
            if (crow[row + 1] > col.length) throw rowsAt.item(row + 1).invalid("is more than " + col.length);
            for (int i = (int) crow[row]; i < crow[row + 1]; i++) {
                if (col[i] < 0 || col[i] >= shape[1])
                    throw columnsAt.item(i).invalid(col[i] + " is not a column; expected 0 to "
                            + (shape[1] - 1));
                long to = ((long) row * shape[1] + col[i]) * dtype.bytes();
                System.arraycopy(values, i * dtype.bytes(), dense, (int) to, dtype.bytes());
            }
        }
        return dense;
    }

    private static long[] indices(Fields fields, String name) {
        Json json = fields.required(name);
        if (!(json instanceof Json.Packed packed)) return longs(fields.at(name), json);
        if (packed.length() % 8 != 0)
            throw fields.at(name).invalid("holds " + packed.length() + " bytes; expected 8 for each index");
        long[] indices = new long[packed.length() / 8];
        packed.bytes().asLongBuffer().get(indices);
        return indices;
    }

    private static int[] shape(FieldPath at, Json json) {
        long[] extents = longs(at, json);
        if (extents.length > 8) throw at.invalid("has " + extents.length + " extents; at most 8");
        int[] shape = new int[extents.length];
        for (int i = 0; i < shape.length; i++) {
            if (extents[i] < 0 || extents[i] > Integer.MAX_VALUE)
                throw at.item(i).invalid(extents[i] + " is out of range; expected 0 to " + Integer.MAX_VALUE);
            shape[i] = (int) extents[i];
        }
        return shape;
    }

    /// An array of 64-bit integers.
    static long[] longs(FieldPath at, Json json) {
        return switch (json) {
            case Json.Longs(var values) -> values;
            case Json.Doubles(_, int other) -> throw at.item(other).invalid("is not an integer of 64 bits");
            case Json.Arr(var items) when !items.isEmpty() && items.getFirst() instanceof Json.Num ->
                throw at.invalid("mixes numbers with other values; expected integers");
            case Json.Arr(var items) when !items.isEmpty() ->
                throw at.item(0).invalid("is " + items.getFirst().kind() + "; expected an integer");
            case Json.Arr _ -> new long[0];
            case Json.Obj _, Json.Str _, Json.Ascii _, Json.Num _, Json.Bool _, Json.Null _, Json.Packed _,
                    Json.Skipped _ ->
                throw at.invalid("is " + json.kind() + "; expected an array of integers");
        };
    }

    private static byte[] bytes(FieldPath at, Json json, DType dtype) {
        if (json instanceof Json.Packed packed) {
            if (packed.length() % dtype.bytes() != 0)
                throw at.invalid("holds " + packed.length() + " bytes; expected " + dtype.bytes()
                        + " for each value");
            return packed.copy();
        }
        if (dtype == DType.INT64) {
            long[] values = longs(at, json);
            ByteBuffer bytes = ByteBuffer.allocate(values.length * 8).order(ByteOrder.LITTLE_ENDIAN);
            bytes.asLongBuffer().put(values);
            return bytes.array();
        }
        double[] values = json instanceof Json.Doubles(var doubles, _) ? doubles : doubles(longs(at, json));
        ByteBuffer bytes = ByteBuffer.allocate(values.length * 4).order(ByteOrder.LITTLE_ENDIAN);
        for (int i = 0; i < values.length; i++) {
            float value = (float) values[i];
            if (Float.isInfinite(value)) throw at.item(i).invalid(values[i] + " does not fit float32");
            bytes.putFloat(value);
        }
        return bytes.array();
    }

    private static double[] doubles(long[] values) {
        return Arrays.stream(values).asDoubleStream().toArray();
    }
}
