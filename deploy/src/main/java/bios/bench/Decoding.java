package bios.bench;

import bios.protocol.model.ModelName;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.TensorData;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingParams;
import bios.worker.adapter.TrainingState;
import bios.worker.model.BaseModel;
import bios.worker.sample.Sampler;
import bios.worker.train.Trainer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SplittableRandom;

/// Sampling of random prompts with several adapters, to be measured.
///
/// @param name of the base model
record Decoding(Sampler sampler, Adapters trained, ModelName name) {
    private static final int TRAINED = 32;

    /// The time and the results of a sampling run.
    record Drawn(double seconds, List<SampleTask> tasks, List<SampleResult> results) {
        /// Whether both have the same tokens and the same bits of log-probabilities.
        boolean same(Drawn other) {
            for (int i = 0; i < results.size(); i++) {
                SampleResult.Sequence one = results.get(i).sequences().getFirst();
                SampleResult.Sequence two = other.results.get(i).sequences().getFirst();
                if (!Arrays.equals(one.tokens(), two.tokens())
                        || !Arrays.equals(one.logprobs(), two.logprobs())) return false;
            }
            return results.size() == other.results.size();
        }
    }

    /// Draws `tokens` tokens in each of `count` sequences at once, with the adapters in turn.
    Drawn draw(int count, int tokens, int promptTokens) {
        return draw(count, tokens, promptTokens, true);
    }

    private Drawn draw(int count, int tokens, int promptTokens, boolean adapters) {
        SamplingParams params = new SamplingParams(Optional.of(tokens), Optional.empty(), List.of(),
                List.of(), 1, -1, 1);
        SplittableRandom random = new SplittableRandom(3);
        List<SampleTask> tasks = new ArrayList<>();
        for (int i = 0; i < count; i++)
            tasks.add(new SampleTask("bench-" + i, name, Optional.empty(),
                    random.ints(promptTokens, 0, trained.vocabulary()).toArray(), params, 1, i, false,
                    0));
        Map<Long, SampleResult> results = new HashMap<>();
        List<Long> tickets = new ArrayList<>();
        long begin = System.nanoTime();
        for (int i = 0; i < count; i++)
            tickets.add(sampler.submit(tasks.get(i),
                    adapters ? Optional.of(trained.of(i).adapter()) : Optional.empty()));
        while (!sampler.idle())
            for (Sampler.Finished done : sampler.step()) results.put(done.id(), done.result());
        return new Drawn((System.nanoTime() - begin) * 1e-9, tasks,
                tickets.stream().map(results::get).toList());
    }

    /// Tokens per second after the first of each stream.
    double rate(int count, int tokens, int promptTokens) {
        return rate(count, tokens, promptTokens, true);
    }

    /// The same of the base model.
    double baseRate(int count, int tokens, int promptTokens) {
        return rate(count, tokens, promptTokens, false);
    }

    private double rate(int count, int tokens, int promptTokens, boolean adapters) {
        double first = draw(count, 1, promptTokens, adapters).seconds;
        double all = draw(count, tokens, promptTokens, adapters).seconds;
        return count * (tokens - 1) / (all - first);
    }

    /// The differences of log-probabilities.
    record Difference(double largest, double mean) {}

    /// How far the log-probability of each sampled token is from the trainer's; 0 if all have the same bits.
    Difference difference(int streams, int tokens, int promptTokens) {
        Drawn drawn = draw(streams, tokens, promptTokens);
        double largest = 0;
        double sum = 0;
        for (int i = 0; i < streams; i++) {
            SampleResult.Sequence sequence = drawn.results.get(i).sequences().getFirst();
            float[] forward = trained.forward(i, drawn.tasks.get(i).prompt(), sequence.tokens());
            for (int j = 0; j < sequence.tokens().length; j++) {
                double off = Math.abs(forward[promptTokens - 1 + j] - (double) sequence.logprobs()[j]);
                largest = Math.max(largest, off);
                sum += off / sequence.tokens().length / streams;
            }
        }
        return new Difference(largest, sum);
    }

    /// Adapters after one training step, because a new adapter does not change the model.
    static final class Adapters implements AutoCloseable {
        private final List<TrainingState> states = new ArrayList<>();
        private final Trainer trainer;

        Adapters(BaseModel model, int count, int rank) {
            trainer = new Trainer(model);
            Workload workload = Workload.of(rank, Lengths.equal(1, TRAINED));
            for (int i = 0; i < count; i++) {
                TrainingState state = TrainingState.createInitialized(Setup.adapter(rank, i), model.spec(),
                        model.device());
                states.add(state);
                trainer.evaluate(state, workload.operation(0, model.spec().vocabularySize(), i));
                trainer.optimStep(state, Optional.of(AdamParams.DEFAULT)).complete();
            }
        }

        int vocabulary() {
            return trainer.model().spec().vocabularySize();
        }

        /// The adapter of stream `i`.
        TrainingState of(int i) {
            return states.get(i % states.size());
        }

        /// The trainer's log-probability of every token after the first.
        float[] forward(int i, int[] prompt, int[] drawn) {
            int n = prompt.length + drawn.length - 1;
            int[] input = new int[n];
            long[] targets = new long[n];
            for (int at = 0; at <= n; at++) {
                int token = at < prompt.length ? prompt[at] : drawn[at - prompt.length];
                if (at < n) input[at] = token;
                if (at > 0) targets[at - 1] = token;
            }
            Datum datum = new Datum(input, Map.of("target_tokens", TensorData.of(targets)));
            return trainer.evaluate(of(i), new Operation.ForwardBackward(List.of(datum),
                    LossFunction.CROSS_ENTROPY, Map.of(), true)).logprobs().getFirst();
        }

        @Override public void close() {
            states.forEach(TrainingState::close);
        }
    }
}
