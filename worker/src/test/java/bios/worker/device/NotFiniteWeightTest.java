package bios.worker.device;

import static bios.worker.device.VerbFixture.random;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import bios.worker.device.FrozenMatrix.WeightType;
import bios.worker.kernel.HalfFloats;
import java.lang.foreign.Arena;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// A weight that is not finite is refused with its place, in every element type.
final class NotFiniteWeightTest extends Conformance {
    /// Columns that are not a multiple of eight bytes, and slivers that are not full.
    private static final int ROWS = 70;
    private static final int COLUMNS = 37;

    private final Device on = open(2);
    private final Arena arena = Arena.ofShared();

    @AfterEach void close() {
        on.close();
        arena.close();
    }

    @Test void theFirstElementThatIsNotFiniteIsNamed() {
        for (WeightType dtype : WeightType.values())
            for (float bad : List.of(Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY))
                for (int at : new int[] {0, 3, 36, 37, 31 * 37 + 5, 69 * 37, 70 * 37 - 1}) {
                    float[] values = random(1, ROWS * COLUMNS);
                    values[at] = bad;
                    values[ROWS * COLUMNS - 1] = bad;
                    var matrix = VerbFixture.frozen(arena, dtype, ROWS, COLUMNS, values);
                    assertEquals(at, HalfFloats.firstNotFinite(matrix, 0, ROWS));
                    var refused = assertThrows(NotFiniteWeight.class, () -> on.weight(matrix));
                    assertEquals(bad + " at [" + at / COLUMNS + ", " + at % COLUMNS + "]",
                            refused.getMessage());
                    assertEquals(refused.getMessage(),
                            assertThrows(NotFiniteWeight.class, () -> on.table(matrix)).getMessage());
                }
    }

    /// The largest numbers, subnormal ones and both zeros.
    @Test void everyFiniteNumberIsAccepted() {
        for (WeightType dtype : WeightType.values()) {
            float most = switch (dtype) {
                case BF16 -> HalfFloats.fromBf16((short) 0x7f7f);
                case F16 -> 65504;
                case F32 -> Float.MAX_VALUE;
            };
            float[] values = random(1, ROWS * COLUMNS);
            float[] edges = {most, -most, 0f, -0f, Float.MIN_VALUE, -Float.MIN_VALUE, 6e-8f, 1};
            for (int i = 0; i < values.length; i += 11) values[i] = edges[i / 11 % edges.length];
            var matrix = VerbFixture.frozen(arena, dtype, ROWS, COLUMNS, values);
            assertEquals(-1, HalfFloats.firstNotFinite(matrix, 0, ROWS));
            assertEquals(ROWS, on.table(matrix).rows());
            assertEquals(ROWS, on.weight(matrix).out());
        }
    }
}
