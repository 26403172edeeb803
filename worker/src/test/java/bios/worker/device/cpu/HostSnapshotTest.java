package bios.worker.device.cpu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import bios.worker.device.DType;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.Tensor;
import java.lang.foreign.MemorySegment;
import java.util.List;
import org.junit.jupiter.api.Test;

/// Sizes of snapshots of tensors near and beyond 2^31 elements. The memory limit refuses every allocation, so
/// that only the computed number of bytes is tested.
final class HostSnapshotTest {
    private static Tensor shape(int rows, int columns) {
        return new HostTensor(MemorySegment.NULL, DType.F32, rows, columns, columns);
    }

    private static long bytesAskedFor(Tensor... tensors) {
        return assertThrows(OutOfDeviceMemory.class,
                () -> new HostSnapshot(new Memory(0), List.of(tensors))).needed();
    }

    @Test void aTensorOf2To31ElementsAndMoreIsCountedInLongs() {
        long margin = bytesAskedFor(shape(1, 16)) - 4 * 16;
        assertEquals(4L * Integer.MAX_VALUE + margin, bytesAskedFor(shape(1, Integer.MAX_VALUE)));
        assertEquals((4L << 32) + margin, bytesAskedFor(shape(1 << 16, 1 << 16)));
    }

    @Test void smallTensorsBesideALargeOneAreNotPartOfItsAllocation() {
        long alone = bytesAskedFor(shape(1, Integer.MAX_VALUE));
        assertEquals(alone, bytesAskedFor(shape(1, Integer.MAX_VALUE), shape(1, 16)));
    }
}
