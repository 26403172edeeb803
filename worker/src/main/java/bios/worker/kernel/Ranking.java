package bios.worker.kernel;

import java.util.Arrays;

/// The largest of many numbers, in descending order; of equal ones the lower index comes first.
public final class Ranking {
    private Ranking() {}

    /// The index of the largest; of a NaN only if all are NaN.
    public static int best(float[] values) {
        float most = Sums.max(values, values.length);
        if (!Float.isNaN(most)) for (int i = 0; i < values.length; i++) if (values[i] == most) return i;
        int best = 0;
        for (int i = 1; i < values.length; i++)
            if (values[i] > values[best] || Float.isNaN(values[best]) && !Float.isNaN(values[i])) best = i;
        return best;
    }

    /// The indices of the `k` largest; all of them when there are fewer.
    public static int[] top(float[] values, int k) {
        return k >= values.length ? downFrom(values, Float.NEGATIVE_INFINITY) : heap(values, k);
    }

    /// The indices of all numbers of at least `least`.
    public static int[] downFrom(float[] values, float least) {
        long[] keys = new long[16];
        int n = 0;
        for (int i = 0; i < values.length; i++) {
            if (!(values[i] >= least)) continue;
            if (n == keys.length) keys = Arrays.copyOf(keys, 2 * n);
            keys[n++] = key(values[i], i);
        }
        return sorted(keys, n);
    }

    /// A heap whose root is the worst of the best k so far.
    private static int[] heap(float[] values, int k) {
        long[] heap = new long[k];
        for (int i = 0; i < k; i++) heap[i] = key(values[i], i);
        Arrays.sort(heap);   // a sorted array is a heap
        for (int i = k; i < values.length; i++) {
            long key = key(values[i], i);
            if (key > heap[0]) sink(heap, key);
        }
        return sorted(heap, k);
    }

    private static void sink(long[] heap, long key) {
        int at = 0;
        while (2 * at + 1 < heap.length) {
            int child = 2 * at + 1;
            if (child + 1 < heap.length && heap[child + 1] < heap[child]) child++;
            if (heap[child] >= key) break;
            heap[at] = heap[child];
            at = child;
        }
        heap[at] = key;
    }

    private static int[] sorted(long[] keys, int n) {
        Arrays.sort(keys, 0, n);
        int[] indices = new int[n];
        for (int i = 0; i < n; i++) indices[i] = Integer.MAX_VALUE - (int) (keys[n - 1 - i] & 0xFFFFFFFFL);
        return indices;
    }

    /// Sort key: increases with the value, decreases with the index. NaN counts as -∞, -0 as 0.
    private static long key(float value, int index) {
        int bits = Float.isNaN(value)
                ? Float.floatToRawIntBits(Float.NEGATIVE_INFINITY) : Float.floatToRawIntBits(value + 0f);
        int ordered = bits ^ (bits >> 31 & 0x7FFFFFFF);
        return (long) ordered << 32 | (Integer.MAX_VALUE - index);
    }
}
