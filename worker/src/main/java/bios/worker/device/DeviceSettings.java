package bios.worker.device;

import com.typesafe.config.Config;
import java.util.Optional;

/// The settings of the device that the engine computes on.
///
/// @param path name of a CPU path, or `auto`
/// @param activations how activations are multiplied by bf16 weights; empty: the path's default
/// @param threads number of threads of the device, the caller's included
/// @param memoryBytes most bytes for tensors, scratch and weights
public record DeviceSettings(String path, Optional<Activations> activations, int threads, long memoryBytes) {
    /// Selects the path by the kind of processor.
    public static final String AUTO = "auto";

    /// So many threads; everything else is selected by the kind of processor.
    public static DeviceSettings ofThreads(int threads) {
        return new DeviceSettings(AUTO, Optional.empty(), threads, Long.MAX_VALUE);
    }

    /// Reads `bios.engine` of a program's configuration.
    ///
    /// @throws com.typesafe.config.ConfigException if a value is unknown or this machine cannot execute the
    ///     path
    public static DeviceSettings of(Config program, int threads) {
        String path = program.getString("bios.engine.cpu.path");
        Devices.require(path, program);
        return new DeviceSettings(path, Activations.of(program), threads, HostMemory.limit(program));
    }

    /// The same with this path.
    public DeviceSettings withPath(String path) {
        return new DeviceSettings(path, activations, threads, memoryBytes);
    }

    /// The same with this treatment of activations.
    public DeviceSettings withActivations(Activations activations) {
        return new DeviceSettings(path, Optional.of(activations), threads, memoryBytes);
    }

    /// The same with this memory limit.
    public DeviceSettings withMemory(long bytes) {
        return new DeviceSettings(path, activations, threads, bytes);
    }
}
