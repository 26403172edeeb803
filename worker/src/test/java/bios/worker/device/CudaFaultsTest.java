package bios.worker.device;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// What a caller of the CUDA backend sees when the card fails, on the emulated device.
final class CudaFaultsTest {
    /// What the device logs if the kernels of attention do not agree.
    static final String OTHER_BITS = "products of warpgroups have other bits";

    /// A card that is lost is lost for every later call, and closing it still ends; an allocation that fails
    /// once is tried again without the chunks that nobody uses.
    @ParameterizedTest @CsvSource({"lost@60, lost", "lost@160, lost", "launch@5, lost",
        "memory@1, nothing"})
    void aFailureOfTheCardIsOneOfTheDeviceInterface(String fault, String expected) {
        var ended = CudaEmulator.java(Program.class, List.of(), List.of(),
                Map.of("CUDA_EMULATOR_FAULT", fault), 300);
        assertEquals(0, ended.status(), ended.output());
        assertTrue(ended.output().contains("seen: " + expected), ended.output());
    }

    /// What a trainer computes by products of warpgroups, a sampler computes by those of warps.
    @Test void attentionUsesNoProductsOfWarpgroupsOnACardWhereTheirBitsDiffer() {
        var ended = CudaEmulator.java(CudaSuite.class, List.of(), List.of(Bf16AttentionTest.class.getName()),
                Map.of("CUDA_EMULATOR_FAULT", "warpgroups", "CUDA_EMULATOR_CC", "90", "CUDA_EMULATOR_CHECK",
                        "0"), 300);
        assertEquals(0, ended.status(), ended.output());
        assertTrue(ended.output().contains(OTHER_BITS), ended.output());
    }

    /// With blocks of a chunk, what is freed is still there for the card.
    @Test void ofSeparateBlocksTheUseAfterTheEndIsSeen() {
        for (boolean separate : new boolean[] {false, true}) {
            var ended = CudaEmulator.java(AfterItsEnd.class, separate ? List.of("-Dbios.cuda.blocks=separate")
                    : List.of(), List.of(), Map.of("CUDA_EMULATOR_CHECK", "0"), 300);
            assertEquals(separate ? CudaEmulator.VIOLATION : 0, ended.status(), ended.output());
            assertEquals(separate, ended.output().contains("CUDA emulator: fill, block (0,0,0)"),
                    ended.output());
        }
    }

    /// Fills a tensor that was freed.
    static final class AfterItsEnd {
        private AfterItsEnd() {}

        /// Ends with the status of a violation if it is seen.
        public static void main(String[] arguments) {
            try (Device on = Devices.open(DeviceSettings.ofThreads(1).withDevice("cuda"))) {
                Tensor x = on.tensor(DType.F32, 3, 5);
                on.fill(x, 1);
                on.free(x);
                on.fill(x, 2);
            }
        }
    }

    /// Verbs and transfers until one fails.
    static final class Program {
        private Program() {}

        /// Prints what was seen.
        public static void main(String[] arguments) {
            Device on = null;
            String seen = "nothing";
            try {
                on = Devices.open(DeviceSettings.ofThreads(1).withDevice("cuda"));
                work(on);
            } catch (DeviceLost lost) {
                seen = "lost";
                if (on != null) requireLost(on);
            } catch (OutOfDeviceMemory full) {
                seen = "memory";
            }
            if (on != null) on.close();
            System.out.println("seen: " + seen);
        }

        private static void work(Device on) {
            for (int i = 0; i < 20; i++) {
                Tensor x = on.tensor(DType.F32, 4, 40);
                on.write(x, new float[160], 0);
                on.fill(x, i);
                try (Snapshot copy = on.snapshot(List.of(x)); var scope = on.scope()) {
                    Tensor y = on.scratch(scope, DType.BF16, 4, 40);
                    on.copy(y, x);
                    on.swiglu(y, y, x);
                    float[] read = new float[160];
                    copy.read(0, 0, 4, 0, 40, read, 0);
                    if (read[159] != i) throw new AssertionError(read[159] + " in round " + i);
                    on.readback(List.of(y)).floats(0);
                }
                on.free(x);
            }
        }

        private static void requireLost(Device on) {
            try {
                on.readback(List.of(on.tensor(DType.F32, 1, 1)));
            } catch (DeviceLost again) {
                return;
            }
            throw new AssertionError("a lost device goes on");
        }
    }
}
