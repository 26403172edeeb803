package bios.worker.device;

import static bios.worker.device.VerbFixture.random;
import static bios.worker.device.VerbFixture.read;
import static bios.worker.device.VerbFixture.tensor;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.worker.device.FactorTable.Factor;
import bios.worker.device.VerbFixture.Factors;
import java.lang.foreign.Arena;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// A call that runs out of memory, at its first or a later allocation, allocates nothing and changes nothing.
final class RefusedMemoryTest extends Conformance {
    private static final long LIMIT = 160L << 20;
    private static final long STEP = 3L << 19;

    private final Device on = open(1, LIMIT);
    private final Arena arena = Arena.ofShared();

    @AfterEach void close() {
        on.close();
        arena.close();
    }

    private interface Attempt {
        /// Allocates; the returned action frees the memory.
        AutoCloseable run();
    }

    /// Bytes in use without idle scratch, which a request that cannot be met frees.
    private long taken() {
        assertThrows(OutOfDeviceMemory.class, () -> on.tensor(DType.F32, 1, (int) (LIMIT / 4)));
        return on.memoryInUse();
    }

    /// Runs an attempt with decreasing ballast: each time more memory is left, at last enough.
    private void attempt(Attempt attempt, Runnable unchanged) throws Exception {
        assertTrue(refusals(attempt, unchanged) > 0, "nothing was refused");
    }

    /// The same; returns how often it was refused.
    private int refusals(Attempt attempt, Runnable unchanged) throws Exception {
        long before = taken();
        int refused = 0;
        boolean met = false;
        for (long left = 0; !met; left += STEP) {
            assertTrue(left < LIMIT - before, "never enough");
            var ballast = on.tensor(DType.F32, 1, (int) ((LIMIT - before - left - 4096) / 4));
            long with = taken();
            AutoCloseable given = null;
            try {
                given = attempt.run();
                met = true;
            } catch (OutOfDeviceMemory e) {
                refused++;
                assertEquals(LIMIT, e.limit());
                unchanged.run();
            }
            if (given != null) given.close();
            assertEquals(with, taken(), "with " + left + " bytes left");
            on.free(ballast);
        }
        assertEquals(before, taken());
        return refused;
    }

    @Test void aTensor() throws Exception {
        attempt(() -> {
            var tensor = on.tensor(DType.BF16, 3, 1 << 20);
            return () -> on.free(tensor);
        }, () -> {});
    }

    @Test void scratchAndUploads() throws Exception {
        try (var scope = on.scope()) {
            var kept = on.scratch(scope, DType.F32, 1, 100);
            on.fill(kept, 3);
            int[] ids = new int[5 << 20];
            attempt(() -> {
                var inner = on.scope();
                try {
                    on.upload(inner, List.of(HostArray.column(ids), HostArray.column(new float[7])));
                } catch (OutOfDeviceMemory e) {
                    inner.close();
                    throw e;
                }
                return inner;
            }, () -> assertEquals(3f, read(on, kept)[99]));
        }
    }

    /// After a refusal a scope is unchanged: its next allocation works as without the refusal.
    @Test void aScopeAfterARefusal() {
        try (var scope = on.scope()) {
            on.scratch(scope, DType.F32, 1, 1);
            long first = on.memoryInUse();
            on.scratch(scope, DType.F32, 1, 1);
            long second = on.memoryInUse();
            assertThrows(OutOfDeviceMemory.class,
                    () -> on.scratch(scope, DType.F32, 1 << 10, 1 << 20));
            assertEquals(second, on.memoryInUse());
            on.scratch(scope, DType.F32, 1, 1);
            assertEquals(second - first, on.memoryInUse() - second);
        }
    }

    @Test void aSnapshotOfSeveralTensors() throws Exception {
        float[] values = random(1, 1 << 20);
        var first = tensor(on, 1, values.length, values);
        var second = on.tensor(DType.F32, 1, 1 << 20);
        attempt(() -> on.snapshot(List.of(first, second, first)),
                () -> assertArrayEquals(values, read(on, first), 0f));
    }

    @Test void pagesOfAPool() throws Exception {
        var shape = new PagePool.Format(8, 4, 64, DType.F32);
        attempt(() -> {
            var pool = on.pagePool(shape, 5);
            try {
                pool.growTo(5);
            } catch (OutOfDeviceMemory e) {
                // this call allocated nothing, and a smaller request succeeds
                pool.growTo(0);
                throw e;
            }
            return pool;
        }, () -> {});
    }

    @Test void aWeight() throws Exception {
        var matrix = VerbFixture.frozen(arena, FrozenMatrix.WeightType.F32, 1 << 10, 1 << 11, new float[0]);
        long before = taken();
        var ballast = on.tensor(DType.F32, 1, (int) ((LIMIT - before - (1 << 20)) / 4));
        long with = taken();
        assertThrows(OutOfDeviceMemory.class, () -> on.weight(matrix));
        assertEquals(with, taken());
        on.free(ballast);
        on.weight(matrix);
    }

    /// The gradients of the first slot are not added to when there is no scratch for the second.
    @Test void theBackwardOfAProjection() throws Exception {
        int rows = 1 << 15, rank = 128, in = 2, out = 3;
        var weight = on.weight(VerbFixture.frozen(arena, FrozenMatrix.WeightType.F32, out, in, random(1, 6)));
        var table = new Factors(1, Map.of(0, Factors.factor(on, in, rank, out, random(1, in * rank),
                random(2, rank * out))));
        var gradient = new Factor(on.tensor(DType.F32, in, rank), on.tensor(DType.F32, rank, out));
        var slot = Optional.<FactorTable>of(new Factors(1, Map.of(0, gradient)));
        var other = Optional.<FactorTable>of(new Factors(1, Map.of(0, new Factor(
                on.tensor(DType.F32, in, rank), on.tensor(DType.F32, rank, out)))));
        var x = tensor(on, rows, in, random(3, rows * in));
        var dy = tensor(on, rows, out, random(4, rows * out));
        var dx = tensor(on, rows, in, random(5, rows * in));
        var low = on.tensor(DType.F32, rows, rank);
        try (var scope = on.scope()) {
            var slots = on.slots(scope, List.of(new Slot(0, rows / 2, 1, table, slot),
                    new Slot(rows / 2, rows / 2, 1, table, slot)));
            on.lowRank(List.of(low), x, slots, List.of(0));
            // the threads' own buffers grow once and stay
            on.projectBack(Optional.of(on.scratch(scope, rows, in)), false, dy, x, weight,
                    on.slots(scope, List.of(new Slot(0, rows / 2, 1, table, other),
                            new Slot(rows / 2, rows / 2, 1, table, other))), 0, Optional.of(low));
            attempt(() -> {
                on.projectBack(Optional.of(dx), false, dy, x, weight, slots, 0, Optional.of(low));
                return () -> {};
            }, () -> {
                assertArrayEquals(new float[in * rank], read(on, gradient.a()), 0f);
                assertArrayEquals(new float[rank * out], read(on, gradient.b()), 0f);
                assertArrayEquals(random(5, rows * in), read(on, dx), 0f);
            });
        }
    }

    /// Results in bf16 are written only after success. A device whose kernels compute with bf16 takes no
    /// memory for it.
    @Test void aVerbOnBf16() throws Exception {
        int n = 1 << 11;
        float[] values = VerbFixture.rounded(random(1, n * n));
        var y = tensor(on, DType.BF16, n, n, 0, values);
        var x = tensor(on, DType.BF16, n, n, 0, values);
        var small = tensor(on, DType.F32, 1, n, 0, random(2, n));
        var inverse = tensor(on, DType.F32, n, 1, 0, random(3, n));
        int refused = refusals(() -> {
            on.rmsNorm(y, inverse, x, small, 1e-5f);
            return () -> {};
        }, () -> {
            assertArrayEquals(values, read(on, y), 0f);
            assertArrayEquals(random(3, n), read(on, inverse), 0f);
        });
        assertTrue(refused > 0 || on.activationType() == DType.BF16, "nothing was refused");
    }

    @Test void draws() throws Exception {
        int words = 1 << 19;
        var logits = tensor(on, 4, words, random(1, 4 * words));
        try (var scope = on.scope()) {
            var draws = on.draws(scope, List.of(new Draw(0, 0.7, -1, 1, 1, 0, 0),
                    new Draw(0, 1.3, -1, 1, 1, 1, 0), new Draw(0, 1.4, -1, 1, 1, 2, 0),
                    new Draw(3, 1, -1, 1, 1, 3, 0)));
            var tokens = on.scratch(scope, DType.I32, 4, 1);
            var logprobs = on.scratch(scope, DType.F32, 4, 1);
            var own = on.scratch(scope, DType.F32, 4, 1);
            on.fill(logprobs, 5);
            attempt(() -> {
                on.sample(tokens, logprobs, own, logits, draws);
                return () -> {};
            }, () -> assertEquals(5f, read(on, logprobs)[3]));
        }
    }

    /// fp16 weights are widened where they are packed; a weight is counted as it is packed. (Plain products
    /// read the file itself.)
    @Test void weightsAreCountedAsTheyArePacked() {
        int rows = 640, columns = 512;
        float[] values = random(1, rows * columns);
        for (var dtype : FrozenMatrix.WeightType.values()) {
            long before = on.memoryInUse();
            var matrix = VerbFixture.frozen(arena, dtype, rows, columns, values);
            var weight = on.weight(matrix);
            long packed = on.memoryInUse() - before;
            assertEquals(packed, on.weightBytes(matrix), (double) (1 << 18), dtype + " is announced");
            boolean plain = on.description().contains("plain products");
            int least = dtype == FrozenMatrix.WeightType.BF16 || plain ? dtype.bytes() : 4;
            assertTrue(packed >= (long) least * rows * columns, dtype + " takes " + packed + " bytes");
            assertTrue(packed < 4L * rows * columns + (1 << 18), dtype + " takes " + packed + " bytes");
            assertEquals(rows, weight.out());
        }
    }

    /// Buffers that kernels use beside their operands are counted, once.
    @Test void buffersOfThreadsAreCounted() {
        int rows = 300, in = 700, out = 900;
        var weight = on.weight(VerbFixture.frozen(arena, FrozenMatrix.WeightType.BF16, out, in,
                random(1, in * out)));
        var x = tensor(on, rows, in, random(2, rows * in));
        var y = on.tensor(DType.F32, rows, out);
        long before = on.memoryInUse();
        try (var scope = on.scope()) {
            var none = on.slots(scope, List.of());
            for (int i = 0; i < 2; i++) {
                on.project(y, x, weight, Optional.empty(), Optional.empty(), none, 0, Optional.empty());
                on.projectBack(Optional.of(x), false, y, x, weight, none, 0, Optional.empty());
                if (i == 0 && !on.description().contains("plain products"))
                    assertTrue(on.memoryInUse() > before, "nothing is counted");
                if (i == 1) assertEquals(before, on.memoryInUse());
                before = on.memoryInUse();
            }
        }
    }
}
