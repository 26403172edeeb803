package bios.worker.device.cpu;

import bios.worker.device.FrozenMatrix;
import bios.worker.device.NotFiniteWeight;
import bios.worker.kernel.HalfFloats;
import java.util.concurrent.atomic.AtomicLong;

/// Finds the first element of a frozen matrix that is infinite or NaN. Tasks that pack the matrix scan their
/// rows just before, so that the memory is read once.
final class FiniteScan {
    private static final int ROWS = 64;

    private final FrozenMatrix matrix;
    private final AtomicLong first = new AtomicLong(Long.MAX_VALUE);

    FiniteScan(FrozenMatrix matrix) {
        this.matrix = matrix;
    }

    /// Scans the whole matrix; throws [NotFiniteWeight].
    static void all(FrozenMatrix matrix, Pool pool) {
        FiniteScan scan = new FiniteScan(matrix);
        pool.runInOrder(Math.ceilDiv(matrix.rows(), ROWS), (task, _) -> scan.rows(task * ROWS, ROWS));
        if (matrix.memory().isMapped()) Linux.release(matrix.memory());
        scan.finish();
    }

    /// Scans rows `row` to `row + count`, or to the last.
    void rows(int row, int count) {
        long found = HalfFloats.firstNotFinite(matrix, row, Math.min(count, matrix.rows() - row));
        if (found >= 0) first.accumulateAndGet(found, Math::min);
    }

    /// Throws [NotFiniteWeight] if an element was found.
    void finish() {
        if (first.get() < Long.MAX_VALUE) throw new NotFiniteWeight(matrix, first.get());
    }
}
