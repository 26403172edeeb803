package bios.bench;

import bios.protocol.run.LossFunction;
import bios.worker.device.AttentionShape;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.Device.AdamStep;
import bios.worker.device.Draw;
import bios.worker.device.FactorTable;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.FrozenMatrix.WeightType;
import bios.worker.device.HeadInputs;
import bios.worker.device.HostArray;
import bios.worker.device.KeyValues;
import bios.worker.device.LossTerms;
import bios.worker.device.PagePool;
import bios.worker.device.Readback;
import bios.worker.device.Sequence;
import bios.worker.device.Sequences;
import bios.worker.device.Slot;
import bios.worker.device.Slots;
import bios.worker.device.Tensor;
import bios.worker.kernel.HalfFloats;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.stream.IntStream;

/// Every verb of a device on random operands of awkward shapes. The same case on two devices has the same
/// operands, so that their results can be compared.
final class GpuVerbs {
    static final int SITE = 0;
    /// Rows of two packed sequences, one of them longer than a block of attention.
    private static final int[] LENGTHS = {101, 37};
    private static final int ROWS = LENGTHS[0] + LENGTHS[1];

    private GpuVerbs() {}

    /// A verb with its operands; returns the results, as floats.
    interface Case {
        List<float[]> run(Operand on);
    }

    /// All cases by name.
    static Map<String, Case> all() {
        Map<String, Case> all = new LinkedHashMap<>();
        for (DType type : new DType[] {DType.F32, DType.BF16}) {
            layers(all, type);
            for (WeightType weight : new WeightType[] {WeightType.BF16, WeightType.F32})
                all.put("project, projectBack " + type + " x " + weight, on -> products(on, type, weight));
            for (int headDim : new int[] {64, 128, 80}) {
                all.put("attention, attentionBackward " + type + " " + headDim,
                        on -> packed(on, type, new AttentionShape(6, 2, headDim, 0.125f, 0)));
                all.put("append, attention in pages " + type + " " + headDim,
                        on -> paged(on, type, new AttentionShape(6, 2, headDim, 0.125f, 0)));
                all.put("prepareHeads " + type + " " + headDim,
                        on -> prepared(on, type, headDim, true, true, false));
            }
            all.put("attention, attentionBackward in a window " + type,
                    on -> packed(on, type, new AttentionShape(4, 4, 64, 0.125f, 20)));
        }
        loss(all);
        all.put("sample, top", GpuVerbs::drawn);
        all.put("add, sumOfSquares, adamW", GpuVerbs::optimizer);
        return all;
    }

    private static void layers(Map<String, Case> all, DType type) {
        int n = 136;
        all.put("fill, copy " + type, on -> {
            Tensor filled = on.empty(type, 5, n);
            on.device.fill(filled, 0.3f);
            Tensor copied = on.empty(type == DType.F32 ? DType.BF16 : DType.F32, 5, n);
            on.device.copy(copied, on.random(type, 5, n));
            return on.read(filled, copied);
        });
        all.put("embed, gather " + type, on -> {
            Tensor embedded = on.empty(type, 3, n);
            on.device.embed(embedded, on.ints(7, 0, 29), on.device.table(on.frozen(WeightType.BF16, 30, n)));
            Tensor gathered = on.empty(type, 4, n);
            on.device.gather(gathered, embedded, on.ints(2, 2, 0, 1));
            return on.read(embedded, gathered);
        });
        all.put("rmsNorm, rmsNormBackwardAdd " + type, on -> {
            Tensor x = on.random(DType.F32, ROWS, n);
            Tensor y = on.empty(type, ROWS, n);
            Tensor inverse = on.empty(DType.F32, ROWS, 1);
            Tensor weight = on.random(DType.F32, 1, n);
            on.device.rmsNorm(y, inverse, x, weight, 1e-5f);
            Tensor dx = on.random(DType.F32, ROWS, n);
            on.device.rmsNormBackwardAdd(dx, on.random(type, ROWS, n), x, inverse, weight);
            return on.read(y, inverse, dx);
        });
        all.put("rope, ropeBackward " + type, on -> {
            int[] positions = IntStream.range(0, ROWS).map(i -> i * 7 % 200).toArray();
            Tensor cos = on.random(DType.F32, 200, 32);
            Tensor sin = on.random(DType.F32, 200, 32);
            Tensor x = on.random(type, ROWS, 3 * 64);
            Tensor dx = on.random(type, ROWS, 3 * 64);
            on.device.rope(x, on.ints(positions), 64, cos, sin);
            on.device.ropeBackward(dx, on.ints(positions), 64, cos, sin);
            return on.read(x, dx);
        });
        all.put("swiglu, swigluBackward " + type, on -> {
            Tensor y = on.empty(type, ROWS, n);
            Tensor gate = on.random(type, ROWS, n);
            Tensor up = on.random(type, ROWS, n);
            on.device.swiglu(y, gate, up);
            Tensor dgate = on.empty(type, ROWS, n);
            Tensor dup = on.empty(type, ROWS, n);
            on.device.swigluBackward(dgate, dup, on.random(type, ROWS, n), gate, up);
            return on.read(y, dgate, dup);
        });
    }

    private static List<float[]> products(Operand on, DType type, WeightType weight) {
        int in = 136;
        int out = 208;
        List<Factors> gradients = new ArrayList<>();
        List<Slot> given = new ArrayList<>();
        int[][] rows = {{0, 60, 8}, {60, 41, 20}, {110, 28, 3}};
        for (int[] slot : rows) {
            Factors weights = Factors.random(on, in, slot[2], out);
            Factors gradient = Factors.random(on, in, slot[2], out);
            gradients.add(gradient);
            given.add(new Slot(slot[0], slot[1], 0.5f, weights, Optional.of(gradient)));
        }
        Slots slots = on.device.slots(on.scope, given);
        Tensor x = on.random(type, ROWS, in);
        var w = on.device.weight(on.frozen(weight, out, in));
        Tensor low = on.empty(DType.F32, ROWS, slots.rank(SITE));
        on.device.fill(low, 0);
        on.device.lowRank(List.of(low), x, slots, List.of(SITE));
        Tensor y = on.empty(type, ROWS, out);
        on.device.project(y, x, w, Optional.of(on.random(DType.F32, 1, out)),
                Optional.of(on.random(type, ROWS, out)), slots, SITE, Optional.of(low));
        Tensor dx = on.random(type, ROWS, in);
        on.device.projectBack(Optional.of(dx), true, on.random(type, ROWS, out), x, w, slots, SITE,
                Optional.of(low));
        List<float[]> all = new ArrayList<>(on.read(y, dx));
        for (Factors gradient : gradients)
            all.addAll(on.read(gradient.factor.a(), gradient.factor.b()));
        return all;
    }

    private static Sequences sequences(Operand on, boolean pages) {
        List<Sequence> all = new ArrayList<>();
        int row = 0;
        int page = 0;
        for (int length : LENGTHS) {
            int[] numbers = new int[pages ? Math.ceilDiv(length, Device.BLOCK) : 0];
            for (int i = 0; i < numbers.length; i++) numbers[i] = 2 * page++ + 1;
            all.add(new Sequence(row, length, 0, numbers));
            row += length;
        }
        return on.device.sequences(on.scope, all);
    }

    private static List<float[]> packed(Operand on, DType type, AttentionShape shape) {
        int queries = shape.heads() * shape.headDim();
        int keys = shape.kvHeads() * shape.headDim();
        Tensor q = on.random(type, ROWS, queries);
        var source = new KeyValues.Packed(on.random(type, ROWS, keys), on.random(type, ROWS, keys));
        Tensor out = on.empty(type, ROWS, queries);
        Tensor lse = on.empty(DType.F32, ROWS, shape.heads());
        Sequences sequences = sequences(on, false);
        on.device.attention(out, lse, q, source, sequences, shape);
        Tensor dq = on.empty(type, ROWS, queries);
        Tensor dk = on.empty(type, ROWS, keys);
        Tensor dv = on.empty(type, ROWS, keys);
        on.device.attentionBackward(dq, dk, dv, on.random(type, ROWS, queries), out, lse, q, source,
                sequences, shape);
        return on.read(out, lse, dq, dk, dv);
    }

    private static List<float[]> paged(Operand on, DType type, AttentionShape shape) {
        Tensor q = on.random(type, ROWS, shape.heads() * shape.headDim());
        int keys = shape.kvHeads() * shape.headDim();
        try (PagePool pool = on.device.pagePool(new PagePool.Format(2, shape.kvHeads(), shape.headDim(),
                type), 16)) {
            pool.growTo(8);
            Sequences sequences = sequences(on, true);
            on.device.append(pool, 1, on.random(type, ROWS, keys), on.random(type, ROWS, keys), sequences);
            Tensor out = on.empty(type, ROWS, shape.heads() * shape.headDim());
            Tensor lse = on.empty(DType.F32, ROWS, shape.heads());
            on.device.attention(out, lse, q, new KeyValues.Paged(pool, 1), sequences, shape);
            return on.read(out, lse);
        }
    }

    /// Heads that are prepared for attention.
    ///
    /// @param norms whether heads have norms
    /// @param paged whether keys and values are appended to pages and read from them
    /// @param singly whether the single verbs prepare them
    static List<float[]> prepared(Operand on, DType type, int headDim, boolean norms, boolean paged,
            boolean singly) {
        var shape = new AttentionShape(6, 2, headDim, 0.125f, 0);
        try (PagePool pool = on.device.pagePool(new PagePool.Format(2, shape.kvHeads(), headDim, type), 16)) {
            pool.growTo(8);
            Sequences sequences = sequences(on, true);
            var queries = part(on, type, shape.heads(), headDim, norms);
            var keys = part(on, type, shape.kvHeads(), headDim, norms);
            var positions = on.ints(IntStream.range(0, ROWS).map(i -> i * 7 % 200).toArray());
            var rotation = new HeadInputs.Rotation(positions, on.random(DType.F32, 200, headDim / 2),
                    on.random(DType.F32, 200, headDim / 2));
            Optional<HeadInputs.Pages> pages = paged ? Optional.of(new HeadInputs.Pages(pool, 1,
                    on.random(type, ROWS, keys.to().columns()), sequences)) : Optional.empty();
            var inputs = new HeadInputs(queries, keys, headDim, rotation, pages);
            if (singly) inputs.prepareSingly(on.device);
            else on.device.prepareHeads(inputs);
            List<Tensor> results = new ArrayList<>(List.of(queries.to(), keys.to()));
            inputs.parts().forEach(part -> part.norm().ifPresent(norm -> results.add(norm.inverse())));
            if (paged) {
                Tensor out = on.empty(type, ROWS, queries.to().columns());
                on.device.attention(out, on.empty(DType.F32, ROWS, shape.heads()), queries.to(),
                        new KeyValues.Paged(pool, 1), sequences, shape);
                results.add(out);
            }
            return on.read(results.toArray(Tensor[]::new));
        }
    }

    private static HeadInputs.Part part(Operand on, DType type, int heads, int headDim, boolean norms) {
        if (!norms) {
            Tensor raw = on.random(type, ROWS, heads * headDim);
            return new HeadInputs.Part(raw, raw, Optional.empty());
        }
        return new HeadInputs.Part(on.empty(type, ROWS, heads * headDim), on.random(type, ROWS, heads
                * headDim), Optional.of(new HeadInputs.Norm(on.random(DType.F32, 1, headDim),
                        on.empty(DType.F32, ROWS * heads, 1), 1e-5f)));
    }

    private static void loss(Map<String, Case> all) {
        int vocabulary = 1003;
        all.put("logSoftmaxAt, logSoftmaxBackward", on -> {
            Tensor logits = on.random(DType.F32, 33, vocabulary);
            Tensor logprobs = on.empty(DType.F32, 33, 1);
            Tensor lse = on.empty(DType.F32, 33, 1);
            Tensor targets = on.ints(IntStream.range(0, 33).map(i -> i * 31 % vocabulary).toArray());
            on.device.logSoftmaxAt(logprobs, lse, logits, targets);
            on.device.logSoftmaxBackward(logits, lse, targets, on.random(DType.F32, 33, 1));
            return on.read(logprobs, lse, logits);
        });
        for (LossFunction function : LossFunction.values())
            all.put("lossGradient " + function, on -> {
                Tensor to = on.empty(DType.F32, 65, 1);
                Optional<Tensor> sampled = function == LossFunction.CROSS_ENTROPY ? Optional.empty()
                        : Optional.of(on.random(DType.F32, 65, 1));
                on.device.lossGradient(to, on.random(DType.F32, 65, 1), new LossTerms(function,
                        on.random(DType.F32, 65, 1), sampled, Optional.empty(), 0.8, 1.2, 0.05));
                return on.read(to);
            });
        all.put("logSoftmaxAt, logSoftmaxBackward, 9 targets", on -> {
            Tensor logits = on.random(DType.F32, 33, vocabulary);
            Tensor logprobs = on.empty(DType.F32, 33, 9);
            Tensor lse = on.empty(DType.F32, 33, 1);
            Tensor targets = on.matrix(33, 9, IntStream.range(0, 33 * 9).map(i -> i * 31 % 500).toArray());
            on.device.logSoftmaxAt(logprobs, lse, logits, targets);
            on.device.logSoftmaxBackward(logits, lse, targets, on.random(DType.F32, 33, 9));
            return on.read(logprobs, lse, logits);
        });
        all.put("lossGradient PPO, own bounds", on -> {
            Tensor to = on.empty(DType.F32, 65, 1);
            var bounds = new LossTerms.Bounds(on.between(0.5f, 0.9f, 65), on.between(1.1f, 1.5f, 65));
            on.device.lossGradient(to, on.random(DType.F32, 65, 1), new LossTerms(LossFunction.PPO,
                    on.random(DType.F32, 65, 1), Optional.of(on.random(DType.F32, 65, 1)),
                    Optional.of(bounds), 0.8, 1.2, 0));
            return on.read(to);
        });
    }

    private static List<float[]> drawn(Operand on) {
        Tensor logits = on.random(DType.F32, 6, 1003);
        List<Draw> draws = new ArrayList<>();
        for (int i = 0; i < 24; i++)
            draws.add(new Draw(i % 6, i % 5 * 0.4, i % 3 == 0 ? -1 : 5 * i, i % 4 == 0 ? 1 : 0.7, 11, i, 3));
        Tensor tokens = on.empty(DType.I32, 24, 1);
        Tensor logprobs = on.empty(DType.F32, 24, 1);
        Tensor own = on.empty(DType.F32, 24, 1);
        on.device.sample(tokens, logprobs, own, logits, on.device.draws(on.scope, draws));
        Tensor lse = on.empty(DType.F32, 6, 1);
        on.device.logSoftmaxAt(on.empty(DType.F32, 6, 1), lse, logits, on.ints(1, 2, 3, 4, 5, 6));
        Tensor best = on.empty(DType.I32, 6, 9);
        Tensor probabilities = on.empty(DType.F32, 6, 9);
        on.device.top(best, probabilities, logits, lse);
        List<float[]> all = new ArrayList<>(on.integers(tokens, best));
        all.addAll(on.read(logprobs, own, probabilities));
        return all;
    }

    private static List<float[]> optimizer(Operand on) {
        List<Tensor> w = on.slabs();
        List<Tensor> m = on.slabs();
        List<Tensor> v = on.slabs();
        List<Tensor> g = on.slabs();
        for (Tensor moment : v) on.device.fill(moment, 0.01f);
        on.device.add(g, on.slabs());
        Tensor squares = on.empty(DType.F64, 1, 1);
        Tensor notFinite = on.empty(DType.I32, 1, 1);
        on.device.sumOfSquares(squares, g);
        on.device.adamW(notFinite, w, m, v, g, squares, new AdamStep(1e-3, 0.9, 0.95, 1e-8, 0.01, 3, 1.0));
        List<float[]> all = new ArrayList<>(on.integers(notFinite));
        all.add(new float[] {(float) on.device.readback(List.of(squares)).doubles(0)[0]});
        for (List<Tensor> tensors : List.of(w, m, v, g)) all.addAll(on.read(tensors.toArray(Tensor[]::new)));
        return all;
    }

    /// Random factors at [#SITE].
    record Factors(Factor factor) implements FactorTable {
        static Factors random(Operand on, int in, int rank, int out) {
            return new Factors(new Factor(on.random(DType.F32, in, rank), on.random(DType.F32, rank, out)));
        }

        @Override public int sites() {
            return 1;
        }

        @Override public Optional<Factor> at(int site) {
            return site == SITE ? Optional.of(factor) : Optional.empty();
        }
    }

    /// Makes the operands of a case on a device: a sequence of random numbers that the case's order fixes.
    static final class Operand implements AutoCloseable {
        final Device device;
        final Device.Scope scope;
        private final Arena arena = Arena.ofShared();
        private final SplittableRandom chance = new SplittableRandom(5);

        Operand(Device device) {
            this.device = device;
            scope = device.scope();
        }

        private float[] numbers(int n) {
            float[] x = new float[n];
            for (int i = 0; i < n; i++) x[i] = (float) chance.nextDouble(-1, 1);
            return x;
        }

        Tensor empty(DType type, int rows, int columns) {
            return device.scratch(scope, type, rows, columns);
        }

        Tensor random(DType type, int rows, int columns) {
            Tensor made = empty(type, rows, columns);
            device.write(made, numbers(rows * columns), 0);
            return made;
        }

        /// A column of random numbers of a range.
        Tensor between(float least, float most, int rows) {
            float[] values = numbers(rows);
            for (int i = 0; i < rows; i++) values[i] = least + (most - least) * (Math.abs(values[i]) % 1);
            return device.upload(scope, List.of(new HostArray.Floats(rows, 1, values))).getFirst();
        }

        List<Tensor> slabs() {
            return List.of(random(DType.F32, 1, 5000), random(DType.F32, 1, 77), random(DType.F32, 1, 1024));
        }

        Tensor ints(int... values) {
            return device.upload(scope, List.of(HostArray.column(values))).getFirst();
        }

        Tensor matrix(int rows, int columns, int... values) {
            return device.upload(scope, List.of(new HostArray.Ints(rows, columns, values))).getFirst();
        }

        FrozenMatrix frozen(WeightType type, int rows, int columns) {
            var memory = arena.allocate((long) rows * columns * type.bytes(), 64);
            float[] values = numbers(rows * columns);
            for (int i = 0; i < values.length; i++) {
                if (type == WeightType.F32) memory.setAtIndex(ValueLayout.JAVA_FLOAT, i, values[i]);
                else memory.setAtIndex(ValueLayout.JAVA_SHORT, i, HalfFloats.toBf16(values[i]));
            }
            return new FrozenMatrix(memory, type, rows, columns);
        }

        List<float[]> read(Tensor... tensors) {
            Readback results = device.readback(List.of(tensors));
            return IntStream.range(0, tensors.length).mapToObj(results::floats).toList();
        }

        List<float[]> integers(Tensor... tensors) {
            Readback results = device.readback(List.of(tensors));
            List<float[]> all = new ArrayList<>();
            for (int i = 0; i < tensors.length; i++) {
                int[] values = results.ints(i);
                float[] floats = new float[values.length];
                for (int j = 0; j < values.length; j++) floats[j] = values[j];
                all.add(floats);
            }
            return all;
        }

        @Override public void close() {
            scope.close();
            arena.close();
        }
    }
}
