package bios.worker.device;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// The CUDA backend passes the suites of every backend on the emulated device, in processes of their own: two
/// at a time, each with one thread of the emulated card. Each block of memory is an allocation of its own, so
/// that accesses beyond its end and after it are seen.
///
/// The long form, `-Dbios.cuda.suites=long`: all parts with all checks, and with three seeds.
final class CudaConformanceTest {
    private static final boolean LONG = "long".equals(System.getProperty(TestDevices.SUITES_PROPERTY));
    private static final int LIMIT_SECONDS = LONG ? 7200 : 900;
    private static final int AT_ONCE = 2;
    private static final List<String> TRAINER = List.of("bios.worker.train.SameBitsTest",
            "bios.worker.train.TrainerTest", "bios.worker.sample.SamplerTest");
    private static final List<String> ENGINE = List.of("bios.worker.adapter.StateStreamTest",
            "bios.worker.engine.EngineTest");
    private static final List<String> MORE_OF_THE_ENGINE = List.of("bios.worker.train.NonFiniteTest",
            "bios.worker.engine.EvictionTest", "bios.worker.engine.OutOfMemoryTest");
    private static final List<String> HALF = List.of("bios.worker.train.HalfPrecisionTest",
            Bf16ProductsTest.class.getName());
    private static final Map<Part, CompletableFuture<CudaEmulator.Ended>> ENDED = new HashMap<>();
    private static final String WIDE = "fp32 results of forward";
    private static ExecutorService processes;

    /// A process.
    ///
    /// @param checked whether every access of a kernel is checked
    /// @param capability of the card: its kernels are those of 8.0, or of 9.0
    /// @param tests arguments of [CudaSuite]
    private record Part(String name, boolean checked, int seed, int capability, List<String> tests) {
        CudaEmulator.Ended run() {
            return CudaEmulator.java(CudaSuite.class, List.of("-Dbios.cuda.blocks=separate",
                    "-D" + TestDevices.WIDE_PROPERTY + "=" + name.equals(WIDE),
                    "-D" + TestDevices.SUITES_PROPERTY + "=" + (LONG ? "long" : "short")), tests,
                    Map.of("CUDA_EMULATOR_CHECK", checked ? "1" : "0", "CUDA_EMULATOR_SEED",
                            Integer.toString(seed), "CUDA_EMULATOR_CC", Integer.toString(capability),
                            "CUDA_EMULATOR_THREADS", "1"), LIMIT_SECONDS);
        }

        @Override public String toString() {
            return name + ", seed " + seed + ", compute capability " + capability;
        }
    }

    /// Checks make kernels several times slower, so in the short form only the verbs have them, and kernels
    /// whose blocks form clusters: the suites call no kernel that the verbs' tests do not. Tests of refused
    /// memory repeat large verbs.
    private static List<Part> parts() {
        List<Part> parts = new ArrayList<>();
        for (int seed = 1; seed <= (LONG ? 3 : 1); seed++) {
            // the longest first
            parts.add(new Part("trainer and sampler", LONG, seed + 2, 90, TRAINER));
            parts.add(new Part("engine", LONG, seed + 2, 90,
                    LONG ? all(ENGINE, MORE_OF_THE_ENGINE) : ENGINE));
            parts.add(new Part("verbs", true, seed, 80, LONG ? List.of("conformance")
                    : List.of("conformance", "-RefusedMemoryTest")));
            if (LONG) parts.add(new Part("verbs", true, seed, 90, List.of("conformance")));
            else parts.add(new Part("clusters", true, seed, 90, List.of(Bf16ProductsTest.class.getName()
                    + "#adaptersOfRowsThatBlocksShareHaveTheBitsOfMany")));
            parts.add(new Part("models", LONG, seed + 1, 90, List.of(RefusedMemoryTest.class.getName(),
                    "bios.worker.train.ModelGoldenTest", Bf16AttentionTest.class.getName())));
            parts.add(new Part("bf16 activations", LONG, seed + 1, 90, HALF));
            parts.add(new Part(WIDE, LONG, seed + 1, 90, HALF));
        }
        return parts;
    }

    private static List<String> all(List<String> some, List<String> more) {
        return Stream.concat(some.stream(), more.stream()).toList();
    }

    @BeforeAll static void start() {
        CudaEmulator.folder();
        processes = Executors.newFixedThreadPool(AT_ONCE);
        for (Part part : parts()) ENDED.put(part, CompletableFuture.supplyAsync(part::run, processes));
    }

    @AfterAll static void end() {
        if (processes != null) processes.shutdownNow();
    }

    @ParameterizedTest @MethodSource("parts") void theSuiteOfEveryBackendPasses(Part part) {
        var ended = ENDED.get(part).join();
        assertEquals(0, ended.status(), ended.output());
        assertFalse(ended.output().contains("other bits"), ended.output());
    }
}
