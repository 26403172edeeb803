package bios.worker.device.cuda;

import bios.worker.device.DType;
import java.util.List;
import java.util.stream.Stream;

/// A kernel of few_rows.cu or few_rows_clusters.cu for up to `rows` rows.
///
/// @param warpGroups groups of features of a warp
/// @param rowWarps number of warps that divide the rows of one group of features among them
/// @param terms of a stage, of which there are `stages`
/// @param cluster number of blocks that share copies of the rows; 1: each copies all
record FewRowsKernel(String name, int rows, int warpGroups, int rowWarps, int terms, int stages,
        int cluster) {
    /// Most rows of any.
    static final int MOST = 64;
    /// Features of a group.
    static final int GROUP = 16;
    /// Most warps of a block.
    private static final int WARPS = 16;
    private static final int WARP = 32;
    /// Size of `struct Corrections`.
    private static final int CORRECTIONS_BYTES = 2056;
    /// What a kernel whose blocks share rows has beyond others: bytes of a row in a stage, of the barriers of
    /// a stage, and warps that copy rows.
    private static final int ROW_BYTES = 16, BARRIER_BYTES = 16, ROW_COPIERS = 1;
    private static final List<FewRowsKernel> ALL = List.of(
            new FewRowsKernel("few_rows_8_256", 8, 1, 256, 4),
            new FewRowsKernel("few_rows_8_128", 8, 1, 128, 4),
            new FewRowsKernel("few_rows_16_256", 16, 1, 256, 4),
            new FewRowsKernel("few_rows_16_128", 16, 1, 128, 4),
            new FewRowsKernel("few_rows_32_256", 32, 2, 256, 4),
            new FewRowsKernel("few_rows_32_128", 32, 1, 128, 4),
            new FewRowsKernel("few_rows_64_256", MOST, 2, 256, 4),
            new FewRowsKernel("few_rows_64_128_pairs", MOST, 2, 2, 128, 3, 1),
            new FewRowsKernel("few_rows_64_128", MOST, 1, 128, 3),
            new FewRowsKernel("few_rows_64_256_of_2", MOST, 1, 2, 256, 4, 2),
            new FewRowsKernel("few_rows_64_256_of_4", MOST, 1, 2, 256, 4, 4),
            new FewRowsKernel("few_rows_64_128_of_2", MOST, 1, 2, 128, 4, 2),
            new FewRowsKernel("few_rows_64_128_of_4", MOST, 1, 2, 128, 4, 4),
            new FewRowsKernel("few_rows_64_128_pairs_of_2", MOST, 2, 2, 128, 3, 2),
            new FewRowsKernel("few_rows_64_128_pairs_of_4", MOST, 2, 2, 128, 3, 4));

    private FewRowsKernel(String name, int rows, int rowWarps, int terms, int stages) {
        this(name, rows, 1, rowWarps, terms, stages, 1);
    }

    /// The kernels for so many rows of `in` terms whose least blocks a card has room for.
    ///
    /// @param sharing whether blocks may share copies of the rows
    static Stream<FewRowsKernel> of(int rows, int in, CudaCard card, boolean sharing) {
        int most = rowsFor(rows);
        return ALL.stream().filter(kernel -> kernel.rows == most && kernel.mostGroups(card) > 0
                && (!kernel.sharesRows() || sharing && card.warpgroups() && in % kernel.terms == 0));
    }

    /// Whether blocks share copies of the rows, which must have whole stages then.
    boolean sharesRows() {
        return cluster > 1;
    }

    /// The rows that the kernels for so many rows are for.
    static int rowsFor(int rows) {
        return ALL.stream().mapToInt(FewRowsKernel::rows).filter(some -> some >= rows).min().orElseThrow();
    }

    /// Most groups of GROUP features of a block, as many for each warp: of its warps but one, or
    /// two where one copies rows, and of what a card has of shared memory.
    int mostGroups(CudaCard card) {
        int features = (card.sharedBytesPerBlock() - sharedBytes(0)) / (stages * terms * DType.BF16.bytes());
        int warps = (WARPS - 1 - rowCopiers()) / rowWarps;
        return Math.min(warps, features / GROUP / warpGroups) * warpGroups;
    }

    /// Threads of a block with this many groups: the warps that multiply or copy, and the one that copies
    /// shared rows, and `lowWarps` warps that
    /// compute low-rank products, at least one and as many as the block has room for.
    int threads(int groups, int lowWarps) {
        int busy = Math.max(terms < 256 ? 12 : 8, groups / warpGroups * rowWarps);
        int others = rowCopiers();
        return WARP * (busy + others + Math.clamp(lowWarps, 1, WARPS - busy - others));
    }

    private int rowCopiers() {
        return sharesRows() ? ROW_COPIERS : 0;
    }

    /// Bytes of shared memory of a block with this many groups.
    int sharedBytes(int groups) {
        int ofRows = sharesRows() ? rows * ROW_BYTES + BARRIER_BYTES : 0;
        return stages * ((groups * GROUP + rows) * terms * DType.BF16.bytes() + ofRows) + CORRECTIONS_BYTES;
    }
}
