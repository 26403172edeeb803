package bios.coordinator.gateway;

import bios.protocol.run.TensorData;
import bios.protocol.run.TensorData.DType;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;

/// Reads a Tensor of the wire: `{"dtype", "shape"?, "data"}` or `{"dtype", "shape", "data_base64"}`.
final class TensorReader {
    private TensorReader() {}

    static TensorData read(FieldPath at, Json json) {
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
        byte[] data = packed ? fields.base64("data_base64")
                : bytes(fields.at("data"), fields.required("data"), dtype);
        if (packed && !fields.has("shape"))
            throw fields.at("shape").invalid("is missing; data_base64 needs it");
        int[] shape = fields.has("shape") ? shape(fields.at("shape"), fields.required("shape"))
                : new int[] {data.length / dtype.bytes()};
        fields.requireAllRead();
        long elements = 1;
        for (int n : shape) elements = Math.min(elements * n, Integer.MAX_VALUE);
        if (elements * dtype.bytes() != data.length)
            throw fields.at(packed ? "data_base64" : "data")
                    .invalid("holds " + data.length + " bytes, but shape "
                            + Arrays.toString(shape) + " of " + name + " needs " + elements * dtype.bytes());
        return new TensorData(dtype, shape, data);
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
            case Json.Obj _, Json.Str _, Json.Ascii _, Json.Num _, Json.Bool _, Json.Null _,
                    Json.Skipped _ ->
                throw at.invalid("is " + json.kind() + "; expected an array of integers");
        };
    }

    private static byte[] bytes(FieldPath at, Json json, DType dtype) {
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
