package bios.bench;

import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.TensorData;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;

/// The runs of a training step, which share each pass.
record Workload(List<Run> runs) {
    /// The ranks of tenants, used cyclically.
    private static final int[] RANKS = {8, 16, 32, 64};

    /// One run's adapter and sequences.
    record Run(int rank, int[] lengths) {}

    /// A single run.
    static Workload of(int rank, int[] lengths) {
        return new Workload(List.of(new Run(rank, lengths)));
    }

    /// `count` runs of ranks 8 to 64, each with one sequence.
    static Workload tenants(int count, int length) {
        List<Run> runs = new ArrayList<>();
        for (int i = 0; i < count; i++)
            runs.add(new Run(RANKS[i % RANKS.length], Lengths.equal(1, length)));
        return new Workload(runs);
    }

    /// One run with all sequences of these runs and their average rank, so with as much work.
    Workload merged() {
        int[] lengths = runs.stream().flatMapToInt(r -> Arrays.stream(r.lengths)).toArray();
        double rank = runs.stream().mapToInt(Run::rank).average().orElseThrow();
        return of((int) Math.round(rank), lengths);
    }

    int tokens() {
        return runs.stream().flatMapToInt(r -> Arrays.stream(r.lengths)).sum();
    }

    Work work(Shape shape) {
        return runs.stream().map(r -> Work.training(shape, r.rank, r.lengths)).reduce(Work::plus)
                .orElseThrow();
    }

    /// Random tokens for run `index`.
    Operation.ForwardBackward operation(int index, int vocabulary, long seed) {
        SplittableRandom random = new SplittableRandom(31 * seed + index);
        List<Datum> data = new ArrayList<>();
        for (int length : runs.get(index).lengths) {
            int[] tokens = random.ints(length, 0, vocabulary).toArray();
            long[] targets = random.longs(length, 0, vocabulary).toArray();
            data.add(new Datum(tokens, Map.of("target_tokens", TensorData.of(targets))));
        }
        return new Operation.ForwardBackward(data, LossFunction.CROSS_ENTROPY, Map.of(), false);
    }
}
