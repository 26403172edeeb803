package bios.worker.device;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.Arrays;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.platform.engine.discovery.ClassNameFilter;
import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;
import org.junit.platform.launcher.listeners.SummaryGeneratingListener;

/// The conformance suite leaves out no verb.
final class ConformanceCoverageTest {
    private static final Set<String> REPLACED = Set.of("attention(Tensor, Tensor, Tensor, List, AttentionShape)",
            "attentionBackward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, List, AttentionShape)",
            "copyByHead(Tensor, int, Tensor)", "multiply(Tensor, Tensor, Weight)",
            "multiplyTransposedAdd(Tensor, Tensor, Weight)", "multiplyBy(Tensor, Tensor, Tensor, float)",
            "multiplyByAdd(Tensor, Tensor, Tensor, float)", "multiplyByEach(List)",
            "multiplyByTransposed(Tensor, Tensor, Tensor, float)",
            "multiplyByTransposedAdd(Tensor, Tensor, Tensor, float)", "outerAdd(Tensor, Tensor, Tensor, float)",
            "project(Tensor, Tensor, Weight, Optional, Optional, List)",
            "projectBack(Tensor, Tensor, Weight, boolean, List)", "tensor(int, int)", "scratch(Scope, int, int)",
            "softmaxBlocks(Tensor, Tensor, Tensor)", "sumOfSquares(Tensor)", "read(Tensor)",
            "write(Tensor, float[])");

    @Test void everyVerbOfADeviceHasAConformanceCase() {
        String before = System.setProperty(TestDevices.PROPERTY, TestDevices.path());   // one path is enough
        RecordedVerbs.start();
        var listener = new SummaryGeneratingListener();
        try {
            LauncherFactory.create().execute(LauncherDiscoveryRequestBuilder.request()
                    .selectors(DiscoverySelectors.selectPackage("bios.worker.device"))
                    .filters(ClassNameFilter.includeClassNamePatterns("bios\\.worker\\.device\\.\\w+"),
                            ClassNameFilter.excludeClassNamePatterns(".*ForcedPathsTest",
                                    ".*ConformanceCoverageTest"))
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
        assertEquals(0, listener.getSummary().getTotalFailureCount());
        assertTrue(all > 30, all + " verbs");
        assertEquals(new TreeSet<>(), missing, "verbs without a case");
    }

    private static boolean mustBeOffered(Method method) {
        return Modifier.isAbstract(method.getModifiers()) && !replaced(method);
    }

    /// Verbs that newer ones of the same purpose replace take host arrays, spans or single products; the parity
    /// tests of the CPU backend hold them.
    private static boolean replaced(Method verb) {
        var types = Arrays.asList(verb.getParameterTypes());
        return types.contains(int[].class) || types.contains(FrozenMatrix.class) && verb.getName().equals("embed")
                || REPLACED.contains(RecordedVerbs.name(verb));
    }
}
