package bios.protocol.run;

import bios.protocol.Invalid;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;

/// A small dense tensor in the form in which it is sent and stored: packed little-endian bytes. Its arrays
/// must not be modified.
public record TensorData(DType dtype, int[] shape, byte[] data) {
    /// Element types of loss inputs.
    public enum DType {
        FLOAT32(4), INT64(8);

        private final int bytes;

        DType(int bytes) {
            this.bytes = bytes;
        }

        /// Bytes of one element.
        public int bytes() {
            return bytes;
        }
    }

    public TensorData {
        long elements = elements(shape);
        if (elements * dtype.bytes() != data.length)
            throw new Invalid("data", "has " + data.length + " bytes, but shape " + Arrays.toString(shape)
                    + " of " + dtype + " needs " + elements * dtype.bytes());
    }

    /// Number of elements of a shape; an [Invalid] if an extent is negative or the others than 0 are together
    /// more than any tensor has.
    public static long elements(int... shape) {
        long elements = 1;
        boolean empty = false;
        for (int n : shape) {
            if (n < 0) throw new Invalid("shape", Arrays.toString(shape) + " has a negative extent");
            if (n > 0) elements *= n;
            if (elements > Integer.MAX_VALUE)
                throw new Invalid("shape", Arrays.toString(shape) + " is too large");
            empty |= n == 0;
        }
        return empty ? 0 : elements;
    }

    /// A vector of floats.
    public static TensorData of(float... values) {
        ByteBuffer bytes = ByteBuffer.allocate(values.length * 4).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asFloatBuffer().put(values);
        return new TensorData(DType.FLOAT32, new int[] {values.length}, bytes.array());
    }

    /// A vector of integers.
    public static TensorData of(long... values) {
        ByteBuffer bytes = ByteBuffer.allocate(values.length * 8).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asLongBuffer().put(values);
        return new TensorData(DType.INT64, new int[] {values.length}, bytes.array());
    }

    /// Number of elements.
    public int elements() {
        return data.length / dtype.bytes();
    }

    /// The elements as floats, whatever the dtype.
    public float[] floats() {
        ByteBuffer bytes = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN);
        float[] out = new float[elements()];
        for (int i = 0; i < out.length; i++)
            out[i] = dtype == DType.FLOAT32 ? bytes.getFloat(4 * i) : bytes.getLong(8 * i);
        return out;
    }

    /// The elements as integers; [Invalid] when they are floats.
    public long[] longs() {
        if (dtype != DType.INT64) throw new Invalid("dtype", "expected int64, got float32");
        long[] out = new long[elements()];
        ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN).asLongBuffer().get(out);
        return out;
    }

    @Override public boolean equals(Object other) {
        return other instanceof TensorData(var d, var s, var b) && d == dtype && Arrays.equals(s, shape)
                && Arrays.equals(b, data);
    }

    @Override public int hashCode() {
        return 31 * Arrays.hashCode(shape) + Arrays.hashCode(data);
    }
}
