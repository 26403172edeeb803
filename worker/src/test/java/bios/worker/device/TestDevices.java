package bios.worker.device;

import bios.worker.device.CudaSettings.SharedRows;
import java.util.List;
import java.util.stream.Stream;

/// Devices for tests. The system property `bios.test.path` names the only path of this process: for the
/// process that [ForcedPathsTest] starts. With the property `bios.test.cuda` the only path is a CUDA device:
/// for the processes of [CudaSuite].
public final class TestDevices {
    /// The property for the only path.
    static final String PROPERTY = "bios.test.path";

    /// The property of processes that test the CUDA backend; its value is for reports.
    static final String CUDA_PROPERTY = "bios.test.cuda";
    /// The property whose value `long` asks for everything on the emulated card.
    static final String SUITES_PROPERTY = "bios.cuda.suites";
    private static final String CUDA = "cuda";

    /// Names of tests of this package that start the suite of a backend themselves, or test no backend: a
    /// process that runs the suite leaves them out.
    static final String OUTSIDE_THE_SUITE =
            ".*(ForcedPaths|ConformanceCoverage|KernelResources|Cuda\\w*)Test";

    /// `true`: the library's products of forward are fp32 on a CUDA device, whatever the type of results.
    public static final String WIDE_PROPERTY = "bios.test.cuda.wide";

    private TestDevices() {}

    /// Whether this process tests the CUDA backend.
    public static boolean cuda() {
        return System.getProperty(CUDA_PROPERTY) != null;
    }

    /// What one test has: trials on the emulated card take long.
    private static final long TRIED_BYTES = 1_000_000;

    /// Whether bf16 results of forward are rounded twice, low-rank products of few rows are computed beside
    /// others, blocks share copies of rows wherever they can, and weights are asked for ahead; none of it if
    /// not.
    static boolean narrow() {
        return cuda() && !Boolean.getBoolean(WIDE_PROPERTY);
    }

    /// `n` on the emulated card, where a pass takes long, else 1: of this many repetitions of a test one is
    /// made. All are with `-Dbios.cuda.suites=long`.
    public static int oneOf(int n) {
        return "emulated".equals(System.getProperty(CUDA_PROPERTY))
                && !"long".equals(System.getProperty(SUITES_PROPERTY)) ? n : 1;
    }

    /// The settings for a path.
    static DeviceSettings settings(DeviceSettings settings, String path) {
        if (!path.equals(CUDA)) return settings.withPath(path);
        return settings.withDevice(CUDA).withCuda(settings.cuda().withProducts(
                CudaSettings.Products.DEFAULT.withForwardInBf16(narrow()).withLowRankBeside(narrow())
                        .withSharedRows(narrow() ? SharedRows.ON : SharedRows.AUTO)
                        .withPrefetches(narrow()).withTriedBytes(TRIED_BYTES)));
    }

    /// The path of tests that use a single path.
    public static String path() {
        return cuda() ? CUDA : System.getProperty(PROPERTY, Devices.hardware().bestPath());
    }

    /// The paths that this process can execute; of oneDNN's, which has one instruction set per process, only
    /// the fastest.
    public static List<String> paths() {
        if (cuda() || System.getProperty(PROPERTY) != null) return List.of(path());
        var all = Devices.hardware().paths();
        var others = oneDnn(all).skip(1).toList();
        return all.stream().filter(path -> !others.contains(path)).toList();
    }

    /// The paths that this machine can execute and this process cannot.
    static List<String> pathsOfOtherProcesses() {
        return oneDnn(Devices.hardware().paths()).skip(1).toList();
    }

    private static Stream<String> oneDnn(List<String> paths) {
        return paths.stream().filter(path -> path.startsWith("onednn-"));
    }

    /// A device on [#path].
    public static Device open(int threads) {
        return open(path(), threads);
    }

    /// A device on a path.
    public static Device open(String path, int threads) {
        return RecordedVerbs.of(Devices.open(settings(DeviceSettings.ofThreads(threads), path)));
    }

    /// A device on [#path] with this many bytes of memory.
    public static Device open(int threads, long memoryBytes) {
        return Devices.open(settings(DeviceSettings.ofThreads(threads), path()).withMemory(memoryBytes));
    }

    /// The elements of a tensor, row by row.
    public static float[] read(Device on, Tensor from) {
        float[] values = new float[Math.toIntExact(from.elements())];
        on.read(from, values, 0);
        return values;
    }

    /// to ← from, row by row.
    public static void write(Device on, Tensor to, float[] from) {
        on.write(to, from, 0);
    }
}
