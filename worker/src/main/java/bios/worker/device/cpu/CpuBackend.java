package bios.worker.device.cpu;

import bios.worker.device.MatmulBaseline;
import bios.worker.device.Device;
import bios.worker.device.DeviceSettings;
import bios.worker.device.Hardware;
import java.util.List;
import java.util.Optional;

/// Entry point of the CPU backend, for [bios.worker.device.Devices].
public final class CpuBackend {
    /// What this machine's CPU offers.
    public static final Hardware HARDWARE = new Cpu();

    private CpuBackend() {}

    /// A CPU device.
    ///
    /// @throws IllegalArgumentException if this machine cannot execute the path
    public static Device open(DeviceSettings settings) {
        return CpuDevice.open(settings);
    }

    /// Refuses a path that is unknown or that this machine cannot execute.
    ///
    /// @throws IllegalArgumentException with the paths that it can execute
    public static void requirePath(String path) {
        CpuPath.of(path);
    }

    private static final class Cpu implements Hardware {
        @Override public List<String> paths() {
            return CpuPath.executablePaths().stream().map(CpuPath::label).toList();
        }

        @Override public String bestPath() {
            return CpuPath.best().label();
        }

        @Override public Optional<MatmulBaseline> matmulBaseline(int threads) {
            return DnnlMatmulBaseline.of(threads).map(baseline -> baseline);
        }

        @Override public double readBytesPerSecond(int threads) {
            return ReadRate.bytesPerSecond(threads);
        }
    }
}
