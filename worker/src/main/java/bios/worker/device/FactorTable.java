package bios.worker.device;

import java.util.Optional;

/// The low-rank factors of an adapter, or their gradients, by site. A site is a matrix of the model to which
/// an adapter may add a correction; sites are numbered from 0.
public interface FactorTable {
    /// Number of sites of the model.
    int sites();

    /// The factors at a site; empty if the adapter has none there.
    Optional<Factor> at(int site);

    /// The two factors of one site, in the transposed layout that products use.
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
