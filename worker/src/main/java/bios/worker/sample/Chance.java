package bios.worker.sample;

/// Random numbers by counter: token `token` of sequence `sample` sees a number that depends on (seed, sample,
/// token) and on nothing else, so a request gives the same tokens in any company, on any worker, and after
/// being taken up again. SplitMix64's finalizer (Steele, Lea & Flood 2014) over the three in turn.
final class Chance {
    private static final long GOLDEN = 0x9E3779B97F4A7C15L;

    private Chance() {}

    /// Uniform in [0, 1) with 53 bits.
    static double uniform(long seed, int sample, int token) {
        long stream = mix(mix(seed + GOLDEN) + (sample + 1) * GOLDEN);
        return (mix(stream + (token + 1) * GOLDEN) >>> 11) * 0x1p-53;
    }

    private static long mix(long z) {
        z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
        z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
        return z ^ (z >>> 31);
    }
}
