package bios.worker.model;

import static bios.worker.device.TestDevices.read;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;

import bios.worker.device.Device;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.Tensor;
import bios.worker.device.TestDevices;
import bios.worker.load.Rope;
import java.util.Arrays;
import org.junit.jupiter.api.Test;

class RopeTableTest {
    @Test void outOfMemoryKeepsTheEarlierRowsAndLeaksNothing() {
        try (Device cpu = TestDevices.open(1)) {
            RecordingDevice test = new RecordingDevice(cpu);
            Device on = test.device();
            Rope rope;
            try (BaseModel model = Golden.of("qwen3").load(on)) {
                rope = model.spec().rope();
            }
            int before = test.tensors();
            for (int n : new int[] {0, 1}) {
                test.refuseAfter(n);
                assertThrows(OutOfDeviceMemory.class, () -> new RopeTable(rope, 5000, on));
                assertEquals(before, test.tensors());
            }
            try (RopeTable table = new RopeTable(rope, 5000, on)) {
                float[] first = read(on, table.cos());
                for (int n : new int[] {0, 1}) {
                    Tensor cos = table.cos();
                    test.refuseAfter(n);
                    assertThrows(OutOfDeviceMemory.class, () -> table.growTo(2000));
                    assertSame(cos, table.cos());
                    assertArrayEquals(first, read(on, table.cos()));
                    assertEquals(before + 2, test.tensors());
                }
                table.growTo(2000);
                assertEquals(2048, table.sin().rows());
                assertArrayEquals(first, Arrays.copyOf(read(on, table.cos()), first.length));
                assertEquals(before + 2, test.tensors());
            }
            assertEquals(before, test.tensors());
        }
    }
}
