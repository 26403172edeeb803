package bios.worker.device;

import com.typesafe.config.Config;
import java.util.Optional;

/// The settings of the device that the engine computes on.
///
/// @param device `auto`, `cpu`, `cuda`, `cuda:INDEX` or `cuda:UUID`
/// @param path name of a CPU path, or `auto`
/// @param activations how activations are multiplied by bf16 weights; empty: the path's default
/// @param threads number of threads of the device, the caller's included
/// @param memoryBytes most bytes of the host's memory for tensors, scratch and weights of a CPU
/// @param cuda settings of the CUDA backend
public record DeviceSettings(String device, String path, Optional<Activations> activations, int threads,
        long memoryBytes, CudaSettings cuda) {
    /// Selects a device by what the machine has, a path by the kind of processor.
    public static final String AUTO = "auto";
    /// The CPU, whatever cards the machine has.
    public static final String CPU = "cpu";

    /// The CPU with this many threads; everything else is selected by the kind of processor.
    public static DeviceSettings ofThreads(int threads) {
        return new DeviceSettings(CPU, AUTO, Optional.empty(), threads, Long.MAX_VALUE, CudaSettings.DEFAULT);
    }

    /// Reads `bios.engine` of a program's configuration.
    ///
    /// @throws com.typesafe.config.ConfigException if a value is unknown or this machine cannot execute the
    ///     path
    public static DeviceSettings of(Config program, int threads) {
        String device = program.getString("bios.engine.device");
        String path = program.getString("bios.engine.cpu.path");
        Devices.require(device, path, program);
        return new DeviceSettings(device, path, Activations.of(program), threads, HostMemory.limit(program),
                CudaSettings.of(program));
    }

    /// The same with this device.
    public DeviceSettings withDevice(String device) {
        return new DeviceSettings(device, path, activations, threads, memoryBytes, cuda);
    }

    /// The same with this path.
    public DeviceSettings withPath(String path) {
        return new DeviceSettings(device, path, activations, threads, memoryBytes, cuda);
    }

    /// The same with this treatment of activations.
    public DeviceSettings withActivations(Activations activations) {
        return new DeviceSettings(device, path, Optional.of(activations), threads, memoryBytes, cuda);
    }

    /// The same with this memory limit, of the host and of a card.
    public DeviceSettings withMemory(long bytes) {
        return new DeviceSettings(device, path, activations, threads, bytes, cuda.withMemory(bytes));
    }

    /// The same with these settings of the CUDA backend.
    public DeviceSettings withCuda(CudaSettings cuda) {
        return new DeviceSettings(device, path, activations, threads, memoryBytes, cuda);
    }
}
