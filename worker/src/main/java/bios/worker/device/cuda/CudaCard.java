package bios.worker.device.cuda;

/// A card that the driver lists.
///
/// @param index its number for the driver, from 0
/// @param uuid as `nvidia-smi -L` prints it, `GPU-…`
/// @param major compute capability
/// @param minor compute capability
/// @param memoryBytes all memory of the card
/// @param sharedBytesPerBlock most that a block can have of a multiprocessor's shared memory
/// @param cacheBytes of the cache that all multiprocessors share
record CudaCard(int index, String name, String uuid, int major, int minor, long memoryBytes,
        int multiprocessors, int sharedBytesPerBlock, int cacheBytes) {
    /// The lowest compute capability of the kernels: bf16 tensor cores and asynchronous copies.
    static final int LEAST_MAJOR = 8;

    /// Whether it has the products of warpgroups, and copies to the shared memory of several blocks, which
    /// kernels are written for: a Hopper card.
    boolean warpgroups() {
        return major == 9 && minor == 0;
    }

    /// Whether a kernel can begin before the one before it has ended.
    boolean earlyLaunches() {
        return major >= 9;
    }

    /// The name of the architecture that kernels are compiled for: with all instructions of a Hopper card.
    String architecture() {
        return warpgroups() ? "sm_90a" : "sm_" + major + minor;
    }

    /// Whether kernels are written for such a card.
    boolean supported() {
        return major >= LEAST_MAJOR;
    }

    @Override public String toString() {
        return "%d: %s, %s, compute capability %d.%d, %.1f GiB".formatted(index, name, uuid, major, minor,
                memoryBytes / (double) (1L << 30));
    }
}
