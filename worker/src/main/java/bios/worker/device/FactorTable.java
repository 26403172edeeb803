package bios.worker.device;

import java.util.Optional;

/// The low-rank factors of an adapter, or their gradients, by site. A site is a matrix of the model that an
/// adapter may correct; the model numbers them from 0.
public interface FactorTable {
    /// Number of sites of the model.
    int sites();

    /// The factors at a site; empty where the adapter does not correct it.
    Optional<Factor> at(int site);

    /// The two factors of one site, transposed as products take them.
    ///
    /// @param a `[in, rank]`
    /// @param b `[rank, out]`
    record Factor(Tensor a, Tensor b) {
        /// Columns of A, rows of B.
        public int rank() {
            return a.columns();
        }
    }
}
