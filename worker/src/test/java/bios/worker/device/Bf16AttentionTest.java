package bios.worker.device;

import static bios.worker.device.VerbFixture.random;
import static bios.worker.device.VerbFixture.read;
import static bios.worker.device.VerbFixture.rounded;
import static bios.worker.device.VerbFixture.rows;
import static bios.worker.device.VerbFixture.tensor;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// Attention whose operands are all BF16, for heads of the sizes of real models: a device may round softmax
/// weights to bf16 there, but a query has the same bits wherever its keys are and whatever is beside it.
final class Bf16AttentionTest extends Conformance {
    private static final List<AttentionShape> SHAPES = List.of(new AttentionShape(4, 2, 64, 0.125f, 0),
            new AttentionShape(3, 1, 64, 0.125f, 70), new AttentionShape(2, 1, 128, 0.09f, 0),
            new AttentionShape(5, 1, 128, 0.09f, 66));
    private static final int[] LENGTHS = {1, 63, 130};
    private static final int ROWS = 194;
    /// Lengths of as many blocks of keys as make every stage of a kernel's memory be used again.
    private static final int[] LONG = {33, 500};

    private final Device on = open(2);
    private final Device.Scope scope = on.scope();

    @AfterEach void close() {
        scope.close();
        on.close();
    }

    private static int width(AttentionShape shape) {
        return shape.heads() * shape.headDim();
    }

    private static int keyWidth(AttentionShape shape) {
        return shape.kvHeads() * shape.headDim();
    }

    private static float[] queries(AttentionShape shape) {
        return queries(shape, ROWS);
    }

    private static float[] queries(AttentionShape shape, int rows) {
        return rounded(random(1, rows * width(shape)));
    }

    private static float[] keys(AttentionShape shape, int rows) {
        return rounded(random(2, rows * keyWidth(shape)));
    }

    private static float[] values(AttentionShape shape, int rows) {
        return rounded(random(3, rows * keyWidth(shape)));
    }

    private Sequences packed(int... lengths) {
        var all = new ArrayList<Sequence>();
        int row = 0;
        for (int n : lengths) {
            all.add(Sequence.packed(row, n));
            row += n;
        }
        return on.sequences(scope, all);
    }

    /// out and lse.
    private record Result(Tensor out, Tensor lse) {}

    private Result attend(AttentionShape shape, DType dtype, float[] q, KeyValues source,
            Sequences sequences) {
        int n = q.length / width(shape);
        var result = new Result(on.tensor(dtype, n, width(shape)), on.tensor(DType.F32, n, shape.heads()));
        on.attention(result.out, result.lse, tensor(on, dtype, n, width(shape), 0, q), source, sequences,
                shape);
        return result;
    }

    private KeyValues.Packed source(AttentionShape shape, DType dtype) {
        return source(shape, dtype, ROWS);
    }

    private KeyValues.Packed source(AttentionShape shape, DType dtype, int rows) {
        return new KeyValues.Packed(tensor(on, dtype, rows, keyWidth(shape), 8, keys(shape, rows)),
                tensor(on, dtype, rows, keyWidth(shape), 16, values(shape, rows)));
    }

    @Test void resultsAreNearThoseOfFp32() {
        for (var shape : SHAPES) {
            var exact = attend(shape, DType.F32, queries(shape), source(shape, DType.F32), packed(LENGTHS));
            var got = attend(shape, DType.BF16, queries(shape), source(shape, DType.BF16), packed(LENGTHS));
            // each weight and the result are rounded once; values are below 1
            assertNear(read(on, exact.out), read(on, got.out), 3 * Tolerance.ROUNDED, "out of " + shape);
            assertNear(read(on, exact.lse), read(on, got.lse), 1e-5, "lse of " + shape);
        }
    }

    private static void assertNear(float[] expected, float[] actual, double allowed, String what) {
        for (int i = 0; i < expected.length; i++)
            assertTrue(Math.abs(expected[i] - actual[i]) <= allowed,
                    what + "[" + i + "]: " + actual[i] + ", not " + expected[i]);
    }

    @Test void aQueryHasTheSameBitsFromPagesAndAlone() {
        for (var shape : SHAPES) {
            int n = LENGTHS[2];
            int from = ROWS - n;
            var whole = attend(shape, DType.BF16, queries(shape), source(shape, DType.BF16), packed(LENGTHS));
            float[] out = rows(read(on, whole.out), width(shape), from, n);
            float[] lse = rows(read(on, whole.lse), shape.heads(), from, n);
            try (var pool = on.pagePool(new PagePool.Format(2, shape.kvHeads(), shape.headDim(), DType.BF16),
                    4)) {
                pool.growTo(4);
                int[] pages = {3, 0, 2};
                int done = 0;
                for (int count : new int[] {1, 62, 2, 64, 1}) {
                    var sequences = on.sequences(scope, List.of(new Sequence(0, count, done, pages)));
                    on.append(pool, 1, tensor(on, DType.BF16, count, keyWidth(shape), 0,
                            rows(keys(shape, ROWS), keyWidth(shape), from + done, count)), tensor(on,
                            DType.BF16, count, keyWidth(shape), 0, rows(values(shape, ROWS), keyWidth(shape),
                            from + done, count)), sequences);
                    float[] q = rows(queries(shape), width(shape), from + done, count);
                    var got = attend(shape, DType.BF16, q, new KeyValues.Paged(pool, 1), sequences);
                    assertArrayEquals(rows(out, width(shape), done, count), read(on, got.out), 0f);
                    assertArrayEquals(rows(lse, shape.heads(), done, count), read(on, got.lse), 0f);
                    done += count;
                }
            }
        }
    }

    @Test void gradientsAreNearThoseOfFp32() {
        for (var shape : SHAPES) {
            var exact = backward(shape, DType.F32, LENGTHS);
            var got = backward(shape, DType.BF16, LENGTHS);
            for (int i = 0; i < 3; i++) assertNearInTheMean(exact.get(i), got.get(i), "qkv".charAt(i) + " of "
                    + shape);
        }
    }

    @Test void longSequences() {
        for (var shape : List.of(new AttentionShape(2, 1, 64, 0.125f, 0), new AttentionShape(1, 1, 128, 0.09f,
                290))) {
            int rows = Arrays.stream(LONG).sum();
            float[] q = queries(shape, rows);
            var exact = attend(shape, DType.F32, q, source(shape, DType.F32, rows), packed(LONG));
            var got = attend(shape, DType.BF16, q, source(shape, DType.BF16, rows), packed(LONG));
            assertNear(read(on, exact.out), read(on, got.out), 3 * Tolerance.ROUNDED, "out of " + shape);
            assertNear(read(on, exact.lse), read(on, got.lse), 1e-5, "lse of " + shape);
            samePages(shape, got);
            var exactly = backward(shape, DType.F32, LONG);
            var gradients = backward(shape, DType.BF16, LONG);
            for (int i = 0; i < 3; i++)
                assertNearInTheMean(exactly.get(i), gradients.get(i), "qkv".charAt(i) + " of " + shape);
        }
    }

    /// The last of the LONG sequences has the same bits in chunks whose keys are in pages.
    private void samePages(AttentionShape shape, Result packed) {
        int rows = Arrays.stream(LONG).sum();
        int n = LONG[LONG.length - 1];
        int from = rows - n;
        float[] out = rows(read(on, packed.out), width(shape), from, n);
        int[] pages = {7, 2, 5, 0, 3, 1, 6, 4};
        try (var pool = on.pagePool(new PagePool.Format(1, shape.kvHeads(), shape.headDim(), DType.BF16),
                pages.length)) {
            pool.growTo(pages.length);
            int done = 0;
            for (int count : new int[] {200, 300}) {
                var sequences = on.sequences(scope, List.of(new Sequence(0, count, done, pages)));
                on.append(pool, 0, tensor(on, DType.BF16, count, keyWidth(shape), 0, rows(keys(shape, rows),
                        keyWidth(shape), from + done, count)), tensor(on, DType.BF16, count, keyWidth(shape),
                        0, rows(values(shape, rows), keyWidth(shape), from + done, count)), sequences);
                var got = attend(shape, DType.BF16, rows(queries(shape, rows), width(shape), from + done,
                        count), new KeyValues.Paged(pool, 0), sequences);
                assertArrayEquals(rows(out, width(shape), done, count), read(on, got.out), 0f);
                done += count;
            }
        }
    }

    /// dq, dk, dv.
    private List<float[]> backward(AttentionShape shape, DType dtype, int... lengths) {
        int rows = Arrays.stream(lengths).sum();
        var source = source(shape, dtype, rows);
        var sequences = packed(lengths);
        var result = attend(shape, dtype, queries(shape, rows), source, sequences);
        var dq = on.tensor(dtype, rows, width(shape));
        var dk = on.tensor(dtype, rows, keyWidth(shape));
        var dv = on.tensor(dtype, rows, keyWidth(shape));
        on.attentionBackward(dq, dk, dv, tensor(on, dtype, rows, width(shape), 0,
                rounded(random(4, rows * width(shape)))), result.out, result.lse,
                tensor(on, dtype, rows, width(shape), 0, queries(shape, rows)), source, sequences, shape);
        return List.of(read(on, dq), read(on, dk), read(on, dv));
    }

    private static void assertNearInTheMean(float[] expected, float[] actual, String what) {
        double error = 0;
        double size = 0;
        double most = 0;
        for (int i = 0; i < expected.length; i++) {
            double off = actual[i] - (double) expected[i];
            error += off * off;
            size += expected[i] * (double) expected[i];
            most = Math.max(most, Math.abs(off));
        }
        double mean = Math.sqrt(size / expected.length);
        assertTrue(Math.sqrt(error / expected.length) <= 4 * Tolerance.ROUNDED * mean,
                what + ": off by " + Math.sqrt(error / size) + " in the mean");
        assertTrue(most <= 0.1 * (mean + 1), what + ": off by " + most);
    }
}
