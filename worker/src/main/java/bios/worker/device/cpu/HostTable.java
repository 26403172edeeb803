package bios.worker.device.cpu;

import bios.worker.device.FrozenMatrix;
import bios.worker.device.EmbeddingTable;

/// A frozen matrix in its file's memory mapping.
record HostTable(FrozenMatrix matrix) implements EmbeddingTable {
    static HostTable of(EmbeddingTable table) {
        if (table instanceof HostTable own) return own;
        throw new IllegalArgumentException("a table of another device");
    }

    @Override public int rows() {
        return matrix.rows();
    }

    @Override public int columns() {
        return matrix.columns();
    }
}
