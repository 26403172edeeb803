package bios.worker.device;

import bios.worker.kernel.HalfFloats;

/// A frozen matrix has an element that is infinite or NaN.
public final class NotFiniteWeight extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param index of the first such element, row by row
    public NotFiniteWeight(FrozenMatrix matrix, long index) {
        super(HalfFloats.element(matrix, index) + " at [" + index / matrix.columns() + ", "
                + index % matrix.columns() + "]");
    }
}
