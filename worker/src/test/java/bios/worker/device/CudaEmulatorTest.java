package bios.worker.device;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// The emulated device finds errors that are planted in small programs, names the kernel or call, and finds
/// none in the same programs without the error.
final class CudaEmulatorTest {
    private static final int SEEDS = 12;

    private static CudaEmulator.Ended run(String planted, boolean error, int seed) {
        return CudaEmulator.run(List.of(CudaEmulator.folder().resolve("planted").toString(),
                Path.of("src/test/cuda/planted/kernels.cu").toAbsolutePath().toString(), planted,
                error ? "1" : "0"), Map.of("CUDA_EMULATOR_SEED", Integer.toString(seed), "CUDA_EMULATOR_CC",
                "90"), 60);
    }

    private static void soundForEverySeed(String planted) {
        for (int seed = 1; seed <= 2; seed++) {
            var ended = run(planted, false, seed);
            assertEquals(0, ended.status(), planted + ", seed " + seed + ": " + ended.output());
        }
    }

    @ParameterizedTest @ValueSource(strings = {"missingBarrier", "missingWarpBarrier", "offByOneInATile",
        "uninitialisedRead", "misalignedVector", "sharedOverrun", "earlyReturn", "copyNotAwaited",
        "laneOutsideItsMask", "missingBarrierAfterAScalar", "missingBarrierBeforeReuse",
        "missingBarrierBeforeAnAtomic", "missingBarrierOfSomeWarps", "barrierOfOtherWarps",
        "sharedMemoryInAll", "productNotAwaited", "copyToBlocksNotAwaited", "stageFilledTooEarly",
        "clusterWithoutMeeting", "overwrittenBarrier"})
    void anErrorOfAKernelEndsTheProcessWithItsNameInEveryOrderOfItsThreads(String planted) {
        soundForEverySeed(planted);
        for (int seed = 1; seed <= SEEDS / 4; seed++) {
            var ended = run(planted, true, seed);
            assertEquals(CudaEmulator.VIOLATION, ended.status(), "seed " + seed + ": " + ended.output());
            assertTrue(ended.output().contains("CUDA emulator: " + planted + ", block "), ended.output());
        }
    }

    @ParameterizedTest @ValueSource(strings = {"useAfterFree", "missingFree", "destroyedStream",
        "destroyedContext", "memoryFreedBeforeTheReplay", "destroyedGraph"})
    void anErrorOfTheHostEndsTheProcess(String planted) {
        soundForEverySeed(planted);
        var ended = run(planted, true, 1);
        assertEquals(CudaEmulator.VIOLATION, ended.status(), ended.output());
    }

    @ParameterizedTest @ValueSource(strings = {"missingEvent", "freedTooEarly", "arrivalAtAnEndedBlock",
        "arrivalBeforeTheRead"})
    void aMissingOrderOfStreamsOrBlocksIsFoundInSomeOrderOfTheWork(String planted) {
        int found = 0;
        for (int seed = 1; seed <= SEEDS; seed++) {
            assertEquals(0, run(planted, false, seed).status(), planted + " " + seed);
            if (run(planted, true, seed).status() != 0) found++;
        }
        assertTrue(found >= SEEDS / 4, "found in " + found + " of " + SEEDS + " orders");
    }

    @ParameterizedTest @ValueSource(strings = {"tooManyThreads", "tooMuchSharedMemory", "halfACluster"})
    void aLaunchThatADeviceRefusesIsRefused(String planted) {
        soundForEverySeed(planted);
        var ended = run(planted, true, 1);
        assertEquals(2, ended.status(), ended.output());
        assertTrue(ended.output().contains((planted.equals("halfACluster")
                ? "stageFilledTooEarly" : "twice") + ": refused: "), ended.output());
    }

    @ParameterizedTest @ValueSource(strings = {"allocationWhileCapturing", "eventOfACapture"})
    void whatACaptureCannotContainIsRefused(String planted) {
        soundForEverySeed(planted);
        var ended = run(planted, true, 1);
        assertEquals(2, ended.status(), ended.output());
        assertTrue(ended.output().contains("refused: "), ended.output());
    }

    @Test void aGraphKeepsTheParametersOfItsCapture() {
        soundForEverySeed("parameterWithoutUpdate");
        assertEquals(1, run("parameterWithoutUpdate", true, 1).status());
    }

    @Test void faultsAreInjectedWhereTheyAreAskedFor() {
        for (var fault : Map.of("memory@2", "out of memory, as asked for", "launch@1", "the launch fails",
                "lost@4", "the device is lost").entrySet()) {
            var ended = CudaEmulator.run(List.of(CudaEmulator.folder().resolve("planted").toString(),
                    Path.of("src/test/cuda/planted/kernels.cu").toAbsolutePath().toString(), "useAfterFree",
                    "0"), Map.of("CUDA_EMULATOR_FAULT", fault.getKey(), "CUDA_EMULATOR_CC", "90"), 60);
            assertEquals(2, ended.status(), fault + ": " + ended.output());
            assertTrue(ended.output().contains(fault.getValue()), ended.output());
        }
    }
}
