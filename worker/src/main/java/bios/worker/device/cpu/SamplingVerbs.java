package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.Draw;
import bios.worker.kernel.Ranking;
import bios.worker.kernel.Sampling;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/// Draws and rankings of tokens. A draw of the largest logit, or from unscaled logits without top-k and
/// top-p, reads the maxima and sums of blocks and then one block. Other draws read a whole row, of which one
/// copy is divided by the temperature for all draws that share both.
final class SamplingVerbs {
    private final Pool pool;
    private final RowVerbs rows;

    SamplingVerbs(Pool pool, RowVerbs rows) {
        this.pool = pool;
        this.rows = rows;
    }

    /// Token, log-probability as drawn and under the model of each draw.
    record Results(HostTensor tokens, HostTensor logprobs, HostTensor own) {}

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

    void sample(Results results, HostTensor logits, HostDraws draws, Fp32Operands operands) {
        int n = draws.count();
        require(results.tokens.rows() == n && results.logprobs.rows() == n && results.own.rows() == n,
                "%d results of %d draws", results.tokens.rows(), n);
        var maxima = operands.scratch(logits.rows(), Math.ceilDiv(logits.columns(), Sampling.BLOCK));
        var sums = operands.scratch(maxima.rows(), maxima.columns());
        var lse = operands.scratch(logits.rows(), 1);
        List<Source> sources = sources(logits, lse, draws, operands);
        if (draws.draws().stream().anyMatch(Sampling::simple)) rows.softmaxBlocks(maxima, sums, logits);
        int[] drawn = new int[n];
        float[] logprobs = new float[n];
        long whole = sources.stream().filter(s -> s.values != null).count();
        pool.run(n, whole * logits.columns(), (i, _) -> {
            var draw = draws.draws().get(i);
            var source = sources.get(i);
            double uniform = Sampling.uniform(draw.seed(), draw.sample(), draw.token());
            var token = Sampling.simple(draw) ? fromOneBlock(draw, uniform, source, maxima, sums)
                    : Sampling.fromScaled(source.values, draw, uniform);
            drawn[i] = token.token();
            logprobs[i] = token.logprob(logit(source.matrix, source.row, token.token()), source.lse);
        });
        for (int i = 0; i < n; i++) {
            Rows.store(results.tokens, i, new int[] {drawn[i]});
            Rows.set(results.logprobs, i, logprobs[i]);
            int row = draws.row(i);
            Rows.set(results.own, i, logit(logits, row, drawn[i]) - Rows.get(lse, row));
        }
    }

    private static float logit(HostTensor matrix, int row, int token) {
        float[] one = new float[1];
        Rows.load(one, 0, matrix, row, token, 1);
        return one[0];
    }

    private static Sampling.Drawn fromOneBlock(Draw draw, double uniform, Source source, HostTensor maxima,
            HostTensor sums) {
        float[] most = row(maxima, source.row);
        var place = Sampling.block(most, row(sums, source.row), draw, uniform);
        int first = place.block() * Sampling.BLOCK;
        float[] block = new float[Math.min(Sampling.BLOCK, source.matrix.columns() - first)];
        Rows.load(block, 0, source.matrix, source.row, first, block.length);
        int at = Sampling.within(block, most[place.block()], draw, place.rest());
        return new Sampling.Drawn(first + at, Double.NaN);
    }

    private static float[] row(HostTensor matrix, int row) {
        float[] values = new float[matrix.columns()];
        Rows.load(values, matrix, row);
        return values;
    }

    /// The source of each draw, scaled, with its lse.
    ///
    /// @param lse of the rows of logits, to be computed
    private List<Source> sources(HostTensor logits, HostTensor lse, HostDraws draws,
            Fp32Operands operands) {
        Map<Key, Source> sources = new LinkedHashMap<>();
        var keys = new ArrayList<Key>();
        for (int i = 0; i < draws.count(); i++) {
            require(draws.row(i) >= 0 && draws.row(i) < logits.rows(), "a draw from row %d of %d",
                    draws.row(i), logits.rows());
            keys.add(Key.of(draws.draws().get(i), draws.row(i)));
        }
        var scaled = keys.stream().filter(Key::scaled).distinct().toList();
        var copies = scaled.isEmpty() ? logits : operands.scratch(scaled.size(), logits.columns());
        var copiesLse = scaled.isEmpty() ? lse : operands.scratch(scaled.size(), 1);
        for (int i = 0; i < scaled.size(); i++)
            sources.put(scaled.get(i), new Source(scaled.get(i), copies, i));
        for (var key : keys) sources.computeIfAbsent(key, k -> new Source(k, logits, k.row));
        for (int i = 0; i < keys.size(); i++)
            if (!Sampling.simple(draws.draws().get(i)))
                sources.get(keys.get(i)).values = new float[0];
        scale(logits, List.copyOf(sources.values()));
        logSumExp(lse, logits, operands);
        if (!scaled.isEmpty()) logSumExp(copiesLse, copies, operands);
        for (var source : sources.values())
            source.lse = Rows.get(source.key.scaled() ? copiesLse : lse, source.row);
        return keys.stream().map(sources::get).toList();
    }

    /// Reads the rows that are needed as a whole, and writes the scaled ones to their copies.
    private void scale(HostTensor logits, List<Source> sources) {
        var whole = sources.stream().filter(s -> s.values != null).toList();
        if (whole.isEmpty()) return;
        pool.run(whole.size(), (long) whole.size() * logits.columns(), (i, _) -> {
            var source = whole.get(i);
            source.values = row(logits, source.key.row);
            Sampling.scale(source.values, source.key.temperature);
            if (source.key.scaled()) Rows.store(source.matrix, source.row, source.values);
        });
    }

    private void logSumExp(HostTensor lse, HostTensor matrix, Fp32Operands operands) {
        rows.logSoftmaxAt(operands.scratch(matrix.rows(), 1), lse, matrix, new int[matrix.rows()]);
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
