package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.Draw;
import bios.worker.kernel.Ranking;
import bios.worker.kernel.Sampling;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;

/// Draws and rankings of tokens. A draw of the largest logit, or from unscaled logits without top-k and
/// top-p, reads the maxima and sums of blocks and then one block. Other draws read a whole row, which is
/// divided by the temperature once for all draws that share both.
final class SamplingVerbs {
    private final Pool pool;
    private final RowVerbs rows;

    SamplingVerbs(Pool pool, RowVerbs rows) {
        this.pool = pool;
        this.rows = rows;
    }

    /// A row of logits and a temperature; 1 for unscaled logits.
    private record Key(int row, double temperature) {
        static Key of(Draw draw, int row) {
            return new Key(row, Sampling.unscaled(draw.temperature()) ? 1 : draw.temperature());
        }

        boolean scaled() {
            return temperature != 1;
        }
    }

    /// The matrix and row that contain the logits of a key.
    private static final class Source {
        final Key key;
        final HostTensor matrix;
        final int row;
        /// The whole row; null if all its draws read one block.
        float[] values;
        float lse;

        Source(Key key, HostTensor matrix, int row) {
            this.key = key;
            this.matrix = matrix;
            this.row = row;
        }
    }

    /// @param logits may be overwritten
    void sample(HostTensor tokens, HostTensor logprobs, HostTensor logits, HostDraws draws,
            Fp32Operands operands) {
        int n = draws.count();
        require(tokens.rows() == n && logprobs.rows() == n, "%d results of %d draws", tokens.rows(), n);
        var maxima = operands.scratch(logits.rows(), Math.ceilDiv(logits.columns(), Sampling.BLOCK));
        var sums = operands.scratch(maxima.rows(), maxima.columns());
        List<Source> sources = sources(logits, draws, operands);
        if (draws.draws().stream().anyMatch(Sampling::simple)) rows.softmaxBlocks(maxima, sums, logits);
        int[] drawn = new int[n];
        float[] logit = new float[n];
        long whole = sources.stream().filter(s -> s.values != null).count();
        pool.run(n, whole * logits.columns(), (i, _) -> {
            var draw = draws.draws().get(i);
            var source = sources.get(i);
            double uniform = Sampling.uniform(draw.seed(), draw.sample(), draw.token());
            if (Sampling.simple(draw)) {
                fromOneBlock(i, drawn, logit, draw, uniform, source, maxima, sums);
            } else {
                drawn[i] = Sampling.fromScaled(source.values, draw, uniform);
                logit[i] = source.values[drawn[i]];
            }
        });
        for (int i = 0; i < n; i++) {
            Rows.store(tokens, i, new int[] {drawn[i]});
            Rows.set(logprobs, i, logit[i] - sources.get(i).lse);
        }
    }

    private static void fromOneBlock(int i, int[] drawn, float[] logit, Draw draw, double uniform,
            Source source, HostTensor maxima, HostTensor sums) {
        float[] most = row(maxima, source.row);
        var place = Sampling.block(most, row(sums, source.row), draw, uniform);
        int first = place.block() * Sampling.BLOCK;
        float[] block = new float[Math.min(Sampling.BLOCK, source.matrix.columns() - first)];
        Rows.load(block, 0, source.matrix, source.row, first, block.length);
        int at = Sampling.within(block, most[place.block()], draw, place.rest());
        drawn[i] = first + at;
        logit[i] = block[at];
    }

    private static float[] row(HostTensor matrix, int row) {
        float[] values = new float[matrix.columns()];
        Rows.load(values, matrix, row);
        return values;
    }

    /// The source of each draw, scaled, with its lse.
    private List<Source> sources(HostTensor logits, HostDraws draws, Fp32Operands operands) {
        Map<Key, Source> sources = new LinkedHashMap<>();
        var keys = new ArrayList<Key>();
        for (int i = 0; i < draws.count(); i++) {
            require(draws.row(i) >= 0 && draws.row(i) < logits.rows(), "a draw from row %d of %d",
                    draws.row(i), logits.rows());
            keys.add(Key.of(draws.draws().get(i), draws.row(i)));
        }
        Map<Integer, Long> uses = keys.stream().distinct()
                .collect(Collectors.groupingBy(Key::row, Collectors.counting()));
        // A row is scaled in place only if all its draws have the same temperature; otherwise a copy is
        // scaled.
        var apart = keys.stream().distinct().filter(k -> k.scaled() && uses.get(k.row) > 1).toList();
        var copies = apart.isEmpty() ? null : operands.scratch(apart.size(), logits.columns());
        for (int i = 0; i < apart.size(); i++) {
            Rows.copy(copies, i, logits, apart.get(i).row);
            sources.put(apart.get(i), new Source(apart.get(i), copies, i));
        }
        for (var key : keys) sources.computeIfAbsent(key, k -> new Source(k, logits, k.row));
        for (int i = 0; i < keys.size(); i++)
            if (!Sampling.simple(draws.draws().get(i)))
                sources.get(keys.get(i)).values = new float[0];
        scale(List.copyOf(sources.values()));
        logSumExp(logits, sources, operands);
        if (copies != null) logSumExp(copies, sources, operands);
        return keys.stream().map(sources::get).toList();
    }

    /// Reads the rows that are needed as a whole, and writes back the scaled ones.
    private void scale(List<Source> sources) {
        var whole = sources.stream().filter(s -> s.values != null).toList();
        if (whole.isEmpty()) return;
        pool.run(whole.size(), (long) whole.size() * whole.getFirst().matrix.columns(), (i, _) -> {
            var source = whole.get(i);
            source.values = row(source.matrix, source.row);
            Sampling.scale(source.values, source.key.temperature);
            if (source.key.scaled()) Rows.store(source.matrix, source.row, source.values);
        });
    }

    private void logSumExp(HostTensor matrix, Map<Key, Source> sources, Fp32Operands operands) {
        var lse = operands.scratch(matrix.rows(), 1);
        rows.logSoftmaxAt(operands.scratch(matrix.rows(), 1), lse, matrix, new int[matrix.rows()]);
        for (var source : sources.values())
            if (source.matrix == matrix) source.lse = Rows.get(lse, source.row);
    }

    void top(HostTensor ids, HostTensor logprobs, HostTensor logits, HostTensor lse) {
        int k = ids.columns();
        RowVerbs.sameShape(ids, logprobs);
        require(ids.rows() == logits.rows() && lse.rows() == logits.rows() && k <= logits.columns(),
                "the best %d of %d", k, logits.columns());
        pool.run(logits.rows(), logits.elements(), (i, _) -> {
            float[] values = row(logits, i);
            int[] best = new int[k];
            float[] scores = new float[k];
            int[] ranked = Ranking.top(values, k);
            for (int j = 0; j < k; j++) {
                best[j] = j < ranked.length ? ranked[j] : -1;
                scores[j] = j < ranked.length ? values[ranked[j]] - Rows.get(lse, i) : Float.NaN;
            }
            Rows.store(ids, i, best);
            Rows.store(logprobs, i, scores);
        });
    }
}
