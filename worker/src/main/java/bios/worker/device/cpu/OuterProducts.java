package bios.worker.device.cpu;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;

/// Sums over tokens, g += s·yᵀ·x, by oneDNN. The factor with fewer columns is transposed into pieces
/// `[columns, depth]`, the other is read in place; the product is transposed back, if necessary, while it is
/// added to g. The number of rows alone determines the pieces and their order; each panel of columns is a
/// task.
final class OuterProducts implements AutoCloseable {
    private static final int PANEL_COLUMNS = 512;
    private static final int MAX_PIECE_TOKENS = 256;
    private static final int MIN_PIECE_TOKENS = 8;

    /// `count` tokens from `row`, padded with zeros to `depth`.
    private record Piece(int row, int count, int depth) {}

    private final Pool pool;
    private final Workspace[] workspaces;
    private final DnnlKernels kernels;
    private final NativeBuffer[] threadBuffers;
    private final NativeBuffer left;
    private final NativeBuffer result;

    OuterProducts(Pool pool, Memory memory, Workspace[] workspaces, DnnlKernels kernels,
            NativeBuffer[] threadBuffers) {
        left = new NativeBuffer(memory);
        result = new NativeBuffer(memory);
        this.pool = pool;
        this.workspaces = workspaces;
        this.kernels = kernels;
        this.threadBuffers = threadBuffers;
    }

    /// Depths are powers of two, so that a few kernels suffice for any number of tokens.
    private static List<Piece> pieces(int rows) {
        var pieces = new ArrayList<Piece>();
        for (int row = 0; row < rows; ) {
            int depth = Math.clamp(Integer.highestOneBit(rows - row), MIN_PIECE_TOKENS, MAX_PIECE_TOKENS);
            int count = Math.min(depth, rows - row);
            pieces.add(new Piece(row, count, depth));
            row += count;
        }
        return pieces;
    }

    void add(HostTensor g, HostTensor y, HostTensor x, float s) {
        boolean transposed = y.columns() > x.columns();
        var small = transposed ? x : y;
        var large = transposed ? y : x;
        var pieces = pieces(x.rows());
        transpose(small, pieces);
        multiply(small.columns(), large, pieces);
        int n = large.columns();
        var product = new HostTensor(result.atLeast(0), small.columns(), n, n);
        if (transposed) addTransposed(g, product, s);
        else addRows(g, product, s);
    }

    /// left ← the pieces of the small factor, transposed.
    private void transpose(HostTensor small, List<Piece> pieces) {
        int m = small.columns();
        var to = left.atLeast(4L * m * (small.rows() + MIN_PIECE_TOKENS));
        pool.run(pieces.size(), (i, thread) -> {
            var piece = pieces.get(i);
            float[] rows = workspaces[thread].row(0, m);
            float[] columns = workspaces[thread].zeros(1, m * piece.depth);
            for (int t = 0; t < piece.count; t++) {
                Rows.load(rows, small, piece.row + t);
                for (int j = 0; j < m; j++) columns[j * piece.depth + t] = rows[j];
            }
            MemorySegment.copy(columns, 0, to, ValueLayout.JAVA_FLOAT, 4L * m * piece.row, m * piece.depth);
        });
    }

    /// result `[m, n]` ← Σ of the pieces, panel by panel.
    private void multiply(int m, HostTensor large, List<Piece> pieces) {
        int n = large.columns();
        var from = left.atLeast(0);
        var to = result.atLeast(4L * m * n);
        int panels = (n + PANEL_COLUMNS - 1) / PANEL_COLUMNS;
        var compiled = new DnnlKernels.Kernel[panels][pieces.size()];
        for (int p = 0; p < panels; p++) {
            int width = Math.min(PANEL_COLUMNS, n - p * PANEL_COLUMNS);
            for (int i = 0; i < pieces.size(); i++) {
                var piece = pieces.get(i);
                int stride = piece.count == piece.depth ? large.stride() : width;
                compiled[p][i] = kernels.plainProduct(m, piece.depth, width, stride, n, false, i > 0);
            }
        }
        pool.run(panels, (p, thread) -> {
            int width = Math.min(PANEL_COLUMNS, n - p * PANEL_COLUMNS);
            for (int i = 0; i < pieces.size(); i++) {
                var piece = pieces.get(i);
                long at = 4 * ((long) piece.row * large.stride() + p * PANEL_COLUMNS);
                var right = piece.count == piece.depth ? large.memory().asSlice(at)
                        : padded(threadBuffers[thread], large, at, piece, width);
                compiled[p][i].run(thread, from.asSlice(4L * m * piece.row), right,
                        to.asSlice(4L * p * PANEL_COLUMNS));
            }
        });
    }

    private static MemorySegment padded(NativeBuffer buffer, HostTensor large, long at, Piece piece,
            int width) {
        var rows = buffer.atLeast(4L * piece.depth * width).asSlice(0, 4L * piece.depth * width);
        rows.fill((byte) 0);
        for (int t = 0; t < piece.count; t++) {
            MemorySegment.copy(large.memory(), at + 4L * t * large.stride(), rows, 4L * t * width,
                    4L * width);
        }
        return rows;
    }

    private void addRows(HostTensor g, HostTensor product, float s) {
        int n = g.columns();
        float[] sum = workspaces[0].row(0, n);
        float[] term = workspaces[0].row(1, n);
        for (int i = 0; i < g.rows(); i++) {
            Rows.load(sum, g, i);
            Rows.load(term, product, i);
            for (int j = 0; j < n; j++) sum[j] += s * term[j];
            Rows.store(g, i, sum);
        }
    }

    /// g += s·productᵀ, 64 rows of g at a time.
    private void addTransposed(HostTensor g, HostTensor product, float s) {
        int n = g.columns();
        pool.run((g.rows() + 63) / 64, (task, thread) -> {
            int from = task * 64;
            int count = Math.min(64, g.rows() - from);
            float[] tile = workspaces[thread].row(0, 64 * n);
            float[] sum = workspaces[thread].row(1, n);
            for (int j = 0; j < n; j++) Rows.load(tile, j * 64, product, j, from, count);
            for (int i = 0; i < count; i++) {
                Rows.load(sum, g, from + i);
                for (int j = 0; j < n; j++) sum[j] += s * tile[j * 64 + i];
                Rows.store(g, from + i, sum);
            }
        });
    }

    @Override public void close() {
        left.close();
        result.close();
    }
}
