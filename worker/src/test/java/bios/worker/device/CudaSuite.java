package bios.worker.device;

import java.io.PrintWriter;
import java.util.ArrayList;
import java.util.List;
import org.junit.platform.engine.DiscoverySelector;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.engine.discovery.ClassNameFilter;
import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;
import org.junit.platform.launcher.listeners.SummaryGeneratingListener;

/// Runs tests in this process on a CUDA device: `-Dbios.test.cuda=emulated` with the emulator's folder in
/// LD_LIBRARY_PATH, or `-Dbios.test.cuda=real` on a machine with a card.
///
/// Arguments: names of test classes or, with `#`, of methods; `conformance` for the conformance suite; with
/// `-` before it, the end of the name of a class that is left out.
public final class CudaSuite {
    private CudaSuite() {}

    /// Exit status 1 if a test fails or none is found.
    public static void main(String[] arguments) {
        var summary = new SummaryGeneratingListener();
        LauncherFactory.create().execute(LauncherDiscoveryRequestBuilder.request()
                .selectors(selectors(arguments))
                .filters(ClassNameFilter.excludeClassNamePatterns(excluded(arguments))).build(),
                summary, progress());
        var results = summary.getSummary();
        boolean passed = results.getTotalFailureCount() == 0 && results.getTestsSucceededCount() > 0;
        if (!passed) results.printFailuresTo(new PrintWriter(System.out, true), 12);
        System.out.printf("%d of %d tests passed on CUDA %s%n", results.getTestsSucceededCount(),
                results.getTestsFoundCount(), System.getProperty(TestDevices.CUDA_PROPERTY));
        System.out.flush();
        Runtime.getRuntime().halt(passed ? 0 : 1);
    }

    private static String[] excluded(String[] arguments) {
        List<String> patterns = new ArrayList<>(List.of("bios\\.worker\\.device\\.(cpu|cuda)\\..*",
                TestDevices.OUTSIDE_THE_SUITE));
        for (String argument : arguments)
            if (argument.startsWith("-")) patterns.add(".*" + argument.substring(1));
        return patterns.toArray(String[]::new);
    }

    private static List<DiscoverySelector> selectors(String[] arguments) {
        List<DiscoverySelector> selectors = new ArrayList<>();
        for (String argument : arguments)
            if (!argument.startsWith("-")) selectors.add(argument.equals("conformance")
                    ? DiscoverySelectors.selectPackage("bios.worker.device")
                    : argument.contains("#") ? DiscoverySelectors.selectMethod(argument)
                    : DiscoverySelectors.selectClass(argument));
        return selectors;
    }

    /// One line for each test, so that the last one is known if the process is ended.
    private static TestExecutionListener progress() {
        return new TestExecutionListener() {
            @Override public void executionStarted(TestIdentifier test) {
                if (test.isTest())
                    System.out.println("test " + test.getUniqueId().replaceAll(".*/\\[class:", ""));
            }

            @Override public void executionFinished(TestIdentifier test, TestExecutionResult result) {
                if (test.isTest() && result.getStatus() != TestExecutionResult.Status.SUCCESSFUL)
                    System.out.println("FAILED " + test.getDisplayName() + ": "
                            + result.getThrowable().map(Throwable::toString).orElse(""));
            }
        };
    }
}
