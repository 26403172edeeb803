package bios.worker.device.cuda;

import bios.worker.device.DType;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// Which weights the products of few rows prefetch into the card's L2 cache. Between two products of
/// decoding, smaller kernels leave the memory idle. A product prefetches its own weights before it waits for
/// the kernel before it, and those of the next product when it is complete. Decode steps repeat their
/// products, so the next product is predicted to be the one that followed the last time. A graph prefetches
/// what was predicted at its capture.
final class WeightPrefetches {
    /// A product's weights may take 1 / PART of the cache. If attention reads more than 1 / READ_PART of it
    /// in between, prefetched weights would be evicted.
    private static final int PART = 3, READ_PART = 4;
    /// Fewer bytes of a row are not worth an instruction; more are whole cache lines.
    private static final int LEAST_BYTES = 512, LINE = 128;

    /// What one launch prefetches: `struct Ahead`.
    ///
    /// @param next weight of the next product, of whose rows the first `bytes` are prefetched
    /// @param slices stages of its own weights beyond those that it copies at its beginning
    record Ahead(Optional<CudaTensor> next, int bytes, int slices) {
        /// Nothing.
        static final Ahead NONE = new Ahead(Optional.empty(), 0, 0);
    }

    /// What came after a product the last time.
    ///
    /// @param weight of the next product, if it was one projection
    /// @param read bytes that attention read in between
    private record Follower(Optional<CudaTensor> weight, long read) {}

    private final CudaCard card;
    private final boolean on;
    /// By the address of a product's first weight. A device keeps its weights.
    private final Map<Long, Follower> followers = new HashMap<>();
    private long lastWeight;
    private long readSince;
    /// Address of the weight of another product that the last launch prefetched; 0 if there is none.
    private long askedFor;

    /// @param on whether anything is prefetched
    WeightPrefetches(CudaCard card, boolean on) {
        this.card = card;
        this.on = on;
    }

    /// Attention reads this many bytes of pages.
    void reads(long bytes) {
        readSince += bytes;
    }

    /// What the launch of a product prefetches; calls are in the order of the launches.
    Ahead of(FewRowsBlocks.Work work, List<CudaTensor> weights, FewRowsBlocks blocks) {
        if (!on) return Ahead.NONE;
        var first = weights.getFirst();
        if (lastWeight != 0) followers.put(lastWeight, new Follower(weights.size() == 1 ? Optional.of(first)
                : Optional.empty(), readSince));
        int cache = card.cacheBytes();
        int slices = askedFor == first.address() ? 0 : blocks.stagesOf(work, cache / PART);
        lastWeight = first.address();
        readSince = 0;
        var next = Optional.ofNullable(followers.get(lastWeight))
                .filter(after -> after.read <= cache / READ_PART).flatMap(Follower::weight)
                .filter(weight -> bytes(weight, cache) >= LEAST_BYTES);
        askedFor = next.map(CudaTensor::address).orElse(0L);
        return new Ahead(next, next.map(weight -> bytes(weight, cache)).orElse(0), slices);
    }

    private static int bytes(CudaTensor weight, int cache) {
        return Math.min(weight.columns() * DType.BF16.bytes(), cache / PART / weight.rows() / LINE
                * LINE);
    }
}
