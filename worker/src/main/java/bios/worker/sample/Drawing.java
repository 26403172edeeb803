package bios.worker.sample;

import bios.protocol.sampling.SampleResult.TokenLogprob;
import bios.worker.adapter.Adapter;
import bios.worker.device.Device;
import bios.worker.device.Tensor;
import bios.worker.model.BaseModel;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.function.IntConsumer;
import java.util.stream.IntStream;

/// From residual rows to tokens and log-probabilities, a few rows at a time, so that
/// logits never fill the memory.
/// Log-probabilities come from the same verb as in training, [Device#logSoftmaxAt]: a log-probability is the
/// difference, in fp32, of the token's logit and the row's lse.
final class Drawing {
    /// Draws are spread over cores from this many logits on.
    private static final int PARALLEL = 1 << 18;

    private final BaseModel model;
    private final Device on;
    private final int chunk;

    Drawing(BaseModel model, int chunk) {
        this.model = model;
        this.on = model.device();
        this.chunk = chunk;
    }

    /// A row behind which tokens are drawn.
    ///
    /// @param index its row in the pass
    /// @param drawers sequences of one request
    record Row(int index, List<Sequence> drawers) {}

    /// Draws a token for every drawer of every row.
    void draw(Tensor hidden, List<Row> rows) {
        for (int from = 0; from < rows.size(); from += chunk)
            drawChunk(hidden, rows.subList(from, Math.min(rows.size(), from + chunk)));
    }

    private void drawChunk(Tensor hidden, List<Row> rows) {
        List<Request> requests = rows.stream().map(r -> r.drawers.getFirst().request).toList();
        try (Device.Scope scope = on.scope()) {
            Tensor together = model.rows(scope, hidden, rows.stream().mapToInt(Row::index).toArray());
            Tensor logits = model.logits(scope, together, requests.stream().map(r -> r.adapter).toList());
            float[][] scaled = scaled(logits, requests);
            float[] lse = lse(scope, logits);
            if (requests.stream().anyMatch(r -> r.draw.simple())) drawSimply(scope, logits, rows, lse);
            int[][] tokens = new int[rows.size()][];
            each(rows.size(), logits.columns(), i -> {
                if (scaled[i] != null) tokens[i] = rows.get(i).drawers.stream()
                        .mapToInt(s -> s.request.draw.token(scaled[i], chance(s))).toArray();
            });
            for (int i = 0; i < rows.size(); i++)
                for (int j = 0; scaled[i] != null && j < tokens[i].length; j++)
                    rows.get(i).drawers.get(j).take(tokens[i][j], scaled[i][tokens[i][j]] - lse[i]);
        }
    }

    private static double chance(Sequence s) {
        return Chance.uniform(s.request.task.seed(), s.index, s.drawn());
    }

    /// Rows whose draws need all logits, scaled, here and on the device; null for the others.
    private float[][] scaled(Tensor logits, List<Request> requests) {
        float[][] scaled = new float[requests.size()][];
        for (int i = 0; i < scaled.length; i++)
            if (!requests.get(i).draw.simple()) scaled[i] = on.read(logits.rows(i, 1));
        each(scaled.length, logits.columns(), i -> {
            if (scaled[i] != null) requests.get(i).draw.scale(scaled[i]);
        });
        for (int i = 0; i < scaled.length; i++)
            if (scaled[i] != null && !requests.get(i).draw.unscaled())
                on.write(logits.rows(i, 1), scaled[i]);
        return scaled;
    }

    /// For the rows of which a draw looks at one block of logits only.
    private void drawSimply(Device.Scope scope, Tensor logits, List<Row> rows, float[] lse) {
        int blocks = Math.ceilDiv(logits.columns(), Device.WORDS);
        Tensor maxima = on.scratch(scope, rows.size(), blocks);
        Tensor sums = on.scratch(scope, rows.size(), blocks);
        on.softmaxBlocks(maxima, sums, logits);
        for (int i = 0; i < rows.size(); i++) {
            Draw draw = rows.get(i).drawers.getFirst().request.draw;
            if (!draw.simple()) continue;
            float[] most = on.read(maxima.rows(i, 1));
            float[] sum = on.read(sums.rows(i, 1));
            for (Sequence s : rows.get(i).drawers) {
                Draw.Place place = draw.block(most, sum, chance(s));
                int first = place.block() * Device.WORDS;
                float[] own = on.read(logits.rows(i, 1).columns(first,
                        Math.min(Device.WORDS, logits.columns() - first)));
                int at = draw.within(own, most[place.block()], place.rest());
                s.take(first + at, own[at] - lse[i]);
            }
        }
    }

    private float[] lse(Device.Scope scope, Tensor logits) {
        Tensor logprobs = on.scratch(scope, logits.rows(), 1);
        Tensor lse = on.scratch(scope, logits.rows(), 1);
        on.logSoftmaxAt(logprobs, lse, logits, new int[logits.rows()]);
        return on.read(lse);
    }

    /// Scores what the rows of a sequence's pass say of its prompt, if anyone wants to know.
    ///
    /// @param rows the last rows whose keys are in the cache
    void score(Sequence sequence, Tensor rows) {
        Request request = sequence.request;
        int first = sequence.cached() - rows.rows();   // position of the first row, which scores the next one
        int end = Math.min(sequence.cached() + 1, request.prompt());
        while (request.scored() < end) {
            int from = request.scored() - 1 - first;
            int count = Math.min(chunk, end - request.scored());
            scoreChunk(request, rows.rows(from, count));
        }
    }

    private void scoreChunk(Request request, Tensor hidden) {
        int n = hidden.rows();
        int[] prompt = request.task.prompt();
        int position = request.scored();
        int k = request.task.topkPromptLogprobs();
        try (Device.Scope scope = on.scope()) {
            Tensor logits = model.logits(scope, hidden, Collections.nCopies(n, request.adapter));
            float[] lse = lse(scope, logits);
            int width = logits.columns();
            float[] read = on.read(logits);
            List<List<TokenLogprob>> best = new ArrayList<>(Collections.nCopies(n, List.of()));
            if (k > 0) each(n, width, i ->
                    best.set(i, top(Arrays.copyOfRange(read, i * width, (i + 1) * width), k, lse[i])));
            for (int i = 0; i < n; i++)
                request.score(read[i * width + prompt[position + i]] - lse[i], best.get(i));
        }
    }

    private static List<TokenLogprob> top(float[] logits, int k, float lse) {
        return Arrays.stream(Ranking.top(logits, k)).mapToObj(id -> new TokenLogprob(id, logits[id] - lse))
                .toList();
    }

    private static void each(int rows, int width, IntConsumer body) {
        IntStream all = IntStream.range(0, rows);
        ((long) rows * width >= PARALLEL ? all.parallel() : all).forEach(body);
    }
}
