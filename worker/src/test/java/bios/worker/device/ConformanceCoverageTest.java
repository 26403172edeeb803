package bios.worker.device;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.Arrays;
import java.util.List;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.platform.engine.discovery.ClassNameFilter;
import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;
import org.junit.platform.launcher.listeners.SummaryGeneratingListener;

/// The conformance suite covers every verb.
final class ConformanceCoverageTest {
    @Test void everyVerbOfADeviceHasAConformanceCase() {
        String before = System.setProperty(TestDevices.PROPERTY, TestDevices.path());   // one path is enough
        RecordedVerbs.start();
        var listener = new SummaryGeneratingListener();
        try {
            LauncherFactory.create().execute(LauncherDiscoveryRequestBuilder.request()
                    .selectors(DiscoverySelectors.selectPackage("bios.worker.device"))
                    .filters(ClassNameFilter.includeClassNamePatterns("bios\\.worker\\.device\\.\\w+"),
                            ClassNameFilter.excludeClassNamePatterns(TestDevices.OUTSIDE_THE_SUITE))
                    .build(), listener);
        } finally {
            if (before == null) System.clearProperty(TestDevices.PROPERTY);
            else System.setProperty(TestDevices.PROPERTY, before);
        }
        var missing = Arrays.stream(Device.class.getMethods()).filter(ConformanceCoverageTest::mustBeOffered)
                .map(RecordedVerbs::name).collect(Collectors.toCollection(TreeSet::new));
        int all = missing.size();
        missing.removeAll(RecordedVerbs.stop());
        assertTrue(listener.getSummary().getTestsSucceededCount() > 20);
        assertEquals(List.of(), listener.getSummary().getFailures().stream().map(failure ->
                failure.getTestIdentifier().getUniqueId() + ": " + failure.getException()).toList());
        assertTrue(all > 30, all + " verbs");
        assertEquals(new TreeSet<>(), missing, "verbs without a case");
    }

    private static boolean mustBeOffered(Method method) {
        return Modifier.isAbstract(method.getModifiers());
    }
}
