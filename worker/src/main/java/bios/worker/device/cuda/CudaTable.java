package bios.worker.device.cuda;

import bios.worker.device.EmbeddingTable;

/// A frozen matrix in the card's memory, for embeddings.
record CudaTable(CudaTensor matrix) implements EmbeddingTable {
    static CudaTable of(EmbeddingTable table) {
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
