package bios.worker.device;

import com.typesafe.config.Config;
import java.util.Optional;

/// Which device the engine computes on, and how.
///
/// @param path name of a way to compute on the CPU, or `auto`
/// @param activations at bf16 weights; empty: what the path computes fastest with enough digits
/// @param threads of the device, the caller's included
/// @param memoryBytes most bytes for tensors, scratch and weights
public record DeviceSettings(String path, Optional<Activations> activations, int threads, long memoryBytes) {
    /// The path that the kind of processor decides.
    public static final String AUTO = "auto";

    /// So many threads, everything else decided by the kind of processor.
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

    /// The same with so much memory.
    public DeviceSettings withMemory(long bytes) {
        return new DeviceSettings(path, activations, threads, bytes);
    }
}
