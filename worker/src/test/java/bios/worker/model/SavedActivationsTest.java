package bios.worker.model;

import static org.junit.jupiter.api.Assertions.assertEquals;

import bios.worker.device.Device;
import bios.worker.device.TestDevices;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class SavedActivationsTest {
    @ParameterizedTest @CsvSource({"120, 0, 0", "119, 0, 1", "114, 0, 1", "113, 0, 2", "48, 0, 12",
            "47, 1, 11", "4, 11, 1", "3, 12, 0", "0, 12, 0"})
    void everyLayerSavesAPartOnlyBeforeOneSavesNothing(long budget, int recomputed, int partial) {
        try (Device on = TestDevices.open(1);
                SavedActivations saved = SavedActivations.within(budget, on, 12, 10, 4)) {
            assertEquals(recomputed, saved.recomputed());
            assertEquals(partial, saved.partial());
        }
    }
}
