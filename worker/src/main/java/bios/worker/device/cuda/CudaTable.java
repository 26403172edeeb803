package bios.worker.device.cuda;

import bios.worker.device.Table;

/// A frozen matrix in the card's memory, for embeddings.
record CudaTable(CudaTensor matrix) implements Table {
    static CudaTable of(Table table) {
        if (table instanceof CudaTable own) return own;
        throw new IllegalArgumentException("a table of another device");
    }

    @Override public int rows() {
        return matrix.rows();
    }

    @Override public int columns() {
        return matrix.columns();
    }
}
