package bios.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import bios.worker.device.Device;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.FrozenMatrix.DType;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import bios.worker.device.cpu.CpuDevice;
import java.lang.foreign.Arena;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;

final class ProfilerTest {
    private record Nested(Optional<Tensor> tensor, List<Weight> weights) {}

    private record Matrix(int out, int in) implements Weight {}

    @Test void productsAreCountedByTheShapesOfTheirOperands() {
        Profiler profiler = new Profiler(new CpuDevice(1));
        try (Arena arena = Arena.ofShared(); Device device = profiler.watched()) {
            Weight w = device.weight(new FrozenMatrix(arena.allocate(4 * 6 * 8, 64), DType.F32, 6, 8));
            Tensor x = device.tensor(3, 8);
            device.multiply(device.tensor(3, 6), x, w);
            device.multiply(device.tensor(3, 6), x, w);
            device.multiplyByTransposed(device.tensor(3, 2), x, device.tensor(2, 8), 1);
        }
        assertEquals(2 * 2 * 3 * 6 * 8, line(profiler, "multiply").flops());
        assertEquals(2, line(profiler, "multiply").calls());
        assertEquals(2 * 3 * 2 * 8, line(profiler, "multiplyByTransposed").flops());
    }

    @Test void operandsAreFoundInListsOptionalsAndRecords() {
        Device device = new CpuDevice(1);
        Tensor tensor = device.tensor(2, 4);
        Operands operands = Operands.of(new Object[] {1, "other", null,
            List.of(new Nested(Optional.of(tensor), List.of(new Matrix(5, 4))))});
        assertEquals(List.of(tensor), operands.tensors());
        assertEquals(List.of(new Matrix(5, 4)), operands.weights());
        assertEquals(32, operands.bytes());
        device.close();
    }

    @Test void failuresOfTheDevicePassThrough() {
        try (Device device = new Profiler(new CpuDevice(1)).watched()) {
            Tensor x = device.tensor(1, 2);
            Tensor other = device.tensor(2, 2);
            assertThrows(IllegalStateException.class, () -> device.copy(x, other));
        }
    }

    private static Profiler.Line line(Profiler profiler, String verb) {
        return profiler.lines().stream().filter(l -> l.verb().equals(verb)).findFirst().orElseThrow();
    }
}
