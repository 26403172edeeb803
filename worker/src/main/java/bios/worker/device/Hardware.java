package bios.worker.device;

import java.util.List;
import java.util.Optional;

/// The capabilities of this machine, detected or measured, for `bios doctor` and benchmarks.
public interface Hardware {
    /// Names of the paths that this machine can execute, fastest first: values of `bios.engine.cpu.path`.
    List<String> paths();

    /// The path that `auto` selects.
    String bestPath();

    /// The rate of products of a library alone, with so many threads; empty if no library loads.
    Optional<Ceiling> ceiling(int threads);

    /// Bytes per second at which so many threads read memory that is in no cache.
    double readBytesPerSecond(int threads);
}
