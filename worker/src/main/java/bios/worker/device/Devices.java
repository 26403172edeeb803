package bios.worker.device;

import bios.worker.device.cpu.CpuBackend;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;

/// The list of backends.
public final class Devices {
    private Devices() {}

    /// Opens the device that the settings describe.
    ///
    /// @throws IllegalArgumentException if this machine cannot execute the path
    public static Device open(DeviceSettings settings) {
        return CpuBackend.open(settings);
    }

    /// The capabilities of this machine.
    public static Hardware hardware() {
        return CpuBackend.HARDWARE;
    }

    /// Throws if the path is unknown or this machine cannot execute it.
    static void require(String path, Config program) {
        try {
            CpuBackend.requirePath(path);
        } catch (IllegalArgumentException refused) {
            throw new ConfigException.BadValue(program.origin(), "bios.engine.cpu.path",
                    refused.getMessage());
        }
    }
}
