package bios.persistence;

import io.prometheus.metrics.core.metrics.Counter;
import io.prometheus.metrics.core.metrics.Histogram;

/// The metrics of this module, in the process's registry; `docs/reference/metrics.md` describes each.
public final class Metrics {
    /// Upper bounds of histograms of seconds, from a memory access to a large upload.
    private static final double[] SECONDS =
            {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};

    /// Calls of the blob store; `operation` is `write`, `read`, `exists`, `delete` or `list`, `outcome` is
    /// `done` or `failed`.
    public static final Counter BLOB_OPERATIONS = Counter.builder().name("bios_blob_operations_total")
            .help("Calls of the blob store, by operation and outcome.")
            .labelNames("operation", "outcome").register();

    /// Bytes written to and read from the blob store; `direction` is `written` or `read`.
    public static final Counter BLOB_BYTES = Counter.builder().name("bios_blob_bytes_total")
            .help("Bytes written to and read from the blob store.").labelNames("direction").register();

    /// Seconds that calls of the blob store took; a read is measured until its last byte.
    public static final Histogram BLOB_SECONDS = Histogram.builder().name("bios_blob_operation_seconds")
            .help("Seconds of a call of the blob store, a read until its last byte.")
            .labelNames("operation").classicOnly().classicUpperBounds(SECONDS).register();

    /// Reads that found a damaged blob.
    public static final Counter BLOB_DAMAGED = Counter.builder().name("bios_blob_damaged_total")
            .help("Reads that found a damaged blob.").register();

    /// Reads of a blob that is not in the store.
    public static final Counter BLOB_MISSING = Counter.builder().name("bios_blob_missing_total")
            .help("Reads of a blob that is not in the store.").register();

    private Metrics() {}
}
