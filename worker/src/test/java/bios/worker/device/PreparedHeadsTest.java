package bios.worker.device;

import static bios.worker.device.VerbFixture.ints;
import static bios.worker.device.VerbFixture.random;
import static bios.worker.device.VerbFixture.read;
import static bios.worker.device.VerbFixture.tensor;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// Preparing the heads for attention gives the bits that its single verbs give one after the other.
final class PreparedHeadsTest extends Conformance {
    private static final int HEADS = 6, KEY_HEADS = 2, POSITIONS = 90, ROWS = 7;
    private static final float EPS = 1e-5f;
    /// Rows of two sequences, of which one goes on in its second page.
    private static final List<Sequence> SEQUENCES = List.of(new Sequence(0, 4, 62, new int[] {2, 0}),
            new Sequence(4, 3, 5, new int[] {1}));
    private static final int[] AT = {62, 63, 64, 65, 5, 6, 7};

    private final Device on = open(2);
    private final Device.Scope scope = on.scope();

    @AfterEach void close() {
        scope.close();
        on.close();
    }

    /// Heads of a length.
    ///
    /// @param gap between rows, where there is no norm
    private record Case(int headDim, DType dtype, boolean norms, int gap) {
        HeadInputs inputs(Device on, Device.Scope scope, Optional<PagePool> pool) {
            var rotation = new HeadInputs.Rotation(ints(on, scope, AT), tensor(on, POSITIONS, headDim / 2,
                    random(1, POSITIONS * headDim / 2)), tensor(on, POSITIONS, headDim / 2,
                            random(2, POSITIONS * headDim / 2)));
            var values = tensor(on, dtype, ROWS, KEY_HEADS * headDim, gap, random(3, ROWS * KEY_HEADS
                    * headDim));
            return new HeadInputs(part(on, HEADS, 4), part(on, KEY_HEADS, 7), headDim, rotation,
                    pool.map(p -> new HeadInputs.Pages(p, 1, values, on.sequences(scope, SEQUENCES))));
        }

        private HeadInputs.Part part(Device on, int heads, long seed) {
            int width = heads * headDim;
            var raw = tensor(on, dtype, ROWS, width, norms ? 0 : gap, random(seed, ROWS * width));
            if (!norms) return new HeadInputs.Part(raw, raw, Optional.empty());
            return new HeadInputs.Part(on.tensor(dtype, ROWS, width), raw, Optional.of(new HeadInputs.Norm(
                    tensor(on, 1, headDim, random(seed + 1, headDim)), on.tensor(DType.F32, ROWS * heads, 1),
                    EPS)));
        }
    }

    @Test void headsHaveTheBitsOfTheSingleVerbs() {
        for (int headDim : new int[] {16, 64, 96, 128, 256, 6, 24})
            for (var dtype : new DType[] {DType.BF16, DType.F32})
                for (boolean norms : new boolean[] {true, false})
                    for (int gap : new int[] {0, 3})
                        for (var pages : new DType[] {null, DType.BF16, DType.F32})
                            compare(new Case(headDim, dtype, norms, gap), Optional.ofNullable(pages));
    }

    private void compare(Case c, Optional<DType> pages) {
        List<float[]> results = new ArrayList<>();
        for (boolean single : new boolean[] {true, false}) {
            var pool = pages.map(dtype -> pool(c, dtype));
            var inputs = c.inputs(on, scope, pool);
            if (single) inputs.prepareSingly(on);
            else on.prepareHeads(inputs);
            for (var part : inputs.parts()) {
                results.add(read(on, part.to()));
                part.norm().ifPresent(norm -> results.add(read(on, norm.inverse())));
            }
            pool.ifPresent(from -> {
                results.add(attended(c, from));
                from.close();
            });
        }
        int half = results.size() / 2;
        for (int i = 0; i < half; i++)
            assertArrayEquals(results.get(i), results.get(half + i), 0f, c + " " + pages + " " + i);
    }

    /// Pages whose positions before those of the pass are filled.
    private PagePool pool(Case c, DType dtype) {
        var pool = on.pagePool(new PagePool.Format(2, KEY_HEADS, c.headDim, dtype), 3);
        pool.growTo(3);
        int width = KEY_HEADS * c.headDim;
        for (var s : SEQUENCES) {
            var before = on.sequences(scope, List.of(new Sequence(0, s.position(), 0, s.pages())));
            on.append(pool, 1, tensor(on, s.position(), width, random(10, s.position() * width)),
                    tensor(on, s.position(), width, random(11, s.position() * width)), before);
        }
        return pool;
    }

    /// What queries read from the pages.
    private float[] attended(Case c, PagePool pool) {
        var shape = new AttentionShape(HEADS, KEY_HEADS, c.headDim, 0.3f, 0);
        var q = tensor(on, ROWS, HEADS * c.headDim, random(12, ROWS * HEADS * c.headDim));
        var out = on.tensor(DType.F32, ROWS, q.columns());
        on.attention(out, on.tensor(DType.F32, ROWS, HEADS), q, new KeyValues.Paged(pool, 1),
                on.sequences(scope, SEQUENCES), shape);
        return read(on, out);
    }

    @Test void operandsOfOtherShapesAreRefused() {
        for (int headDim : new int[] {16, 6}) {
            var good = new Case(headDim, DType.F32, true, 0).inputs(on, scope, Optional.empty());
            var by = good.rotation();
            var narrow = new HeadInputs.Rotation(by.positions(), by.cos().columns(0, 1), by.sin());
            assertThrows(IllegalStateException.class, () -> new HeadInputs(good.queries(), good.keys(),
                    headDim, narrow, Optional.empty()));
            var fewer = new HeadInputs.Part(good.keys().to().columns(0, headDim), good.keys().raw(),
                    good.keys().norm());
            assertThrows(IllegalStateException.class, () -> new HeadInputs(good.queries(), fewer, headDim,
                    by, Optional.empty()));
            var other = new HeadInputs.Rotation(ints(on, scope, 1, 2), by.cos(), by.sin());
            assertThrows(IllegalStateException.class, () -> new HeadInputs(good.queries(), good.keys(),
                    headDim, other, Optional.empty()));
        }
    }
}
