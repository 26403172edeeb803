package bios.worker.device;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/// The CUDA backend passes the conformance suite on the emulated device, in a process of its own.
final class CudaConformanceTest {
    @Test void everyVerbAgreesWithItsDefinitionOnTheEmulatedDevice() {
        var ended = CudaEmulator.java(CudaSuite.class, List.of(), List.of("conformance"), Map.of(), 900);
        assertEquals(0, ended.status(), ended.output());
    }
}
