package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.device.Readback;
import bios.worker.device.Tensor;
import java.lang.foreign.ValueLayout;
import java.util.List;

/// Results that are copied immediately: an array for each tensor.
record HostReadback(List<Object> arrays) implements Readback {
    static HostReadback of(List<Tensor> tensors) {
        return new HostReadback(tensors.stream().map(t -> array(HostTensor.of(t))).toList());
    }

    private static Object array(HostTensor from) {
        return switch (from.dtype()) {
            case F32, BF16 -> floats(from);
            case I32 -> Rows.ints(from);
            case F64 -> doubles(from);
        };
    }

    /// Elements of a tensor of [DType#F32] or [DType#BF16], row by row.
    static float[] floats(HostTensor from) {
        float[] values = new float[Math.toIntExact(from.elements())];
        read(from, values, 0);
        return values;
    }

    /// to[at] and after ← the elements of a tensor, row by row.
    static void read(HostTensor from, float[] to, int at) {
        int n = from.columns();
        require(at >= 0 && at + from.elements() <= to.length, "%d values from %d into %d", from.elements(),
                at, to.length);
        short[] room = from.dtype() == DType.BF16 ? new short[n] : null;
        for (int row = 0; row < from.rows(); row++) FloatRows.load(to, at + row * n, from, row, 0, n, room);
    }

    /// The elements of a tensor ← from[at] and after, row by row.
    static void write(HostTensor to, float[] from, int at) {
        int n = to.columns();
        require(at >= 0 && at + to.elements() <= from.length, "%d values from %d of %d", to.elements(), at,
                from.length);
        short[] room = to.dtype() == DType.BF16 ? new short[n] : null;
        for (int row = 0; row < to.rows(); row++) FloatRows.store(to, row, 0, from, at + row * n, n, room);
    }

    private static double[] doubles(HostTensor from) {
        int n = from.columns();
        double[] values = new double[Math.toIntExact(from.elements())];
        for (int i = 0; i < values.length; i++)
            values[i] = from.memory().get(ValueLayout.JAVA_DOUBLE,
                    8 * ((long) i / n * from.stride() + i % n));
        return values;
    }

    @Override public float[] floats(int i) {
        return (float[]) arrays.get(i);
    }

    @Override public int[] ints(int i) {
        return (int[]) arrays.get(i);
    }

    @Override public double[] doubles(int i) {
        return (double[]) arrays.get(i);
    }
}
