package bios.bench;

import bios.command.Installation;
import bios.protocol.run.Operation;
import java.io.IOException;
import java.net.http.HttpClient;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Queue;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicLong;

/// Measures many clients at the same time over HTTP, through a server in a process of its own: each has a
/// session and a run, and trains small steps, one operation after another. An operation is measured from its
/// request until its result is there.
///
/// @param seconds measured, after half as many that are not
public record ClientsBench(int clients, int seconds) {
    private static final String MODEL = "bios/tiny";
    private static final long SECOND = 1_000_000_000L;

    /// What was measured so far.
    private record Measured(long from, long to, Queue<Double> millis, AtomicLong errors) {}

    /// Starts a server on the small model that comes with Bios, and measures.
    public Report run() throws IOException {
        Path data = Files.createTempDirectory("bios-bench-");
        try (Child server = Child.bios(List.of("up", "--port", "0", "--data", data.toString(), "--model",
                MODEL + "=" + Installation.tinyModel())); HttpClient http = HttpClient.newHttpClient()) {
            return report(measured(http, server.await("bios ready on ")));
        } finally {
            Setup.delete(data);
        }
    }

    private Measured measured(HttpClient http, String url) {
        List<ActorsBench.HttpProtocol> protocols = new ArrayList<>();
        List<String> runs = new ArrayList<>();
        for (int i = 0; i < clients; i++) {
            protocols.add(new ActorsBench.HttpProtocol(http, url));
            runs.add(protocols.get(i).createRun(1).toCompletableFuture().join());
        }
        long from = System.nanoTime() + seconds * SECOND / 2;
        var measured = new Measured(from, from + seconds * SECOND, new ConcurrentLinkedQueue<>(),
                new AtomicLong());
        try (var lanes = Executors.newVirtualThreadPerTaskExecutor()) {
            for (int i = 0; i < clients; i++) {
                ActorsBench.HttpProtocol protocol = protocols.get(i);
                String run = runs.get(i);
                lanes.submit(() -> drive(protocol, run, measured));
            }
        }
        return measured;
    }

    private static void drive(ActorsBench.HttpProtocol protocol, String run, Measured measured) {
        Operation.ForwardBackward pass = ActorsBench.pass(ActorsBench.small(), false);
        List<Operation> step = List.of(pass, new Operation.OptimStep(Optional.empty()));
        for (int seq = 1;; seq++) {
            long begin = System.nanoTime();
            if (begin >= measured.to()) return;
            boolean good = done(protocol, run, seq, step.get((seq - 1) % 2));
            long end = System.nanoTime();
            if (!good) measured.errors().incrementAndGet();
            if (begin >= measured.from() && end <= measured.to()) measured.millis().add((end - begin) / 1e6);
        }
    }

    private static boolean done(ActorsBench.HttpProtocol protocol, String run, long seq,
            Operation operation) {
        try {
            return protocol.submit(run, seq, operation).toCompletableFuture().join().isEmpty();
        } catch (CompletionException _) {
            return false;
        }
    }

    private Report report(Measured measured) {
        Percentiles all = Percentiles.of(measured.millis());
        Report report = new Report("gateway-clients", "");
        report.line().put("model", MODEL).put("clients", clients).put("seconds", seconds)
                .put("operations", measured.millis().size())
                .put("operations_s", Report.round(measured.millis().size() / (double) seconds))
                .put("p50_ms", Report.three(all.median())).put("p90_ms", Report.three(all.at(90)))
                .put("p99_ms", Report.three(all.at(99))).put("errors", measured.errors().get());
        return report;
    }
}
