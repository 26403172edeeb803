package bios.worker.device;

import java.util.List;
import java.util.function.Function;

/// A backend that the conformance suite tests.
///
/// @param name name in test reports
/// @param opener opens a device with these threads and this memory
/// @param tolerance of its sums
record Backend(String name, Function<DeviceSettings, Device> opener, Tolerance tolerance) {
    /// All backends that this process can run: the paths of the CPU, or the CUDA backend.
    static List<Backend> all() {
        return TestDevices.paths().stream().map(Backend::of).toList();
    }

    private static Backend of(String path) {
        String name = TestDevices.cuda() ? "CUDA " + System.getProperty(TestDevices.CUDA_PROPERTY)
                : "CPU " + path;
        return new Backend(name, settings -> Devices.open(TestDevices.settings(settings, path)),
                Tolerance.of(path));
    }

    /// A device with this many threads and bytes of memory.
    Device open(int threads, long memoryBytes) {
        return RecordedVerbs.of(opener.apply(DeviceSettings.ofThreads(threads).withMemory(memoryBytes)));
    }

    @Override public String toString() {
        return name;
    }
}
