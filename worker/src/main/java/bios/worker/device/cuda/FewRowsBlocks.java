package bios.worker.device.cuda;

import bios.worker.device.DType;
import java.util.Comparator;
import java.util.List;
import java.util.stream.IntStream;

/// A kernel for few rows and the groups of features of its blocks. A row has the same bits with any.
record FewRowsBlocks(FewRowsKernel kernel, int groups) {
    /// Most that are tried for a product, and the most that they may copy, in shares of the least.
    private static final int MOST_TRIED = 16;
    private static final double MOST_COPIES = 2.2;

    /// A product of up to `rows` rows of `in` terms with weights of these numbers of features.
    record Work(int rows, int in, List<Integer> columns) {
        /// Bytes of the weights.
        long weightBytes() {
            return columns.stream().mapToLong(features -> (long) features * in * DType.BF16.bytes()).sum();
        }
    }

    /// The blocks for a product, least copies of a multiprocessor first: large blocks share the rows that
    /// their features are multiplied with, small ones are spread more evenly. What a multiprocessor copies
    /// decides where its own speed is the limit. Where that of the cache is, fewer and larger blocks are
    /// faster: they read the rows less often.
    static List<FewRowsBlocks> worthTrying(Work work, CudaCard card) {
        var all = FewRowsKernel.of(work.rows, card).flatMap(kernel -> IntStream
                .rangeClosed(1, kernel.mostGroups(card))
                .mapToObj(groups -> new FewRowsBlocks(kernel, groups)))
                .sorted(Comparator.comparingLong(blocks -> blocks.copies(work, card))).toList();
        double most = MOST_COPIES * all.getFirst().copies(work, card);
        return all.stream().filter(blocks -> blocks.copies(work, card) <= most).limit(MOST_TRIED).toList();
    }

    /// Blocks of a launch.
    int tiles(List<Integer> columns) {
        return columns.stream().mapToInt(features -> Math.ceilDiv(features, groups * FewRowsKernel.GROUP))
                .sum();
    }

    /// Threads of a block if `tiles` of them compute that many items of low-rank products on a card.
    int threads(int items, int tiles, CudaCard card) {
        return kernel.threads(groups, Math.ceilDiv(items, Math.min(tiles, card.multiprocessors())));
    }

    int sharedBytes() {
        return kernel.sharedBytes(groups);
    }

    /// What one multiprocessor copies of each term: rows of weights and of x.
    private long copies(Work work, CudaCard card) {
        return (long) Math.ceilDiv(tiles(work.columns), card.multiprocessors())
                * (groups * FewRowsKernel.GROUP + kernel.rows());
    }

    @Override public String toString() {
        return kernel.name() + " with " + groups * FewRowsKernel.GROUP + " features a block";
    }
}
