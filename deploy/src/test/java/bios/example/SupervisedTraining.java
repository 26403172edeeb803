package bios.example;

import bios.client.Batch;
import bios.client.BiosClient;
import bios.client.ClientSettings;
import bios.client.TrainingRun;
import bios.protocol.client.Answer;
import bios.protocol.client.Request;
import bios.protocol.run.AdamParams;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;

/// Trains an adapter on the lines of a text file and saves it.
/// Arguments: gateway (HOST:PORT), base model, file, number of steps.
public final class SupervisedTraining {
    private static final AdamParams ADAM = new AdamParams(1e-3, 0.9, 0.95, 1e-8, 0, 1);

    private SupervisedTraining() {}

    public static void main(String[] args) throws IOException {
        List<String> lines = Files.readAllLines(Path.of(args[2])).stream().filter(l -> !l.isBlank()).toList();
        int steps = Integer.parseInt(args[3]);
        var client = BiosClient.connect(ClientSettings.of(args[0]).withProgram("supervised-training")
                .onWait(why -> System.out.println("waiting: " + why)));
        // Only the main thread waits: for the whole program.
        String path = tokens(client, args[1], lines)
                .thenCompose(texts -> client.createRun(args[1], Request.Adapter.ofRank(8))
                        .thenCompose(run -> train(run, Batch.ofTexts(texts), steps)))
                .whenComplete((_, _) -> client.close()).toCompletableFuture().join();
        System.out.println("saved " + path);
    }

    /// The tokens of each line.
    private static CompletionStage<List<int[]>> tokens(BiosClient client, String model, List<String> lines) {
        CompletionStage<List<int[]>> all = CompletableFuture.completedStage(new ArrayList<>());
        for (String line : lines)
            all = all.thenCombine(client.tokenize(model, line), (texts, tokens) -> {
                if (tokens.length > 1) texts.add(tokens);
                return texts;
            });
        return all;
    }

    /// Submits all steps at once; the service executes them in this order.
    private static CompletionStage<String> train(TrainingRun run, Batch batch, int steps) {
        CompletionStage<Void> done = CompletableFuture.completedStage(null);
        for (int step = 1; step <= steps; step++) {
            int number = step;
            CompletionStage<Answer.Evaluated> evaluated = run.forwardBackward(batch);
            CompletionStage<Answer.Stepped> stepped = run.optimStep(ADAM);
            done = done.thenCombine(evaluated.thenCombine(stepped, (loss, _) -> loss), (_, loss) -> {
                System.out.printf("step %d of %d: loss %.4f%n", number, steps,
                        loss.loss() / loss.metrics().get("tokens:sum"));
                return null;
            });
        }
        CompletionStage<Answer.Saved> saved = run.saveState("final");
        return done.thenCombine(saved, (_, checkpoint) -> checkpoint.path().orElseThrow());
    }
}
