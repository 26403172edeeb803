package bios.worker.adapter;

/// Random numbers by counter: element i of a stream is a function of (stream, i), so it does not matter in
/// which order or by how many threads they are drawn. SplitMix64's finalizer (Steele, Lea & Flood 2014).
final class Seeds {
    private static final long GOLDEN = 0x9E3779B97F4A7C15L;

    private Seeds() {}

    /// The stream of a tensor: a function of the seed and the tensor's name (64-bit FNV-1a).
    static long stream(long seed, String name) {
        long hash = 0xCBF29CE484222325L;
        for (int i = 0; i < name.length(); i++) hash = (hash ^ name.charAt(i)) * 0x100000001B3L;
        return mix(mix(seed + GOLDEN) ^ hash);
    }

    /// Element i, uniform in [0, 1) with 53 bits.
    static double uniform(long stream, long i) {
        return (mix(stream + (i + 1) * GOLDEN) >>> 11) * 0x1p-53;
    }

    private static long mix(long z) {
        z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
        z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
        return z ^ (z >>> 31);
    }
}
