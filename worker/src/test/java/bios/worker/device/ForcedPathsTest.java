package bios.worker.device;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.typesafe.config.ConfigException;
import com.typesafe.config.ConfigFactory;
import com.typesafe.config.ConfigValueFactory;
import java.io.PrintWriter;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.DisabledIfSystemProperty;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.platform.engine.discovery.ClassNameFilter;
import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;
import org.junit.platform.launcher.listeners.SummaryGeneratingListener;

/// Every path of the CPU backend can be selected, also below the processor's instruction set, and gives
/// correct results. oneDNN uses one instruction set per process, so each lower one is tested in its own
/// process.
@DisabledIfSystemProperty(named = TestDevices.PROPERTY, matches = ".*")
final class ForcedPathsTest {
    static List<String> paths() {
        return TestDevices.pathsOfOtherProcesses();
    }

    @ParameterizedTest(allowZeroInvocations = true) @MethodSource("paths")
    void aLowerPathPassesParityGoldenAndSameBitsTestsInAProcessOfItsOwn(String path) throws Exception {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
        String golden = System.getProperty("bios.golden");
        if (golden != null) command.add("-Dbios.golden=" + golden);
        command.addAll(List.of("-D" + TestDevices.PROPERTY + "=" + path, "-cp",
                System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")),
                ForcedPathsTest.class.getName()));
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertEquals(0, process.waitFor(), path + "\n" + output);
        assertTrue(output.contains("passed on " + path), output);
    }

    /// Runs the tests of a path in this process: its operations against the definitions, the models against
    /// PyTorch, equal bits; with other numbers of PyTorch (`bios.golden`) only the models. Exit status 1 if a
    /// test fails or too few are found.
    public static void main(String[] arguments) {
        var listener = new SummaryGeneratingListener();
        var golden = DiscoverySelectors.selectClass("bios.worker.train.ModelGoldenTest");
        boolean all = System.getProperty("bios.golden") == null;
        LauncherFactory.create().execute(LauncherDiscoveryRequestBuilder.request()
                .selectors(all ? List.of(golden, DiscoverySelectors.selectPackage("bios.worker.device"),
                        DiscoverySelectors.selectClass("bios.worker.train.SameBitsTest")) : List.of(golden))
                .filters(ClassNameFilter.excludeClassNamePatterns(TestDevices.OUTSIDE_THE_SUITE))
                .build(), listener);
        var summary = listener.getSummary();
        boolean passed = summary.getTotalFailureCount() == 0
                && summary.getTestsSucceededCount() > (all ? 100 : 5);
        if (!passed) summary.printFailuresTo(new PrintWriter(System.out, true));
        System.out.printf("%d of %d tests passed on %s%n", summary.getTestsSucceededCount(),
                summary.getTestsFoundCount(), TestDevices.path());
        System.exit(passed ? 0 : 1);
    }

    private static DeviceSettings settings(String path) {
        return DeviceSettings.of(ConfigFactory.load().withValue("bios.engine.cpu.path",
                ConfigValueFactory.fromAnyRef(path)), 1);
    }

    @Test void everyExecutablePathOfThisProcessIsForcedByTheSetting() {
        for (String path : TestDevices.paths())
            try (Device device = Devices.open(settings(path))) {
                String expected = path.startsWith("own-") ? "own kernels"
                        : path.startsWith("onednn-") ? "oneDNN" : "plain";
                assertTrue(device.description().contains(expected), path + ": " + device.description());
            }
        assertTrue(TestDevices.paths().contains(Devices.hardware().bestPath()));
    }

    @Test void anUnknownPathIsRefusedWithTheKnownPaths() {
        var refused = assertThrows(ConfigException.BadValue.class, () -> settings("onednn-avx9"));
        assertTrue(refused.getMessage().contains("bios.engine.cpu.path"), refused.getMessage());
        assertTrue(refused.getMessage().contains("onednn-avx2, onednn-sse41, plain"), refused.getMessage());
    }

    @Test void aPathThatTheProcessorLacksIsRefusedWithItsRequirementsAndTheExecutablePaths() {
        for (String path : List.of("onednn-amx", "own-avx512-bf16", "onednn-avx512")) {
            if (Devices.hardware().paths().contains(path)) continue;
            var refused = assertThrows(ConfigException.BadValue.class, () -> settings(path));
            assertTrue(refused.getMessage().contains(path + " needs "), refused.getMessage());
            assertTrue(refused.getMessage().contains("plain"), refused.getMessage());
        }
    }

    @Test void aSecondSetOfInstructionsOfOneDnnIsRefusedInOneProcess() {
        for (String other : TestDevices.pathsOfOtherProcesses())
            try (Device _ = TestDevices.open(TestDevices.paths().stream().filter(p -> p.startsWith("onednn-"))
                    .findFirst().orElseThrow(), 1)) {
                var refused = assertThrows(IllegalArgumentException.class, () -> TestDevices.open(other, 1));
                assertTrue(refused.getMessage().contains("per process"), refused.getMessage());
            }
    }
}
