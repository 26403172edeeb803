package bios.worker.device;

import static bios.worker.device.VerbFixture.random;
import static bios.worker.device.VerbFixture.read;
import static bios.worker.device.VerbFixture.rounded;
import static bios.worker.device.VerbFixture.tensor;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// Memory of every element type, transfers, snapshots, and calls from other threads.
final class TransferTest extends Conformance {
    private final Device on = open(2);

    @AfterEach void close() {
        on.close();
    }

    @Test void tensorsBeginAsZerosInEveryElementType() {
        var back = on.readback(List.of(on.tensor(DType.F32, 3, 5), on.tensor(DType.BF16, 1, 7),
                on.tensor(DType.I32, 2, 2), on.tensor(DType.F64, 1, 3)));
        assertArrayEquals(new float[15], back.floats(0));
        assertArrayEquals(new float[7], back.floats(1));
        assertArrayEquals(new int[4], back.ints(2));
        assertArrayEquals(new double[3], back.doubles(3));
    }

    @Test void writtenRowsAreReadBackInBothFloatTypesAndWithStrides() {
        for (int[] s : new int[][] {{1, 1}, {3, 66}, {65, 130}})
            for (int gap : new int[] {0, 3}) {
                float[] values = random(1, s[0] * s[1]);
                assertArrayEquals(values, read(on, tensor(on, DType.F32, s[0], s[1], gap, values)), 0f);
                assertArrayEquals(rounded(values), read(on, tensor(on, DType.BF16, s[0], s[1], gap, values)),
                        0f);
            }
        var t = on.tensor(DType.F32, 2, 2);
        float[] more = {9, 1, 2, 3, 4, 9};
        on.write(t, more, 1);
        float[] to = new float[6];
        on.read(t, to, 2);
        assertArrayEquals(new float[] {0, 0, 1, 2, 3, 4}, to);
        assertThrows(IllegalStateException.class, () -> on.read(t, to, 3));
        assertThrows(IllegalStateException.class, () -> on.write(t, more, 3));
    }

    @Test void anUploadContainsTheArraysAtTheTimeOfTheCall() {
        try (var scope = on.scope()) {
            int[] ids = {3, -1, 7};
            float[] weights = {0.5f, 2, -3, 4};
            var tensors = on.upload(scope, List.of(HostArray.column(ids), new HostArray.Floats(2, 2, weights),
                    HostArray.column(new int[0])));
            ids[0] = 99;
            weights[0] = 99;
            var back = on.readback(tensors);
            assertArrayEquals(new int[] {3, -1, 7}, back.ints(0));
            assertArrayEquals(new float[] {0.5f, 2, -3, 4}, back.floats(1));
            assertEquals(0, back.ints(2).length);
            assertEquals(DType.I32, tensors.getFirst().dtype());
        }
    }

    @Test void aReadbackKeepsItsValuesAfterLaterVerbsAndTheEndOfTheScope() {
        Readback back;
        try (var scope = on.scope()) {
            var x = on.scratch(scope, DType.F32, 2, 3);
            on.fill(x, 2);
            back = on.readback(List.of(x, x.columns(1, 2)));
            on.fill(x, 7);
        }
        assertArrayEquals(new float[] {2, 2, 2, 2, 2, 2}, back.floats(0));
        assertArrayEquals(new float[] {2, 2, 2, 2}, back.floats(1));
    }

    @Test void copiesAndFillsWorkInEveryFloatTypeAndBetweenThem() {
        float[] values = random(1, 5 * 9);
        for (var from : List.of(DType.F32, DType.BF16))
            for (var to : List.of(DType.F32, DType.BF16)) {
                var x = tensor(on, from, 5, 9, 2, values);
                var y = on.tensor(to, 5, 9);
                on.copy(y, x);
                boolean narrow = from == DType.BF16 || to == DType.BF16;
                assertArrayEquals(narrow ? rounded(values) : values, read(on, y), 0f);
                on.fill(y.columns(1, 2), 0.1f);
                float filled = to == DType.BF16 ? rounded(new float[] {0.1f})[0] : 0.1f;
                assertEquals(filled, read(on, y)[1]);
                assertEquals(narrow ? rounded(values)[3] : values[3], read(on, y)[3]);
            }
    }

    @Test void gatheredRowsAreThoseOfTheirIndices() {
        try (var scope = on.scope()) {
            for (var dtype : List.of(DType.F32, DType.BF16)) {
                float[] values = dtype == DType.F32 ? random(1, 6 * 33) : rounded(random(1, 6 * 33));
                var x = tensor(on, dtype, 6, 33, 4, values);
                var y = on.tensor(dtype, 3, 33 + 2).columns(0, 33);
                on.gather(y, x, VerbFixture.ints(on, scope, 5, 0, 5));
                float[] got = read(on, y);
                for (int i = 0; i < 33; i++) {
                    assertEquals(values[5 * 33 + i], got[i]);
                    assertEquals(values[i], got[33 + i]);
                    assertEquals(values[5 * 33 + i], got[66 + i]);
                }
                var outside = VerbFixture.ints(on, scope, 0, 6, 0);
                // a device that only queues its verbs tells with the next result
                assertThrows(IllegalStateException.class, () -> {
                    on.gather(y, x, outside);
                    read(on, y);
                });
                on.gather(y, x, VerbFixture.ints(on, scope, 5, 0, 5));
                assertEquals(values[0], read(on, y)[33]);
            }
        }
    }

    @Test void embeddedRowsAreThoseOfTheFileInEveryType() {
        float[] values = random(1, 10 * 33);
        try (var arena = Arena.ofShared(); var scope = on.scope()) {
            for (var file : FrozenMatrix.WeightType.values())
                for (var dtype : List.of(DType.F32, DType.BF16)) {
                    var table = on.table(VerbFixture.frozen(arena, file, 10, 33, values));
                    assertEquals(10, table.rows());
                    assertEquals(33, table.columns());
                    var y = on.tensor(dtype, 2, 33 + 4).columns(0, 33);
                    on.embed(y, VerbFixture.ints(on, scope, 7, 0), table);
                    float[] got = read(on, y);
                    for (int i = 0; i < 66; i++) {
                        float x = values[(i < 33 ? 7 : 0) * 33 + i % 33];
                        if (file == FrozenMatrix.WeightType.F16)
                            x = Float.float16ToFloat(Float.floatToFloat16(x));
                        if (file == FrozenMatrix.WeightType.BF16 || dtype == DType.BF16)
                            x = rounded(new float[] {x})[0];
                        assertEquals(x, got[i]);
                    }
                    var outside = VerbFixture.ints(on, scope, 10, 0);
                    assertThrows(IllegalStateException.class, () -> {
                        on.embed(y, outside, table);
                        on.readback(List.of(y)).floats(0);
                    });
                }
        }
    }

    @Test void aSnapshotContainsTheEarlierTensorsAndIsReadInBlocks() {
        float[] values = random(1, 7 * 40);
        var x = tensor(on, DType.F32, 7, 40, 0, values);
        var y = tensor(on, DType.BF16, 2, 3, 1, new float[] {1, 2, 3, 4, 5, 6});
        try (var snapshot = on.snapshot(List.of(x, y))) {
            assertEquals(4 * 280 + 2 * 6, snapshot.bytes());
            on.fill(x, 9);
            on.fill(y, 9);
            float[] all = new float[280];
            snapshot.read(0, 0, 7, 0, 40, all, 0);
            assertArrayEquals(values, all, 0f);
            float[] block = new float[7];
            snapshot.read(0, 3, 2, 5, 3, block, 1);
            assertArrayEquals(new float[] {0, values[125], values[126], values[127], values[165], values[166],
                    values[167]}, block, 0f);
            float[] narrow = new float[2];
            snapshot.read(1, 1, 1, 1, 2, narrow, 0);
            assertArrayEquals(new float[] {5, 6}, narrow, 0f);
        }
    }

    @Test void aClosedSnapshotFreesItsMemoryOnceAndCannotBeRead() {
        var x = on.tensor(DType.F32, 100, 100);
        long before = on.memoryInUse();
        var snapshot = on.snapshot(List.of(x, x.rows(0, 50)));
        long taken = on.memoryInUse() - before;
        if (taken < snapshot.bytes()) throw new AssertionError(taken + " bytes of " + snapshot.bytes());
        snapshot.close();
        snapshot.close();
        assertEquals(before, on.memoryInUse());
        assertThrows(IllegalStateException.class, () -> snapshot.read(0, 0, 1, 0, 1, new float[1], 0));
    }

    @Test void aSnapshotOutlivesItsDevice() {
        Snapshot snapshot;
        try (var other = open(1)) {
            snapshot = other.snapshot(List.of(other.tensor(DType.F32, 1, 1)));
        }
        snapshot.close();
    }

    /// Other threads read and write tensors that no verb uses, read snapshots and free both, while verbs run.
    @Test void statesAreTransferredWhileVerbsRun() throws Exception {
        int n = 300;
        float[] values = random(1, n * n);
        var x = tensor(on, n, n, values);
        var y = on.tensor(DType.F32, n, n);
        var end = new AtomicBoolean();
        List<Future<Integer>> movers = new ArrayList<>();
        try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
            for (int t = 0; t < 4; t++) {
                var snapshot = on.snapshot(List.of(x));
                int own = t;
                movers.add(threads.submit(() -> {
                    int rounds = 0;
                    for (; rounds == 0 || !end.get(); rounds++) moveOnce(snapshot, values, own, n);
                    snapshot.close();
                    return rounds;
                }));
            }
            for (int i = 0; i < 50; i++) {
                on.copy(y, x);
                on.add(List.of(y), List.of(x));
            }
            end.set(true);
            for (var mover : movers) mover.get();
        }
        float[] twice = values.clone();
        for (int i = 0; i < twice.length; i++) twice[i] += values[i];
        assertArrayEquals(twice, read(on, y), 0f);
    }

    private void moveOnce(Snapshot snapshot, float[] values, int seed, int n) {
        float[] rows = new float[3 * n];
        snapshot.read(0, 7, 3, 0, n, rows, 0);
        assertArrayEquals(VerbFixture.rows(values, n, 7, 3), rows, 0f);
        var state = on.tensor(DType.F32, 20, n);
        float[] own = random(seed, 20 * n);
        on.write(state, own, 0);
        assertArrayEquals(own, read(on, state), 0f);
        on.free(state);
    }
}
