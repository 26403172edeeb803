package bios.worker.model;

import bios.worker.device.Device;
import bios.worker.device.Tensor;
import bios.worker.load.Rope;

/// cos and sin of all angles up to the largest position requested so far, `[positions, headDim/2]`.
final class RopeTable implements AutoCloseable {
    private static final int FIRST_POSITIONS = 1024;

    private final Rope rope;
    private final int contextLength;
    private final Device device;
    private Angles angles;

    private record Angles(Tensor cos, Tensor sin) {}

    RopeTable(Rope rope, int contextLength, Device device) {
        this.rope = rope;
        this.contextLength = contextLength;
        this.device = device;
        this.angles = angles(Math.min(FIRST_POSITIONS, contextLength));
    }

    Tensor cos() {
        return angles.cos;
    }

    Tensor sin() {
        return angles.sin;
    }

    /// Ensures rows for positions 0 (inclusive) to `positions` (exclusive). If it throws
    /// [bios.worker.device.OutOfDeviceMemory], the earlier rows stay valid.
    void growTo(int positions) {
        if (positions <= angles.cos.rows()) return;
        Angles before = angles;
        angles = angles((int) Math.min(contextLength, Math.max(positions, 2L * before.cos.rows())));
        free(before);
    }

    private Angles angles(int rows) {
        int half = rope.inverseFrequencies().length;
        float[] cosines = new float[Math.multiplyExact(rows, half)];
        float[] sines = new float[cosines.length];
        for (int p = 0; p < rows; p++)
            for (int i = 0; i < half; i++) {
                float angle = (float) p * rope.inverseFrequencies()[i];
                cosines[p * half + i] = (float) Math.cos(angle) * rope.attentionFactor();
                sines[p * half + i] = (float) Math.sin(angle) * rope.attentionFactor();
            }
        Tensor cos = table(rows, half, cosines);
        try {
            return new Angles(cos, table(rows, half, sines));
        } catch (Throwable e) {
            device.free(cos);
            throw e;
        }
    }

    private Tensor table(int rows, int columns, float[] values) {
        Tensor table = device.tensor(rows, columns);
        try {
            device.write(table, values, 0);
            return table;
        } catch (Throwable e) {
            device.free(table);
            throw e;
        }
    }

    private void free(Angles old) {
        device.free(old.cos);
        device.free(old.sin);
    }

    @Override public void close() {
        free(angles);
    }
}
