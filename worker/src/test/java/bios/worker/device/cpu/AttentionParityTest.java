package bios.worker.device.cpu;

import static bios.worker.device.TestDevices.read;
import static bios.worker.device.Tolerance.assertClose;
import static bios.worker.device.cpu.Naive.blocks;
import static bios.worker.device.cpu.Naive.random;
import static bios.worker.device.cpu.Naive.tensor;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;

import bios.worker.device.AttentionShape;
import bios.worker.device.Device;
import bios.worker.device.Tensor;
import bios.worker.device.TestDevices;
import bios.worker.device.Tolerance;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// Attention against sums in double precision, and its gradient against finite differences of those.
final class AttentionParityTest {
    static List<String> paths() {
        return TestDevices.paths();
    }

    private static final List<AttentionShape> SHAPES = List.of(
            new AttentionShape(4, 2, 8, 0.35f, 0), new AttentionShape(3, 1, 5, 0.5f, 0),
            new AttentionShape(2, 2, 16, 0.25f, 7), new AttentionShape(14, 2, 64, 0.125f, 70));

    private record Case(AttentionShape shape, int[] lengths, float[] q, float[] k, float[] v) {
        static Case of(AttentionShape shape, int... lengths) {
            int rows = Arrays.stream(lengths).sum();
            int kv = shape.kvHeads() * shape.headDim();
            return new Case(shape, lengths, random(1, rows * shape.heads() * shape.headDim()),
                    random(2, rows * kv), random(3, rows * kv));
        }

        int rows() {
            return Arrays.stream(lengths).sum();
        }

        List<HostSpan> spans(Tensor keys, Tensor values) {
            var spans = new ArrayList<HostSpan>();
            int row = 0;
            for (int n : lengths) {
                spans.add(new HostSpan(row, n, 0, blocks(keys, row, n), blocks(values, row, n)));
                row += n;
            }
            return spans;
        }

        /// Rows of heads·dim values, then rows of heads logarithms.
        double[][] expected() {
            int heads = shape.heads();
            int dim = shape.headDim();
            double[] out = new double[rows() * heads * dim];
            double[] lse = new double[rows() * heads];
            int first = 0;
            for (int n : lengths) {
                for (int i = 0; i < n * heads; i++) {
                    int at = first * heads + i;
                    double[] one = Naive.attend(q, at * dim, k, v, first, i / heads,
                            i % heads / (heads / shape.kvHeads()), shape);
                    System.arraycopy(one, 0, out, at * dim, dim);
                    lse[at] = one[dim];
                }
                first += n;
            }
            return new double[][] {out, lse};
        }

        /// Σ out·dout.
        double loss(float[] dout) {
            double[] out = expected()[0];
            double sum = 0;
            for (int i = 0; i < out.length; i++) sum += out[i] * dout[i];
            return sum;
        }
    }

    @ParameterizedTest @MethodSource("paths")
    void agreesWithDoublePrecisionOverBlockBoundariesWindowsAndSharedHeads(String path) {
        try (var on = TestDevices.open(path, 2)) {
            agrees(on, Tolerance.of(path));
        }
    }

    private static double tolerance(Tolerance of, AttentionShape shape, int[] lengths) {
        return of.attention(shape.headDim(), shape.scale(), Arrays.stream(lengths).max().getAsInt());
    }

    private void agrees(Device device, Tolerance of) {
        for (var shape : SHAPES) {
            for (int[] lengths : new int[][] {{1}, {63, 1, 64}, {65, 2, 130}}) {
                var c = Case.of(shape, lengths);
                int width = shape.heads() * shape.headDim();
                int kv = shape.kvHeads() * shape.headDim();
                var out = tensor(device, c.rows(), width, 3, null);
                var lse = tensor(device, c.rows(), shape.heads(), 0, null);
                var spans = c.spans(tensor(device, c.rows(), kv, 5, c.k),
                        tensor(device, c.rows(), kv, 1, c.v));
                Direct.attention(device, out, lse, tensor(device, c.rows(), width, 2, c.q), spans, shape);
                double allowed = tolerance(of, shape, lengths);
                assertClose(c.expected()[0], read(device, out), allowed, Tolerance.ROUNDING,
                        "out of " + shape);
                assertClose(c.expected()[1], read(device, lse), allowed, Tolerance.ROUNDING,
                        "lse of " + shape);
            }
        }
    }

    @ParameterizedTest @MethodSource("paths")
    void aQueryHasTheSameBitsInTrainingPrefillAndDecoding(String path) {
        try (var on = TestDevices.open(path, 2)) {
            for (var shape : SHAPES)
                for (boolean byHead : new boolean[] {false, true}) sameBits(on, shape, byHead);
        }
    }

    /// @param byHead whether pages are stored head by head, like those of a cache
    private void sameBits(Device device, AttentionShape shape, boolean byHead) {
        var c = Case.of(shape, 150);
        int width = shape.heads() * shape.headDim();
        int kv = shape.kvHeads() * shape.headDim();
        var keys = tensor(device, 150, kv, 0, c.k);
        var values = tensor(device, 150, kv, 0, c.v);
        var q = tensor(device, 150, width, 0, c.q);
        var whole = tensor(device, 150, width, 0, null);
        var wholeLse = tensor(device, 150, shape.heads(), 0, null);
        Direct.attention(device, whole, wholeLse, q, c.spans(keys, values), shape);
        // Pages of a cache are whole blocks: the contents after the last position must not matter.
        var pages = new ArrayList<HostTensor>();
        var valuePages = new ArrayList<HostTensor>();
        for (int b = 0; b < 3; b++) {
            int n = Math.min(64, 150 - 64 * b);
            pages.add(page(device, keys.rows(64 * b, n), shape, byHead));
            valuePages.add(page(device, values.rows(64 * b, n), shape, byHead));
        }
        for (int[] part : new int[][] {{0, 1}, {5, 2}, {62, 5}, {63, 1}, {64, 1}, {127, 23}, {149, 1}}) {
            var out = device.tensor(part[1], width);
            var lse = device.tensor(part[1], shape.heads());
            var span = new HostSpan(0, part[1], part[0], pages, valuePages);
            Direct.attention(device, out, lse, q.rows(part[0], part[1]), List.of(span), shape);
            assertArrayEquals(read(device, whole.rows(part[0], part[1])), read(device, out), 0f);
            assertArrayEquals(read(device, wholeLse.rows(part[0], part[1])), read(device, lse), 0f);
        }
        // enough for tasks of several heads
        var alone = new ArrayList<HostSpan>();
        for (int i = 0; i < 150; i++) alone.add(new HostSpan(i, 1, i, pages, valuePages));
        var out = device.tensor(150, width);
        var lse = device.tensor(150, shape.heads());
        Direct.attention(device, out, lse, q, alone, shape);
        assertArrayEquals(read(device, whole), read(device, out), 0f);
        assertArrayEquals(read(device, wholeLse), read(device, lse), 0f);
    }

    private static HostTensor page(Device device, Tensor rows, AttentionShape shape, boolean byHead) {
        var page = byHead ? device.tensor(shape.kvHeads() * 64, shape.headDim())
                : device.tensor(64, rows.columns());
        device.fill(page, Float.NaN);
        int dim = page.columns();
        if (byHead) for (int head = 0; head < shape.kvHeads(); head++)
            device.copy(page.rows(64 * head, rows.rows()), rows.columns(head * dim, dim));
        else device.copy(page.rows(0, rows.rows()), rows);
        return HostTensor.of(page);
    }

    @ParameterizedTest @MethodSource("paths") void backwardAgreesWithFiniteDifferences(String path) {
        try (var on = TestDevices.open(path, 2)) {
            slopes(on);
        }
    }

    private void slopes(Device device) {
        for (var shape : SHAPES.subList(0, 3)) {
            for (int[] lengths : new int[][] {{1}, {9, 3}, {70}}) {
                var c = Case.of(shape, lengths);
                float[] dout = random(4, c.q.length);
                float[][] gradients = backward(device, c, dout);
                float[][] parameters = {c.q, c.k, c.v};
                for (int p = 0; p < 3; p++) {
                    for (int i = 0; i < parameters[p].length; i += 1 + parameters[p].length / 17) {
                        float was = parameters[p][i];
                        parameters[p][i] = was + 0.01f;
                        double step = parameters[p][i];
                        double high = c.loss(dout);
                        parameters[p][i] = was - 0.01f;
                        step -= parameters[p][i];
                        double slope = (high - c.loss(dout)) / step;
                        parameters[p][i] = was;
                        // the slope itself is off by step²/6 of a third derivative, step being 0.01
                        assertClose(new double[] {slope}, new float[] {gradients[p][i]}, 1e-4, 1e-4,
                                "qkv".charAt(p) + "[" + i + "] of " + shape);
                    }
                }
            }
        }
    }

    @ParameterizedTest @MethodSource("paths")
    void backwardGivesASequenceTheSameBitsWhateverSharesTheCallOnAnyThreads(String path) {
        try (var on = TestDevices.open(path, 2)) {
            backwardGivesASequenceTheSameBits(on, path);
        }
    }

    private static void backwardGivesASequenceTheSameBits(Device device, String path) {
        var shape = SHAPES.get(3);
        var together = Case.of(shape, 100, 129);
        float[] dout = random(4, together.q.length);
        float[][] expected = backward(device, together, dout);
        int width = shape.heads() * shape.headDim();
        int kv = shape.kvHeads() * shape.headDim();
        var alone = new Case(shape, new int[] {129}, Arrays.copyOfRange(together.q, 100 * width, 229 * width),
                Arrays.copyOfRange(together.k, 100 * kv, 229 * kv),
                Arrays.copyOfRange(together.v, 100 * kv, 229 * kv));
        try (var single = TestDevices.open(path, 1)) {
            float[][] got = backward(single, alone, Arrays.copyOfRange(dout, 100 * width, 229 * width));
            for (int p = 0; p < 3; p++) {
                int n = p == 0 ? width : kv;
                assertArrayEquals(Arrays.copyOfRange(expected[p], 100 * n, 229 * n), got[p], 0f);
            }
        }
    }

    /// Long enough that tasks process several tiles of queries together, but not all of them.
    @ParameterizedTest @MethodSource("paths") void tilesOfOneTaskDoNotChangeBits(String path) {
        try (var on = TestDevices.open(path, 2); var plain = TestDevices.open("plain", 2)) {
            tilesOfOneTaskDoNotChangeBits(on, plain, path);
        }
    }

    private static void tilesOfOneTaskDoNotChangeBits(Device device, Device plain, String path) {
        var of = Tolerance.of(path);
        for (int window : new int[] {0, 100}) {
            var shape = new AttentionShape(4, 2, 16, 0.25f, window);
            var c = Case.of(shape, 700, 65);
            float[] dout = random(4, c.q.length);
            float[][] expected = backward(plain, c, dout);
            float[][] bits = backward(device, c, dout);
            for (int threads : new int[] {1, 5})
                try (var other = TestDevices.open(path, threads)) {
                    float[][] got = backward(other, c, dout);
                    for (int p = 0; p < 3; p++) assertArrayEquals(bits[p], got[p], 0f);
                    var out = tensor(other, c.rows(), 64, 0, null);
                    var lse = tensor(other, c.rows(), 4, 0, null);
                    Direct.attention(other, out, lse, tensor(other, c.rows(), 64, 0, c.q),
                            c.spans(tensor(other, c.rows(), 32, 0, c.k), tensor(other, c.rows(), 32, 0, c.v)),
                            shape);
                    double allowed = tolerance(of, shape, c.lengths);
                    assertClose(c.expected()[0], read(other, out), allowed, Tolerance.ROUNDING,
                            "out, " + threads + " threads");
                    assertClose(c.expected()[1], read(other, lse), allowed, Tolerance.ROUNDING,
                            "lse, " + threads + " threads");
                }
            double gradient = of.attentionGradient(16, 0.25, 700, 2);
            for (int p = 0; p < 3; p++)
                assertClose(Naive.doubles(expected[p]), bits[p], gradient, Tolerance.ROUNDING, ""
                + "qkv".charAt(p));
        }
    }

    private static float[][] backward(Device device, Case c, float[] dout) {
        var shape = c.shape;
        int width = shape.heads() * shape.headDim();
        int kv = shape.kvHeads() * shape.headDim();
        var q = tensor(device, c.rows(), width, 2, c.q);
        var spans = c.spans(tensor(device, c.rows(), kv, 0, c.k), tensor(device, c.rows(), kv, 4, c.v));
        var out = tensor(device, c.rows(), width, 1, null);
        var lse = tensor(device, c.rows(), shape.heads(), 0, null);
        Direct.attention(device, out, lse, q, spans, shape);
        var dq = tensor(device, c.rows(), width, 0, random(7, c.rows() * width));
        var dk = tensor(device, c.rows(), kv, 3, random(8, c.rows() * kv));
        var dv = tensor(device, c.rows(), kv, 0, random(9, c.rows() * kv));
        Direct.attentionBackward(device, dq, dk, dv, tensor(device, c.rows(), width, 0, dout), out, lse, q,
                spans, shape);
        return new float[][] {read(device, dq), read(device, dk), read(device, dv)};
    }
}
