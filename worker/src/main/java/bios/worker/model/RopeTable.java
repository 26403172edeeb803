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
    private Tensor cos;
    private Tensor sin;

    RopeTable(Rope rope, int contextLength, Device on) {
        this.rope = rope;
        this.contextLength = contextLength;
        this.on = on;
        grow(Math.min(FIRST_POSITIONS, contextLength));
    }

    Tensor cos() {
        return cos;
    }

    Tensor sin() {
        return sin;
    }

    /// Makes rows for positions 0 (inclusive) to `positions` (exclusive).
    void cover(int positions) {
        if (positions <= cos.rows()) return;
        int rows = (int) Math.min(contextLength, Math.max(positions, 2L * cos.rows()));
        close();
        grow(rows);
    }

    private void grow(int rows) {
        int half = rope.inverseFrequencies().length;
        float[] cosines = new float[Math.multiplyExact(rows, half)];
        float[] sines = new float[cosines.length];
        for (int p = 0; p < rows; p++)
            for (int i = 0; i < half; i++) {
                float angle = (float) p * rope.inverseFrequencies()[i];
                cosines[p * half + i] = (float) Math.cos(angle) * rope.attentionFactor();
                sines[p * half + i] = (float) Math.sin(angle) * rope.attentionFactor();
            }
        cos = on.tensor(rows, half);
        sin = on.tensor(rows, half);
        on.write(cos, cosines);
        on.write(sin, sines);
    }

    @Override public void close() {
        on.free(cos);
        on.free(sin);
    }
}
