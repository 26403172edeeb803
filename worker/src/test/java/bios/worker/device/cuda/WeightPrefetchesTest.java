package bios.worker.device.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.worker.device.CudaSettings.SharedRows;
import bios.worker.device.DType;
import bios.worker.device.cuda.FewRowsBlocks.Work;
import bios.worker.device.cuda.WeightPrefetches.Ahead;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;

/// What the products of a layer of 4096 elements ask the cache of an H100 for, and the blocks that are worth
/// trying for them.
final class WeightPrefetchesTest {
    private static final int CACHE = 48 << 20, IN = 4096;
    private static final CudaCard H100 = new CudaCard(0, "H100", "GPU-0", 9, 0, 80L << 30, 132, 227 << 10,
            CACHE);
    private static final CudaCard A100 = new CudaCard(0, "A100", "GPU-0", 8, 0, 80L << 30, 108, 163 << 10,
            CACHE);
    private static final CudaTensor Q = weight(1, 4096), K = weight(2, 1024), V = weight(3, 1024),
            O = weight(4, 4096), GATE = weight(5, 12288), UP = weight(6, 12288);

    private final WeightPrefetches prefetches = new WeightPrefetches(H100, true);

    private static CudaTensor weight(int number, int rows) {
        return new CudaTensor((long) number << 32, DType.BF16, rows, IN, IN);
    }

    private static Work work(int rows, List<CudaTensor> weights) {
        return new Work(rows, IN, weights.stream().map(CudaTensor::rows).toList());
    }

    private Ahead next(CudaTensor... weights) {
        var all = List.of(weights);
        var work = work(8, all);
        return prefetches.of(work, all, FewRowsBlocks.worthTrying(work, H100, SharedRows.AUTO).getFirst());
    }

    /// In the second step it is known that o comes after q, k and v. Of the rows of o a third of the cache is
    /// asked for, and o does not ask for its own weights then.
    @Test void aProductAsksForTheOneThatCameAfterItTheLastTime() {
        assertEquals(Optional.empty(), next(Q, K, V).next());
        prefetches.reads(1 << 20);
        assertTrue(next(O).slices() > 0);
        assertEquals(Optional.empty(), next(GATE, UP).next());
        var second = next(Q, K, V);
        assertEquals(Optional.of(O), second.next());
        assertEquals(CACHE / 3 / 4096 / 128 * 128, second.bytes());
        var o = next(O);
        assertEquals(0, o.slices());
        // several projections are not asked for
        assertEquals(Optional.empty(), o.next());
        assertEquals(0, o.bytes());
    }

    /// A third of the cache is 4 stages of 128 terms of gate and up, 3 of which are copied at once.
    @Test void aProductAsksForStagesBeyondTheOnesThatItCopiesFirst() {
        var work = work(8, List.of(GATE, UP));
        var blocks = FewRowsBlocks.worthTrying(work, H100, SharedRows.OFF).getFirst();
        assertEquals(Math.max(0, CACHE / 3 / (24576 * 2 * blocks.kernel().terms()) - blocks.kernel().stages()
                + 1), next(GATE, UP).slices());
        assertTrue(next(Q, K, V).slices() > 0);
    }

    @Test void nothingIsAskedForAcrossALongAttention() {
        for (int step = 0; step < 3; step++) {
            assertEquals(Optional.empty(), next(Q, K, V).next());
            prefetches.reads(CACHE / 4 + 1);
            next(O);
        }
    }

    @Test void nothingIsAskedForWithoutThem() {
        var off = new WeightPrefetches(H100, false);
        for (int step = 0; step < 2; step++)
            for (var weight : List.of(Q, O)) {
                var work = work(8, List.of(weight));
                assertEquals(Ahead.NONE, off.of(work, List.of(weight), FewRowsBlocks.worthTrying(work, H100,
                        SharedRows.AUTO).getFirst()));
            }
    }

    /// Those that share rows come last, are alone if they are asked for, and need a card, many rows and whole
    /// stages.
    @Test void blocksShareRowsWhereTheyCan() {
        var work = work(64, List.of(O));
        var tried = FewRowsBlocks.worthTrying(work, H100, SharedRows.AUTO);
        var own = FewRowsBlocks.worthTrying(work, H100, SharedRows.OFF);
        assertEquals(own, tried.subList(0, own.size()));
        assertEquals(FewRowsBlocks.worthTrying(work, H100, SharedRows.ON), tried.subList(own.size(),
                tried.size()));
        assertTrue(own.stream().noneMatch(blocks -> blocks.kernel().sharesRows()));
        assertTrue(tried.subList(own.size(), tried.size()).stream().allMatch(blocks -> blocks.kernel()
                .sharesRows() && blocks.tiles(work.columns()) % blocks.kernel().cluster() == 0));
        assertTrue(tried.size() > own.size());
        for (var few : List.of(work(8, List.of(O)), new Work(64, IN + 8, List.of(IN))))
            assertEquals(FewRowsBlocks.worthTrying(few, H100, SharedRows.OFF), FewRowsBlocks.worthTrying(few,
                    H100, SharedRows.ON));
        assertTrue(FewRowsBlocks.worthTrying(work, A100, SharedRows.ON).stream().noneMatch(blocks -> blocks
                .kernel().sharesRows()));
    }

    /// Every kernel fits its block and what a card has of shared memory.
    @Test void blocksFitTheCard() {
        for (int rows : new int[] {8, 16, 32, 64})
            for (var blocks : FewRowsBlocks.worthTrying(work(rows, List.of(GATE, UP)), H100,
                    SharedRows.AUTO)) {
                assertTrue(blocks.sharedBytes() <= H100.sharedBytesPerBlock(), blocks.toString());
                int threads = blocks.threads(1000, 128, H100);
                assertTrue(threads <= 512 && threads % 32 == 0, blocks + ": " + threads);
            }
    }
}
