package bios.coordinator.gateway;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.LongConsumer;

/// Numbers of an array while it is read, in blocks: 64-bit integers, or the bits of doubles after
/// [#becomeDoubles].
final class NumberList {
    private static final int FIRST = 16;
    private static final int BLOCK = 1 << 13;
    /// What a number takes on the heap: here, in the array that is returned, and in the operation that is
    /// made of it.
    private static final int BYTES_EACH = 24;

    private final LongConsumer heap;
    private final List<long[]> full = new ArrayList<>(0);
    private long[] block = new long[FIRST];
    private int used;

    /// @param heap is told the bytes that are needed before they are
    NumberList(LongConsumer heap) {
        this.heap = heap;
        heap.accept(FIRST * BYTES_EACH);
    }

    int size() {
        return full.size() * BLOCK + used;
    }

    void add(long value) {
        if (used == block.length) grow();
        block[used++] = value;
    }

    private void grow() {
        if (block.length < BLOCK) {
            heap.accept(block.length * BYTES_EACH);
            block = Arrays.copyOf(block, 2 * block.length);
            return;
        }
        heap.accept(BLOCK * BYTES_EACH);
        full.add(block);
        block = new long[BLOCK];
        used = 0;
    }

    /// Converts the integers so far to the bits of doubles.
    void becomeDoubles() {
        for (long[] values : full) toBits(values, BLOCK);
        toBits(block, used);
    }

    private static void toBits(long[] values, int count) {
        for (int i = 0; i < count; i++) values[i] = Double.doubleToRawLongBits(values[i]);
    }

    long[] longs() {
        long[] all = new long[size()];
        int at = 0;
        for (long[] values : full) {
            System.arraycopy(values, 0, all, at, BLOCK);
            at += BLOCK;
        }
        System.arraycopy(block, 0, all, at, used);
        return all;
    }

    double[] doubles() {
        double[] all = new double[size()];
        int at = 0;
        for (long[] values : full) for (long bits : values) all[at++] = Double.longBitsToDouble(bits);
        for (int i = 0; i < used; i++) all[at++] = Double.longBitsToDouble(block[i]);
        return all;
    }
}
