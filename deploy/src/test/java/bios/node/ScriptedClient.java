package bios.node;

import bios.client.Batch;
import bios.client.BiosClient;
import bios.client.ClientSettings;
import bios.client.TrainingRun;
import bios.protocol.client.Answer;
import bios.protocol.client.Request;
import bios.protocol.run.AdamParams;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SamplingParams;
import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.CompletionStage;
import java.util.stream.IntStream;

/// The program of `java_clients.py`: trains and samples in a way that its seed fixes, and prints a line for
/// each result, with a digest of its bits. It may be killed and started again with the same arguments.
/// Arguments: gateways (HOST:PORT,...), base model, session, seed, steps; and, if the gateways reach it
/// through something else, the address and port of that (HOST:PORT) and the address on which it listens.
final class ScriptedClient {
    private static final int VOCABULARY = 1000;

    private ScriptedClient() {}

    public static void main(String[] args) throws Exception {
        long seed = Long.parseLong(args[3]);
        int steps = Integer.parseInt(args[4]);
        var settings = ClientSettings.of(args[0].split(",")).inSession(args[2])
                .withSilence(Duration.ofSeconds(4));
        if (args.length > 5) {
            String[] reached = args[5].split(":");
            settings = settings.reachedAt(reached[0], Integer.parseInt(reached[1])).listeningOn(args[6]);
        }
        var client = BiosClient.connect(settings);
        TrainingRun run = client.createRun(args[1], Request.Adapter.ofRank(8).withSeed(seed))
                .toCompletableFuture().join();
        List<CompletionStage<String>> lines = new ArrayList<>();
        for (int step = 0; step < steps; step++) {
            lines.add(run.forwardBackward(batch(seed * 1000 + step)).thenApply(ScriptedClient::line));
            lines.add(run.optimStep(new AdamParams(1e-3, 0.9, 0.95, 1e-8, 0, 1)).thenApply(stepped ->
                    "step " + stepped.step() + " " + stepped.metrics().get("grad_norm")));
            if (step % 5 == 4) {
                var params = new SamplingParams(Optional.of(20), Optional.of(seed + step), List.of(),
                        List.of(), 1, -1, 1);
                lines.add(run.sampler().thenCompose(sampler ->
                        sampler.sample(new int[] {5, 17, 900, 3}, params, 2))
                        .thenApply(ScriptedClient::line));
                lines.add(run.saveState("at." + step % 2).thenApply(saved -> "saved at " + saved.step()));
            }
        }
        lines.add(run.forward(batch(seed)).thenApply(ScriptedClient::line));
        lines.add(run.saveState("end").thenApply(saved -> "end " + saved.path().orElseThrow()));
        for (int i = 0; i < lines.size(); i++) {
            System.out.println(i + " " + lines.get(i).toCompletableFuture().join());
            System.out.flush();
        }
        client.close();
    }

    private static Batch batch(long seed) {
        var random = new Random(seed);
        return Batch.ofTexts(IntStream.range(0, 4).mapToObj(_ ->
                random.ints(2 + random.nextInt(46), 0, VOCABULARY).toArray()).toList());
    }

    private static String line(Answer.Evaluated result) {
        return "pass " + digest(result.logprobs()) + " " + result.loss();
    }

    private static String line(SampleResult result) {
        return "sample " + digest(result.sequences().stream().map(SampleResult.Sequence::logprobs).toList())
                + " " + IntStream.of(result.sequences().getFirst().tokens()).boxed().toList();
    }

    private static String digest(List<float[]> rows) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            for (float[] row : rows) {
                ByteBuffer bytes = ByteBuffer.allocate(4 * row.length);
                bytes.asFloatBuffer().put(row);
                digest.update(bytes);
            }
            return java.util.HexFormat.of().formatHex(digest.digest(), 0, 8);
        } catch (java.security.NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
