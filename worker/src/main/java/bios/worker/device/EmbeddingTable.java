package bios.worker.device;

/// A frozen matrix `[n, columns]` from which rows are gathered ([Device#embed]): the embedding of a base
/// model. Created by [Device#table].
public interface EmbeddingTable {
    /// Number of rows.
    int rows();

    /// Number of columns.
    int columns();
}
