package bios.worker.device.cpu;

import java.util.Arrays;

/// Numbered buffers of one thread of the pool. They grow and are never freed.
final class Workspace {
    private final float[][] rows = new float[16][];
    private int[] ints = new int[64];
    private short[] shorts = new short[64];

    /// Buffer number `slot`, of at least n values; contents undefined.
    float[] row(int slot, int n) {
        if (rows[slot] == null || rows[slot].length < n) rows[slot] = new float[Math.max(64, n)];
        return rows[slot];
    }

    /// Room for n shorts.
    short[] shorts(int n) {
        if (shorts.length < n) shorts = new short[n];
        return shorts;
    }

    /// Room for n ints.
    int[] ints(int n) {
        if (ints.length < n) ints = new int[n];
        return ints;
    }

    /// As [#row], the first n values zero.
    float[] zeros(int slot, int n) {
        float[] row = row(slot, n);
        Arrays.fill(row, 0, n, 0);
        return row;
    }
}
