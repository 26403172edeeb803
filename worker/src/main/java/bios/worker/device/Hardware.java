package bios.worker.device;

import java.util.List;
import java.util.Optional;

/// What this machine offers to the engine, read or measured: for `bios doctor` and for benchmarks.
public interface Hardware {
    /// Names of the paths that this machine can execute, fastest first: values of `bios.engine.cpu.path`.
    List<String> paths();

    /// The path that `auto` takes.
    String bestPath();

    /// The rate of products by a library alone, with so many threads; empty where no library runs.
    Optional<Ceiling> ceiling(int threads);

    /// Bytes per second at which so many threads read memory that no cache holds.
    double readBytesPerSecond(int threads);
}
