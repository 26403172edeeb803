package bios.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import bios.worker.device.AttentionShape;
import bios.worker.device.Device;
import bios.worker.device.FactorTable;
import bios.worker.device.FactorTable.Factor;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.FrozenMatrix.WeightType;
import bios.worker.device.KeyValues;
import bios.worker.device.PagePool;
import bios.worker.device.Sequence;
import bios.worker.device.Sequences;
import bios.worker.device.Slot;
import bios.worker.device.Slots;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import bios.worker.device.DeviceSettings;
import bios.worker.device.Devices;
import java.lang.foreign.Arena;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;

final class ProfilerTest {
    private record Nested(Optional<Tensor> tensor, List<String> names) {}

    /// One site with factors of rank 2 for a weight `[6, 8]`.
    private record Table(Factor factor) implements FactorTable {
        @Override public int sites() {
            return 1;
        }

        @Override public Optional<Factor> at(int site) {
            return Optional.of(factor);
        }
    }

    @Test void productsAreCountedByTheShapesOfTheirOperands() {
        Profiler profiler = new Profiler(Devices.open(DeviceSettings.ofThreads(1)));
        try (Arena arena = Arena.ofShared(); Device device = profiler.proxy();
                Device.Scope scope = device.scope()) {
            Weight w = device.weight(new FrozenMatrix(arena.allocate(4 * 6 * 8, 64), WeightType.F32, 6, 8));
            Tensor x = device.tensor(3, 8);
            Tensor y = device.tensor(3, 6);
            Table table = new Table(new Factor(device.tensor(8, 2), device.tensor(2, 6)));
            Slots slots = device.slots(scope, List.of(new Slot(1, 2, 1, table, Optional.of(table))));
            Tensor low = device.tensor(3, 2);
            device.lowRank(List.of(low, low), x, slots, List.of(0, 0));
            device.project(y, x, w, Optional.empty(), Optional.empty(), slots, 0, Optional.of(low));
            device.project(y, x, w, Optional.empty(), Optional.empty(), slots, 0, Optional.of(low));
            device.projectBack(Optional.of(x), true, y, x, w, slots, 0, Optional.of(low));
        }
        assertEquals(2 * (2 * 2 * 8 * 2), line(profiler, "lowRank").flops());
        assertEquals(2 * (2 * 3 * 6 * 8 + 2 * 2 * 2 * 6), line(profiler, "project").flops());
        assertEquals(2, line(profiler, "project").calls());
        assertEquals(2 * 3 * 6 * 8 + 2 * (2 * 2 * 2 * 6) + 2 * (2 * 2 * 8 * 2),
                line(profiler, "projectBack").flops());
    }

    @Test void attentionIsCountedByTheQueriesAndKeysThatMeet() {
        Profiler profiler = new Profiler(Devices.open(DeviceSettings.ofThreads(1)));
        try (Device device = profiler.proxy(); Device.Scope scope = device.scope();
                PagePool pool = device.pagePool(new PagePool.Format(3, 1, 8, bios.worker.device.DType.BF16),
                        2)) {
            pool.growTo(2);
            Tensor q = device.tensor(2, 16);
            Sequences sequences = device.sequences(scope, List.of(new Sequence(0, 2, 70, new int[] {0, 1})));
            device.attention(device.tensor(2, 16), device.tensor(2, 2), q, new KeyValues.Paged(pool, 1),
                    sequences, new AttentionShape(2, 1, 8, 1, 0));
        }
        assertEquals(2 * 2 * 2 * 8 * 2 * 71, line(profiler, "attention").flops());
        assertEquals(4 * (2 * 16 + 2 * 16 + 2 * 2) + 2 * 72 * 8 * 2, line(profiler, "attention").bytes());
    }

    @Test void tensorsAreFoundInListsOptionalsAndRecords() {
        Device device = Devices.open(DeviceSettings.ofThreads(1));
        Tensor tensor = device.tensor(2, 4);
        Operands operands = Operands.of(new Object[] {1, "other", null,
            List.of(new Nested(Optional.of(tensor), List.of("a")))});
        assertEquals(List.of(tensor), operands.tensors());
        assertEquals(32, operands.bytes());
        device.close();
    }

    @Test void failuresOfTheDevicePassThrough() {
        try (Device device = new Profiler(Devices.open(DeviceSettings.ofThreads(1))).proxy()) {
            Tensor x = device.tensor(1, 2);
            Tensor other = device.tensor(2, 2);
            assertThrows(IllegalStateException.class, () -> device.copy(x, other));
        }
    }

    private static Profiler.Line line(Profiler profiler, String verb) {
        return profiler.lines().stream().filter(l -> l.verb().equals(verb)).findFirst().orElseThrow();
    }
}
