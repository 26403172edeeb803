package bios.worker.device;

import bios.worker.device.cpu.CpuBackend;
import bios.worker.device.cuda.CudaBackend;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;
import java.util.List;

/// The list of backends.
public final class Devices {
    private Devices() {}

    private static final String CUDA = "cuda";

    /// Opens the device that the settings describe. `auto` is the first card that the CUDA backend supports,
    /// else the CPU.
    ///
    /// @throws IllegalArgumentException if this machine cannot execute the path, or has no such card
    public static Device open(DeviceSettings settings) {
        if (onCard(settings.device())) return CudaBackend.open(settings.device(), settings);
        return CpuBackend.open(settings);
    }

    /// Whether a card computes with this setting on this machine.
    public static boolean onCard(String device) {
        return isCuda(device) || device.equals(DeviceSettings.AUTO) && !cards().isEmpty();
    }

    private static boolean isCuda(String device) {
        return device.equals(CUDA) || device.startsWith(CUDA + ":");
    }

    /// Numbers of the cards of this machine that the CUDA backend supports.
    public static List<Integer> cards() {
        return CudaBackend.cards();
    }

    /// What this machine has of all that the CUDA backend needs.
    public static CudaReport cudaReport(CudaSettings settings) {
        return CudaBackend.report(settings);
    }

    /// The capabilities of this machine.
    public static Hardware hardware() {
        return CpuBackend.HARDWARE;
    }

    /// Throws if the device is unknown, or the path is, or this machine cannot execute it.
    static void require(String device, String path, Config program) {
        if (!device.equals(DeviceSettings.AUTO) && !device.equals(DeviceSettings.CPU) && !isCuda(device))
            throw new ConfigException.BadValue(program.origin(), "bios.engine.device",
                    device + " is none of auto, cpu, cuda, cuda:INDEX and cuda:UUID");
        try {
            if (isCuda(device)) CudaBackend.requireCard(device);
        } catch (IllegalArgumentException refused) {
            throw new ConfigException.BadValue(program.origin(), "bios.engine.device",
                    refused.getMessage());
        }
        try {
            CpuBackend.requirePath(path);
        } catch (IllegalArgumentException refused) {
            throw new ConfigException.BadValue(program.origin(), "bios.engine.cpu.path",
                    refused.getMessage());
        }
    }
}
