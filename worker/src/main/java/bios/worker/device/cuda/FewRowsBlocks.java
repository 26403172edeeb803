package bios.worker.device.cuda;

import bios.worker.device.CudaSettings.SharedRows;
import bios.worker.device.DType;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/// A kernel for few rows and the groups of features of its blocks. A row has the same bits with any.
record FewRowsBlocks(FewRowsKernel kernel, int groups) {
    /// Most that are tried for a product, of those whose blocks share rows and of the others; and the most
    /// that they may copy, in shares of the least.
    private static final int MOST_TRIED = 16;
    private static final double MOST_COPIES = 2.2;
    /// The blocks of a cluster are in one part of a card, of 16 or 18 multiprocessors.
    private static final int PART = 16;

    /// A product of up to `rows` rows of `in` terms with weights of these numbers of features.
    record Work(int rows, int in, List<Integer> columns) {
        /// Bytes of the weights.
        long weightBytes() {
            return columns.stream().mapToLong(features -> (long) features * in * DType.BF16.bytes()).sum();
        }
    }

    /// The blocks for a product, first those that copy all rows, then those that share them where that is
    /// possible; among both, least copies of a multiprocessor first: large blocks share the rows that
    /// their features are multiplied with, small ones are spread more evenly. What a multiprocessor copies
    /// decides where its own speed is the limit. Where that of the cache is, fewer and larger blocks are
    /// faster: they read the rows less often.
    /// If sharing is `ON` and there are some that share rows, there are no others.
    static List<FewRowsBlocks> worthTrying(Work work, CudaCard card, SharedRows sharing) {
        var kernels = FewRowsKernel.of(work.rows, work.in, card, sharing != SharedRows.OFF)
                .collect(Collectors.partitioningBy(FewRowsKernel::sharesRows));
        var shared = leastCopies(kernels.get(true), work, card);
        if (sharing == SharedRows.ON && !shared.isEmpty()) return shared;
        return Stream.concat(leastCopies(kernels.get(false), work, card).stream(), shared.stream()).toList();
    }

    private static List<FewRowsBlocks> leastCopies(List<FewRowsKernel> kernels, Work work, CudaCard card) {
        var all = kernels.stream().flatMap(kernel -> IntStream.rangeClosed(1, kernel.mostGroups(card)
                / kernel.warpGroups()).mapToObj(n -> new FewRowsBlocks(kernel, n * kernel.warpGroups())))
                .sorted(Comparator.comparingLong(blocks -> blocks.copies(work, card))).toList();
        if (all.isEmpty()) return all;
        double most = MOST_COPIES * all.getFirst().copies(work, card);
        return all.stream().filter(blocks -> blocks.copies(work, card) <= most).limit(MOST_TRIED).toList();
    }

    /// Blocks of a launch, whole clusters of them.
    int tiles(List<Integer> columns) {
        int tiles = columns.stream().mapToInt(features -> Math.ceilDiv(features, groups
                * FewRowsKernel.GROUP)).sum();
        return Math.ceilDiv(tiles, kernel.cluster()) * kernel.cluster();
    }

    /// Threads of a block if `tiles` of them compute that many items of low-rank products on a card.
    int threads(int items, int tiles, CudaCard card) {
        return kernel.threads(groups, Math.ceilDiv(items, Math.min(tiles, card.multiprocessors())));
    }

    int sharedBytes() {
        return kernel.sharedBytes(groups);
    }

    /// Stages whose weights are so many bytes, beyond those that are copied at the beginning.
    int stagesOf(Work work, int bytes) {
        long ofStage = work.weightBytes() / work.in * kernel.terms();
        return (int) Math.max(0, Math.min(bytes / ofStage, Math.ceilDiv(work.in, kernel.terms()))
                - kernel.stages() + 1);
    }

    /// What one multiprocessor copies of each term: rows of weights and of x.
    private long copies(Work work, CudaCard card) {
        int all = card.multiprocessors();
        int atOnce = kernel.cluster() > 2 && all > PART ? all / PART * PART : all;
        return (long) Math.ceilDiv(tiles(work.columns), atOnce) * (groups * FewRowsKernel.GROUP
                + kernel.rows());
    }

    @Override public String toString() {
        return kernel.name() + " with " + groups * FewRowsKernel.GROUP + " features a block";
    }
}
