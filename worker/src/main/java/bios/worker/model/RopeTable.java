package bios.worker.model;

import bios.worker.device.Device;
import bios.worker.device.Tensor;
import bios.worker.load.Rope;

/// cos and sin of all angles up to the longest position met so far, `[positions, headDim/2]`.
final class RopeTable implements AutoCloseable {
    private static final int FIRST_POSITIONS = 1024;

    private final Rope rope;
    private final int contextLength;
    private final Device on;
    private Angles angles;

    private record Angles(Tensor cos, Tensor sin) {}

    RopeTable(Rope rope, int contextLength, Device on) {
        this.rope = rope;
        this.contextLength = contextLength;
        this.on = on;
        this.angles = angles(Math.min(FIRST_POSITIONS, contextLength));
    }

    Tensor cos() {
        return angles.cos;
    }

    Tensor sin() {
        return angles.sin;
    }

    /// Makes rows for positions 0 (inclusive) to `positions` (exclusive). When there is no room on the
    /// device the rows of before stay.
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
            on.free(cos);
            throw e;
        }
    }

    private Tensor table(int rows, int columns, float[] values) {
        Tensor table = on.tensor(rows, columns);
        try {
            on.write(table, values, 0);
            return table;
        } catch (Throwable e) {
            on.free(table);
            throw e;
        }
    }

    private void free(Angles old) {
        on.free(old.cos);
        on.free(old.sin);
    }

    @Override public void close() {
        free(angles);
    }
}
