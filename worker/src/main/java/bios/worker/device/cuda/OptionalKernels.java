package bios.worker.device.cuda;

import bios.worker.device.CudaSettings.Products;
import bios.worker.device.CudaSettings.SharedRows;
import java.util.function.Predicate;
import java.util.function.UnaryOperator;

/// Kernels without which a device computes the same bits, more slowly, in the order in which they are tried.
enum OptionalKernels {
    /// Those of few_rows.cu.
    FEW_ROWS("few-rows", Products::fewRows, products -> products.withFewRows(true),
            products -> products.withFewRows(false)),
    /// Their low-rank products, for which blocks wait for each other.
    LOW_RANK_BESIDE("low-rank-beside", Products::lowRankBeside, products -> products.withLowRankBeside(true),
            products -> products.withLowRankBeside(false)),
    /// Those of few_rows_clusters.cu.
    SHARED_ROWS("shared-rows", products -> products.sharedRows() != SharedRows.OFF,
            products -> products.withSharedRows(SharedRows.ON),
            products -> products.withSharedRows(SharedRows.OFF)),
    /// Their prefetching of weights into the L2 cache.
    PREFETCH("prefetch", Products::prefetches, products -> products.withPrefetches(true),
            products -> products.withPrefetches(false));

    private final String setting;
    private final Predicate<Products> wanted;
    private final UnaryOperator<Products> on;
    private final UnaryOperator<Products> off;

    OptionalKernels(String setting, Predicate<Products> wanted, UnaryOperator<Products> on,
            UnaryOperator<Products> off) {
        this.setting = setting;
        this.wanted = wanted;
        this.on = on;
        this.off = off;
    }

    /// The name of its setting in `bios.engine.cuda`.
    String setting() {
        return setting;
    }

    /// Whether the settings allow these kernels.
    boolean wanted(Products products) {
        return wanted.test(products);
    }

    /// The settings that use these kernels wherever a card can.
    Products on(Products products) {
        return on.apply(products);
    }

    /// The settings without these kernels.
    Products off(Products products) {
        return off.apply(products);
    }
}
