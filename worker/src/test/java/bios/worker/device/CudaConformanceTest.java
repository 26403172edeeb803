package bios.worker.device;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/// The CUDA backend passes the suites of every backend on the emulated device, in processes of their own.
final class CudaConformanceTest {
    private static void passes(Map<String, String> environment, String... arguments) {
        var ended = CudaEmulator.java(CudaSuite.class, List.of(), List.of(arguments), environment, 900);
        assertEquals(0, ended.status(), ended.output());
    }

    /// Every access to memory is checked. The tests of refused memory repeat large verbs, which takes too
    /// long with the checks.
    @Test void everyVerbAgreesWithItsDefinitionAndTouchesNoMemoryThatIsNotItsOwn() {
        passes(Map.of(), "conformance", "-RefusedMemoryTest");
    }

    @Test void modelsAreThoseOfPyTorchAndMemoryIsRefusedAsOnEveryBackend() {
        passes(Map.of("CUDA_EMULATOR_CHECK", "0", "CUDA_EMULATOR_SEED", "2"),
                RefusedMemoryTest.class.getName(), "bios.worker.train.ModelGoldenTest");
    }
}
