package bios.worker.device;

import java.util.List;
import java.util.Optional;

/// Properties of this machine, read or measured, for `bios doctor` and benchmarks.
public interface Hardware {
    /// Names of the paths that this machine can execute, fastest first: values of `bios.engine.cpu.path`.
    List<String> paths();

    /// The path that `auto` selects.
    String bestPath();

    /// A benchmark of products with a vendor's library, with this many threads; empty if none can be loaded.
    Optional<MatmulBaseline> matmulBaseline(int threads);

    /// Bytes per second at which this many threads read memory that is in no cache.
    double readBytesPerSecond(int threads);
}
