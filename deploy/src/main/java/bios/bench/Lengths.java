package bios.bench;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;

/// Lengths of a batch's sequences.
final class Lengths {
    /// Sequences of a mixed batch.
    static final int MIXED = 64;
    private static final int SHORTEST = 16;
    private static final int LONGEST = 512;

    private Lengths() {}

    /// `count` sequences of `each` tokens.
    static int[] equal(int count, int each) {
        int[] lengths = new int[count];
        Arrays.fill(lengths, each);
        return lengths;
    }

    /// The same number of sequences and tokens as `other`, with lengths that differ by at most 1.
    static int[] levelled(int[] other) {
        int total = Arrays.stream(other).sum();
        int[] lengths = equal(other.length, total / other.length);
        for (int i = 0; i < total % other.length; i++) lengths[i]++;
        return lengths;
    }

    /// [#MIXED] sequences whose lengths are log-uniform from 16 to 512.
    static int[] mixed(long seed) {
        SplittableRandom chance = new SplittableRandom(seed);
        double ratio = Math.log((double) LONGEST / SHORTEST);
        int[] lengths = new int[MIXED];
        for (int i = 0; i < MIXED; i++)
            lengths[i] = (int) Math.round(SHORTEST * Math.exp(ratio * chance.nextDouble()));
        return lengths;
    }

    /// Lengths log-uniform from [#SHORTEST] to `longest` with a sum of `total`; the last one is what is left.
    static int[] logUniform(int total, int longest, long seed) {
        SplittableRandom chance = new SplittableRandom(seed);
        int shortest = Math.min(SHORTEST, longest);
        double ratio = Math.log((double) longest / shortest);
        List<Integer> lengths = new ArrayList<>();
        for (int left = total; left > 0; left -= lengths.getLast())
            lengths.add(Math.min(left, (int) Math.round(shortest * Math.exp(ratio * chance.nextDouble()))));
        return lengths.stream().mapToInt(Integer::intValue).toArray();
    }
}
