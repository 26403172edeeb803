package bios.worker.device;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/// Several cards and what their monitor says of them, on the emulated device.
final class CudaCardsTest {
    private static final String SECOND = "GPU-e1e2e3e4-e5e6-e7e8-e9ea-ebecedeeeff0";

    @Test void eachOfSeveralCardsIsFoundByItsNumberAndItsNameAndHasItsOwnState() {
        var ended = CudaEmulator.java(Program.class, List.of(), List.of("cuda:1", "cuda:" + SECOND),
                Map.of("CUDA_EMULATOR_CARDS", "2", "CUDA_EMULATOR_CHECK", "0"), 300);
        assertEquals(0, ended.status(), ended.output());
        assertTrue(ended.output().contains("cards [0, 1]"), ended.output());
        // the power is a value that this card does not have
        String state = new CardState(SECOND, 2 << 20, 0.37, 1.41e9, 41, Double.NaN).toString();
        assertEquals(2, ended.output().lines().filter(("state " + state)::equals).count(), ended.output());
    }

    /// Opens the devices of its arguments.
    static final class Program {
        private Program() {}

        /// Prints the cards and the state of each device.
        public static void main(String[] arguments) {
            System.out.println("cards " + Devices.cards());
            for (String device : arguments)
                try (Device on = Devices.open(DeviceSettings.ofThreads(1).withDevice(device))) {
                    System.out.println("state " + on.card().orElseThrow());
                }
        }
    }
}
