package bios.worker.device;

import static bios.worker.device.Tolerance.assertClose;
import static bios.worker.device.VerbFixture.random;
import static bios.worker.device.VerbFixture.read;
import static bios.worker.device.VerbFixture.rounded;
import static bios.worker.device.VerbFixture.rows;
import static bios.worker.device.VerbFixture.tensor;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// Attention over packed keys and over pages, which give the same bits; pages that are filled, shared and
/// copied.
final class PagedAttentionTest extends Conformance {
    private static final List<AttentionShape> SHAPES = List.of(new AttentionShape(4, 2, 8, 0.35f, 0),
            new AttentionShape(3, 1, 6, 0.5f, 0), new AttentionShape(2, 2, 16, 0.25f, 7),
            new AttentionShape(14, 2, 64, 0.125f, 70));
    private static final int LAYERS = 2;

    private final Device on = open(2);
    private final Device.Scope scope = on.scope();

    @AfterEach void close() {
        scope.close();
        on.close();
    }

    /// Queries, keys and values of a sequence.
    private record Case(AttentionShape shape, int rows, float[] q, float[] k, float[] v) {
        static Case of(AttentionShape shape, int rows, long seed) {
            int kv = shape.kvHeads() * shape.headDim();
            return new Case(shape, rows, random(seed, rows * shape.heads() * shape.headDim()),
                    random(seed + 1, rows * kv), random(seed + 2, rows * kv));
        }

        int width() {
            return shape.heads() * shape.headDim();
        }

        int keyWidth() {
            return shape.kvHeads() * shape.headDim();
        }

        /// Rows of heads·headDim values, then rows of heads logarithms.
        double[][] expected() {
            double[] out = new double[rows * width()];
            double[] lse = new double[rows * shape.heads()];
            for (int at = 0; at < lse.length; at++) attend(out, lse, at);
            return new double[][] {out, lse};
        }

        private void attend(double[] out, double[] lse, int at) {
            int dim = shape.headDim();
            int position = at / shape.heads();
            int head = at % shape.heads() / (shape.heads() / shape.kvHeads());
            double total = 0;
            int first = shape.window() > 0 ? Math.max(0, position - shape.window() + 1) : 0;
            for (int j = first; j <= position; j++) {
                double score = 0;
                int key = j * keyWidth() + head * dim;
                for (int d = 0; d < dim; d++) score += (double) q[at * dim + d] * k[key + d];
                double e = Math.exp(score * shape.scale());
                total += e;
                for (int d = 0; d < dim; d++) out[at * dim + d] += e * v[key + d];
            }
            for (int d = 0; d < dim; d++) out[at * dim + d] /= total;
            lse[at] = Math.log(total);
        }
    }

    private PagePool pool(AttentionShape shape, DType dtype, int pages) {
        var pool = on.pagePool(new PagePool.Format(LAYERS, shape.kvHeads(), shape.headDim(), dtype), pages);
        pool.growTo(pages);
        return pool;
    }

    private float[][] attend(Tensor q, KeyValues source, AttentionShape shape, List<Sequence> sequences) {
        var out = on.tensor(DType.F32, q.rows(), q.columns() + 3).columns(0, q.columns());
        var lse = on.tensor(DType.F32, q.rows(), shape.heads());
        on.attention(out, lse, q, source, on.sequences(scope, sequences), shape);
        return new float[][] {read(on, out), read(on, lse)};
    }

    private float[][] packed(Case c) {
        var source = new KeyValues.Packed(tensor(on, DType.F32, c.rows, c.keyWidth(), 5, c.k),
                tensor(on, DType.F32, c.rows, c.keyWidth(), 1, c.v));
        return attend(tensor(on, DType.F32, c.rows, c.width(), 2, c.q), source, c.shape,
                List.of(Sequence.packed(0, c.rows)));
    }

    @Test void packedSequencesAgreeWithDoublePrecision() {
        for (var shape : SHAPES)
            for (int n : new int[] {1, 63, 64, 65, 150}) {
                var c = Case.of(shape, n, n);
                double allowed = tolerance().attention(shape.headDim(), shape.scale(), n);
                assertClose(c.expected()[0], packed(c)[0], allowed, Tolerance.ROUNDING, "out of " + shape);
                assertClose(c.expected()[1], packed(c)[1], allowed, Tolerance.ROUNDING, "lse of " + shape);
            }
    }

    /// Keys come in parts, pages in any order, both layers hold different keys.
    @Test void aQueryHasTheSameBitsFromPagesAsFromPackedKeys() {
        for (var shape : SHAPES) {
            var c = Case.of(shape, 150, 1);
            var other = Case.of(shape, 150, 5);
            int[] pages = {4, 0, 2};
            var pool = pool(shape, DType.F32, 5);
            float[][] whole = packed(c);
            int done = 0;
            for (int count : new int[] {1, 62, 2, 64, 21}) {
                int from = done;
                float[][] got = attendPart(pool, 1, c, from, count, pages);
                attendPart(pool, 0, other, from, count, pages);
                assertArrayEquals(rows(whole[0], c.width(), from, count), got[0], 0f);
                assertArrayEquals(rows(whole[1], shape.heads(), from, count), got[1], 0f);
                done += count;
            }
            manyQueriesAtOnce(pool, c, whole, pages);
            pool.close();
        }
    }

    private float[][] attendPart(PagePool pool, int layer, Case c, int from, int count, int[] pages) {
        var sequences = List.of(new Sequence(0, count, from, pages));
        on.append(pool, layer, tensor(on, DType.F32, count, c.keyWidth(), 3,
                rows(c.k, c.keyWidth(), from, count)), tensor(on, DType.F32, count, c.keyWidth(), 0,
                rows(c.v, c.keyWidth(), from, count)), on.sequences(scope, sequences));
        return attend(tensor(on, DType.F32, count, c.width(), 2, rows(c.q, c.width(), from, count)),
                new KeyValues.Paged(pool, layer), c.shape, sequences);
    }

    /// Sequences that share all pages, one position each: enough for tasks of several heads.
    private void manyQueriesAtOnce(PagePool pool, Case c, float[][] whole, int[] pages) {
        var sequences = new ArrayList<Sequence>();
        for (int i = 0; i < c.rows; i++) sequences.add(new Sequence(i, 1, i, pages));
        float[][] got = attend(tensor(on, c.rows, c.width(), c.q), new KeyValues.Paged(pool, 1), c.shape,
                sequences);
        assertArrayEquals(whole[0], got[0], 0f);
        assertArrayEquals(whole[1], got[1], 0f);
    }

    @Test void aCopiedPageIsIndependentOfTheOriginal() {
        var shape = SHAPES.getFirst();
        var c = Case.of(shape, 70, 1);
        var twin = Case.of(shape, 70, 1);
        System.arraycopy(random(77, 6 * c.keyWidth()), 0, twin.k, 64 * c.keyWidth(), 6 * c.keyWidth());
        var pool = pool(shape, DType.F32, 3);
        for (int layer = 0; layer < LAYERS; layer++) attendPart(pool, layer, c, 0, 66, new int[] {0, 1});
        on.copyPage(pool, 2, 1);
        for (int layer = 0; layer < LAYERS; layer++) {
            float[][] got = attendPart(pool, layer, c, 66, 4, new int[] {0, 1});
            assertArrayEquals(rows(packed(c)[0], c.width(), 66, 4), got[0], 0f);
        }
        // the first two positions of the copy are those of the original
        System.arraycopy(c.k, 64 * c.keyWidth(), twin.k, 64 * c.keyWidth(), 2 * c.keyWidth());
        float[][] got = attendPart(pool, 1, twin, 66, 4, new int[] {0, 2});
        assertArrayEquals(rows(packed(twin)[0], c.width(), 66, 4), got[0], 0f);
        got = attendPart(pool, 1, c, 66, 4, new int[] {0, 1});
        assertArrayEquals(rows(packed(c)[0], c.width(), 66, 4), got[0], 0f);
    }

    @Test void pagesOfBf16ContainRoundedKeysAndValues() {
        for (var shape : SHAPES) {
            var c = Case.of(shape, 130, 1);
            var asHeld = new Case(shape, 130, c.q, rounded(c.k), rounded(c.v));
            var pool = pool(shape, DType.BF16, 3);
            assertEquals(pool(shape, DType.F32, 1).pageBytes() / 2, pool.pageBytes());
            float[][] got = attendPart(pool, 1, c, 0, 130, new int[] {2, 0, 1});
            assertArrayEquals(packed(asHeld)[0], got[0], 0f);
            assertArrayEquals(packed(asHeld)[1], got[1], 0f);
        }
    }

    @Test void backwardAgreesWithFiniteDifferences() {
        for (var shape : SHAPES.subList(0, 3)) {
            var first = Case.of(shape, 9, 1);
            var second = Case.of(shape, 70, 4);
            float[] dout = random(4, 79 * first.width());
            float[][] gradients = backward(first, second, dout);
            for (int which = 0; which < 3; which++) {
                slopes(first, rows(dout, first.width(), 0, 9), which, gradients[which], 0);
                int width = which == 0 ? first.width() : first.keyWidth();
                slopes(second, rows(dout, first.width(), 9, 70), which, gradients[which], 9 * width);
            }
        }
    }

    private float[][] backward(Case first, Case second, float[] dout) {
        int n = first.rows + second.rows;
        var q = tensor(on, n, first.width(), together(first.q, second.q));
        var source = new KeyValues.Packed(tensor(on, n, first.keyWidth(), together(first.k, second.k)),
                tensor(on, DType.F32, n, first.keyWidth(), 3, together(first.v, second.v)));
        var sequences = on.sequences(scope, List.of(Sequence.packed(0, first.rows),
                Sequence.packed(first.rows, second.rows)));
        assertEquals(n, sequences.rows());
        var out = on.tensor(DType.F32, n, first.width());
        var lse = on.tensor(DType.F32, n, first.shape.heads());
        on.attention(out, lse, q, source, sequences, first.shape);
        var dq = tensor(on, n, first.width(), random(7, n * first.width()));
        var dk = tensor(on, DType.F32, n, first.keyWidth(), 3, random(8, n * first.keyWidth()));
        var dv = tensor(on, n, first.keyWidth(), random(9, n * first.keyWidth()));
        on.attentionBackward(dq, dk, dv, tensor(on, n, first.width(), dout), out, lse, q, source, sequences,
                first.shape);
        return new float[][] {read(on, dq), read(on, dk), read(on, dv)};
    }

    private static float[] together(float[] a, float[] b) {
        float[] both = new float[a.length + b.length];
        System.arraycopy(a, 0, both, 0, a.length);
        System.arraycopy(b, 0, both, a.length, b.length);
        return both;
    }

    private static double loss(Case c, float[] dout) {
        double[] out = c.expected()[0];
        double sum = 0;
        for (int i = 0; i < out.length; i++) sum += out[i] * dout[i];
        return sum;
    }

    private static void slopes(Case c, float[] dout, int which, float[] gradient, int at) {
        float[] parameter = List.of(c.q, c.k, c.v).get(which);
        for (int i = 0; i < parameter.length; i += 1 + parameter.length / 11) {
            float was = parameter[i];
            parameter[i] = was + 0.01f;
            double step = parameter[i];
            double high = loss(c, dout);
            parameter[i] = was - 0.01f;
            step -= parameter[i];
            double slope = (high - loss(c, dout)) / step;
            parameter[i] = was;
            assertClose(new double[] {slope}, new float[] {gradient[at + i]}, 1e-4, 1e-4,
                    "qkv".charAt(which) + "[" + i + "] of " + c.shape);
        }
    }

    @Test void invalidPagesAndSequencesAreRefused() {
        var shape = SHAPES.getFirst();
        var pool = on.pagePool(new PagePool.Format(1, 2, 8, DType.F32), 2);
        assertThrows(IllegalStateException.class, () -> pool.growTo(3));
        pool.growTo(1);
        assertThrows(IllegalStateException.class, () -> on.copyPage(pool, 1, 0));
        assertThrows(IllegalStateException.class,
                () -> on.sequences(scope, List.of(new Sequence(0, 2, 63, new int[] {0}))));
        assertThrows(IllegalStateException.class,
                () -> on.sequences(scope, List.of(Sequence.packed(1, 2))));
        var q = on.tensor(DType.F32, 1, 32);
        var sequences = on.sequences(scope, List.of(new Sequence(0, 1, 0, new int[] {1})));
        assertThrows(IllegalStateException.class, () -> on.attention(q, on.tensor(DType.F32, 1, 4), q,
                new KeyValues.Paged(pool, 0), sequences, shape));
    }
}
