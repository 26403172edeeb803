package bios.example;

import bios.client.Batch;
import bios.client.BiosClient;
import bios.client.ClientSettings;
import bios.client.Sampler;
import bios.client.TrainingRun;
import bios.protocol.client.Answer;
import bios.protocol.client.Request;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SamplingParams;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.stream.IntStream;

/// A small loop of reinforcement learning: samples answers to eight prompts at the same time, scores them,
/// and trains on what was better than the mean of its prompt. The reward is that an answer repeats no token.
/// Arguments: gateway (HOST:PORT), base model, number of rounds.
public final class ReinforcementLearning {
    private static final List<String> PROMPTS = List.of("One", "Two", "Three", "Four", "Five", "Six", "Seven",
            "Eight");
    private static final int ANSWERS = 4;
    private static final AdamParams ADAM = new AdamParams(5e-4, 0.9, 0.95, 1e-8, 0, 1);

    private ReinforcementLearning() {}

    /// The answers to one prompt, as training takes them, and the sum of their rewards.
    private record Group(List<Datum> rollouts, double reward) {}

    public static void main(String[] args) {
        int rounds = Integer.parseInt(args[2]);
        var client = BiosClient.connect(ClientSettings.of(args[0]).withProgram("reinforcement-learning"));
        client.createRun(args[1], Request.Adapter.ofRank(8))
                .thenCompose(run -> rounds(client, args[1], run, 1, rounds))
                .whenComplete((_, _) -> client.close()).toCompletableFuture().join();
        System.out.println("done");
    }

    private static CompletionStage<Void> rounds(BiosClient client, String model, TrainingRun run, int round,
            int last) {
        if (round > last) return CompletableFuture.completedStage(null);
        return run.sampler().thenCompose(sampler -> groups(client, model, sampler, round))
                .thenCompose(groups -> train(run, groups, round))
                .thenCompose(_ -> rounds(client, model, run, round + 1, last));
    }

    /// Samples all prompts at the same time.
    private static CompletionStage<List<Group>> groups(BiosClient client, String model, Sampler sampler,
            int round) {
        CompletionStage<List<Group>> all = CompletableFuture.completedStage(new ArrayList<>());
        for (int i = 0; i < PROMPTS.size(); i++) {
            var params = new SamplingParams(Optional.of(12), Optional.of(1000L * round + i), List.of(),
                    List.of(), 1, -1, 1);
            CompletionStage<Group> group = client.tokenize(model, PROMPTS.get(i)).thenCompose(prompt ->
                    sampler.sample(prompt, params, ANSWERS).thenApply(result -> group(prompt, result)));
            all = all.thenCombine(group, (groups, one) -> {
                groups.add(one);
                return groups;
            });
        }
        return all;
    }

    private static Group group(int[] prompt, SampleResult result) {
        double[] rewards = result.sequences().stream().mapToDouble(answer ->
                IntStream.of(answer.tokens()).distinct().count() / (double) answer.tokens().length).toArray();
        double sum = IntStream.range(0, rewards.length).mapToDouble(i -> rewards[i]).sum();
        List<Datum> rollouts = IntStream.range(0, rewards.length).mapToObj(i -> {
            SampleResult.Sequence answer = result.sequences().get(i);
            return Batch.rollout(prompt, answer.tokens(), answer.logprobs(),
                    (float) (rewards[i] - sum / rewards.length));
        }).toList();
        return new Group(rollouts, sum);
    }

    private static CompletionStage<Answer.Stepped> train(TrainingRun run, List<Group> groups, int round) {
        System.out.printf("round %d: mean reward %.3f%n", round,
                groups.stream().mapToDouble(Group::reward).sum() / (PROMPTS.size() * ANSWERS));
        run.forwardBackward(Batch.of(LossFunction.IMPORTANCE_SAMPLING,
                groups.stream().flatMap(group -> group.rollouts().stream()).toList()));
        return run.optimStep(ADAM);
    }
}
