package bios.worker.sample;

import bios.protocol.sampling.SampleResult.TokenLogprob;
import bios.worker.adapter.Adapter;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.Draw;
import bios.worker.device.Draws;
import bios.worker.device.HostArray;
import bios.worker.device.Readback;
import bios.worker.device.Slots;
import bios.worker.device.Tensor;
import bios.worker.model.BaseModel;
import bios.worker.model.CachedPass;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.IntFunction;

/// The outputs that a decode pass computes from its residual rows: sampled tokens and log-probabilities of
/// prompts.
/// Planned on the host before the pass; rows go through the head a few at a time, so that logits never fill
/// the memory. Log-probabilities come from the same verb as in training, [Device#logSoftmaxAt].
final class OutputPlan {
    private final BaseModel model;
    private final int chunk;
    private final List<DrawnRow> drawnRows = new ArrayList<>();
    private final List<ScoredRows> scoredRows = new ArrayList<>();

    private final List<TopRows> topRows;

    /// A row of the pass after which sequences of one request sample their next tokens.
    private record DrawnRow(int row, List<SampledSequence> sequences) {
        /// Most likely tokens wanted at the position.
        int top(int vocabulary) {
            return Math.min(sequences.getFirst().request.task.topkSampleLogprobs(), vocabulary);
        }
    }

    /// Adjacent drawn rows of one chunk that want equally many of the most likely tokens. All but the last
    /// are drawn from once, so that the first draws of the rows are adjacent too.
    private record TopRows(int first, int count, int k) {}

    /// Rows of the pass that score the prompt of a request.
    ///
    /// @param row the first of them
    /// @param position of the prompt that it scores
    private record ScoredRows(Request request, int row, int count, int position) {
        /// Most likely tokens wanted at each position.
        int top(int vocabulary) {
            return Math.min(request.task.topkPromptLogprobs(), vocabulary);
        }
    }

    /// @param chunk rows whose logits exist at once
    /// @param scheduled the tokens of the pass, in the order of their rows
    OutputPlan(BaseModel model, int chunk, List<ScheduledTokens> scheduled) {
        this.model = model;
        this.chunk = chunk;
        int row = 0;
        for (ScheduledTokens next : scheduled) {
            SampledSequence s = next.sequence();
            int cached = s.cached() + next.count();
            int scored = s.request.scored();
            int end = Math.min(cached + 1, s.request.promptLength());
            if (scored < end)
                scoredRows.add(new ScoredRows(s.request, row + scored - 1 - s.cached(), end - scored,
                        scored));
            row += next.count();
            if (cached == s.length()) drawnRows.add(new DrawnRow(row - 1, drawing(s)));
        }
        topRows = topRows();
    }

    private List<TopRows> topRows() {
        List<TopRows> all = new ArrayList<>();
        for (int i = 0; i < drawnRows.size(); i++) {
            int k = drawnRows.get(i).top(model.spec().vocabularySize());
            if (k == 0) continue;
            TopRows last = all.isEmpty() ? new TopRows(0, 0, 0) : all.getLast();
            boolean joins = last.k == k && last.first + last.count == i && i % chunk != 0
                    && drawnRows.get(i - 1).sequences.size() == 1;
            if (joins) all.set(all.size() - 1, new TopRows(last.first, last.count + 1, k));
            else all.add(new TopRows(i, 1, k));
        }
        return List.copyOf(all);
    }

    /// The sequences that sample after a sequence's last token: after the prompt, all sequences of the
    /// request.
    private static List<SampledSequence> drawing(SampledSequence first) {
        if (first.index != 0 || first.sampled() != 0) return List.of(first);
        return first.request.sequences;
    }

    /// Numbers of the rows that are drawn from and targets of the rows that are scored, where there are any;
    /// to be uploaded for [#prepare].
    List<HostArray> arrays() {
        List<HostArray> arrays = new ArrayList<>();
        if (!drawnRows.isEmpty())
            arrays.add(HostArray.column(drawnRows.stream().mapToInt(DrawnRow::row).toArray()));
        int[] targets = new int[scoredRows.stream().mapToInt(ScoredRows::count).sum()];
        int at = 0;
        for (ScoredRows s : scoredRows) {
            System.arraycopy(s.request.task.prompt(), s.position, targets, at, s.count);
            at += s.count;
        }
        if (at > 0) arrays.add(HostArray.column(targets));
        return arrays;
    }

    /// The results of a pass on the device: of the draws tokens and both log-probabilities, of the scored
    /// rows log-probabilities, and for each [ScoredRows] that wants them, then for each [TopRows], ids and
    /// log-probabilities of the most likely tokens.
    private record Results(Optional<Tensor> tokens, Optional<Tensor> logprobs, Optional<Tensor> own,
            Optional<Tensor> scores, List<Tensor> tops) {
        List<Tensor> all() {
            List<Tensor> all = new ArrayList<>();
            for (var tensor : List.of(tokens, logprobs, own, scores)) tensor.ifPresent(all::add);
            all.addAll(tops);
            return all;
        }
    }

    /// Device data that must exist before the first verb of a pass.
    ///
    /// @param slots of the rows that are drawn from
    /// @param rows, targets uploads of [#arrays]
    record Prepared(Optional<Slots> slots, Optional<Draws> draws, Optional<Tensor> rows,
            Optional<Tensor> targets) {}

    /// @param uploaded in the order of [#arrays]
    Prepared prepare(Device.Scope scope, List<Tensor> uploaded) {
        Optional<Tensor> targets = scoredRows.isEmpty() ? Optional.empty() : Optional.of(uploaded.getLast());
        if (drawnRows.isEmpty())
            return new Prepared(Optional.empty(), Optional.empty(), Optional.empty(), targets);
        List<Optional<Adapter>> adapters = drawnRows.stream()
                .map(r -> r.sequences.getFirst().request.adapter).toList();
        List<Draw> draws = new ArrayList<>();
        for (int i = 0; i < drawnRows.size(); i++)
            for (SampledSequence s : drawnRows.get(i).sequences) draws.add(s.draw(i));
        return new Prepared(Optional.of(model.slots(scope, adapters)),
                Optional.of(model.device().draws(scope, draws)), Optional.of(uploaded.getFirst()), targets);
    }

    /// Enqueues the head, the draws and the scores.
    Readback launch(Device.Scope scope, CachedPass.Output output, Prepared prepared) {
        Device device = model.device();
        int draws = draws(0, drawnRows.size());
        Results results = new Results(
                optional(draws, n -> device.scratch(scope, DType.I32, n, 1)),
                optional(draws, n -> device.scratch(scope, n, 1)),
                optional(draws, n -> device.scratch(scope, n, 1)),
                optional(scoredRows.stream().mapToInt(ScoredRows::count).sum(),
                        n -> device.scratch(scope, n, 1)),
                new ArrayList<>());
        if (!scoredRows.isEmpty()) score(scope, output, prepared.targets.orElseThrow(), results);
        draw(scope, output.hidden(), prepared, results);
        return device.readback(results.all());
    }

    private static Optional<Tensor> optional(int rows, IntFunction<Tensor> tensor) {
        return rows == 0 ? Optional.empty() : Optional.of(tensor.apply(rows));
    }

    private void draw(Device.Scope whole, Tensor hidden, Prepared prepared, Results results) {
        Device device = model.device();
        int drawn = 0;
        for (int from = 0; from < drawnRows.size(); from += chunk) {
            int n = Math.min(chunk, drawnRows.size() - from);
            int draws = draws(from, from + n);
            try (Device.Scope scope = device.scope()) {
                Tensor gathered = device.scratch(scope, hidden.dtype(), n, hidden.columns());
                device.gather(gathered, hidden, prepared.rows.orElseThrow().rows(from, n));
                Tensor logits = model.logits(scope, gathered, prepared.slots.orElseThrow().rows(from, n));
                Tensor tokens = results.tokens.orElseThrow().rows(drawn, draws);
                device.sample(tokens, results.logprobs.orElseThrow().rows(drawn, draws),
                        results.own.orElseThrow().rows(drawn, draws), logits,
                        prepared.draws.orElseThrow().part(drawn, draws, from));
                for (TopRows rows : topRows)
                    if (rows.first >= from && rows.first < from + n)
                        top(whole, scope, rows, logits.rows(rows.first - from, rows.count),
                                tokens.rows(draws(from, rows.first), rows.count), results);
            }
            drawn += draws;
        }
    }

    /// Draws from the rows from one until before another.
    private int draws(int from, int to) {
        return drawnRows.subList(from, to).stream().mapToInt(r -> r.sequences.size()).sum();
    }

    /// The most likely tokens of drawn rows, under the model itself.
    ///
    /// @param whole of the pass, for the results
    /// @param tokens one of each row: whichever it is, the sum over the vocabulary is the same
    private void top(Device.Scope whole, Device.Scope scope, TopRows rows, Tensor logits, Tensor tokens,
            Results results) {
        Device device = model.device();
        Tensor ids = device.scratch(whole, DType.I32, rows.count, rows.k);
        Tensor best = device.scratch(whole, rows.count, rows.k);
        results.tops.addAll(List.of(ids, best));
        Tensor lse = device.scratch(scope, rows.count, 1);
        device.logSoftmaxAt(device.scratch(scope, rows.count, 1), lse, logits, tokens);
        device.top(ids, best, logits, lse);
    }

    private void score(Device.Scope scope, CachedPass.Output output, Tensor targets, Results results) {
        Device device = model.device();
        int at = 0;
        for (ScoredRows s : scoredRows) {
            int top = s.top(model.spec().vocabularySize());
            Optional<Tensor> ids = optional(top, k -> device.scratch(scope, DType.I32, s.count, k));
            Optional<Tensor> best = optional(top, k -> device.scratch(scope, s.count, k));
            ids.ifPresent(results.tops::add);
            best.ifPresent(results.tops::add);
            for (int from = 0; from < s.count; from += chunk) {
                int n = Math.min(chunk, s.count - from);
                try (Device.Scope inner = device.scope()) {
                    Tensor logits = model.logits(inner, output.hidden().rows(s.row + from, n),
                            output.slots().rows(s.row + from, n));
                    Tensor lse = device.scratch(inner, n, 1);
                    device.logSoftmaxAt(results.scores.orElseThrow().rows(at + from, n), lse, logits,
                            targets.rows(at + from, n));
                    if (top > 0) device.top(ids.get().rows(from, n), best.get().rows(from, n), logits, lse);
                }
            }
            at += s.count;
        }
    }

    /// Everything that the host reads of a pass.
    ///
    /// @param ids, best of each [ScoredRows], then of each [TopRows], row-major; empty where it wants none
    record Values(int[] tokens, float[] logprobs, float[] own, float[] scores, List<int[]> ids,
            List<float[]> best) {
        /// A row of the most likely tokens.
        private List<TokenLogprob> top(int rows, int row, int k) {
            List<TokenLogprob> top = new ArrayList<>();
            for (int j = row * k; j < (row + 1) * k; j++)
                top.add(new TokenLogprob(ids.get(rows)[j], best.get(rows)[j]));
            return List.copyOf(top);
        }
    }

    /// Waits for the results; changes nothing.
    Values read(Readback results) {
        int next = 0;
        boolean drawn = !drawnRows.isEmpty();
        int[] tokens = drawn ? results.ints(next++) : new int[0];
        float[] logprobs = drawn ? results.floats(next++) : new float[0];
        float[] own = drawn ? results.floats(next++) : new float[0];
        float[] scores = scoredRows.isEmpty() ? new float[0] : results.floats(next++);
        List<int[]> ids = new ArrayList<>();
        List<float[]> best = new ArrayList<>();
        for (ScoredRows s : scoredRows) {
            boolean top = s.top(model.spec().vocabularySize()) > 0;
            ids.add(top ? results.ints(next++) : new int[0]);
            best.add(top ? results.floats(next++) : new float[0]);
        }
        for (TopRows _ : topRows) {
            ids.add(results.ints(next++));
            best.add(results.floats(next++));
        }
        return new Values(tokens, logprobs, own, scores, ids, best);
    }

    /// Adds the results to the requests. A request with a log-probability that is not finite fails.
    ///
    /// @return sequences that sampled a token, those after one row together
    List<List<SampledSequence>> apply(Values values) {
        int at = 0;
        for (int r = 0; r < scoredRows.size(); r++) {
            ScoredRows s = scoredRows.get(r);
            int k = s.top(model.spec().vocabularySize());
            for (int i = 0; i < s.count; i++)
                s.request.addScore(values.scores[at++], values.top(r, i, k));
        }
        int draw = 0;
        for (int i = 0; i < drawnRows.size(); i++) {
            List<TokenLogprob> top = top(values, i);
            for (SampledSequence s : drawnRows.get(i).sequences) {
                s.append(values.tokens[draw], values.logprobs[draw], values.own[draw], top);
                draw++;
            }
        }
        return drawnRows.stream().map(DrawnRow::sequences).toList();
    }

    /// The most likely tokens of a drawn row; an empty list if its request asks for none.
    private List<TokenLogprob> top(Values values, int row) {
        for (int i = 0; i < topRows.size(); i++) {
            TopRows rows = topRows.get(i);
            if (row >= rows.first && row < rows.first + rows.count)
                return values.top(scoredRows.size() + i, row - rows.first, rows.k);
        }
        return List.of();
    }
}
