package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.TestClient.Answer;
import com.fasterxml.jackson.databind.JsonNode;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Queue;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Requests made from the OpenAPI document find no call that answers 5xx, hangs or leaks. `-Dbios.fuzz.seed`
/// and `-Dbios.fuzz.requests` choose others, and more: see docs/reference/http.md.
class FuzzTest {
    private static final long SEED = Long.getLong("bios.fuzz.seed", 7);
    private static final int REQUESTS = Integer.getInteger("bios.fuzz.requests", 20_000);
    private static final int AT_ONCE = 64;
    private static final int PROGRESS = 50_000;
    private static final int MOST_FAILURES = 20;
    private static final int ATTEMPTS = 5;
    private static final Duration LIMIT = Duration.ofSeconds(120);
    private static final String SETTINGS =
            "long-poll = 20 ms, max-bytes-in-work = 32 MiB, archive-url-secret = secret";

    @TempDir private Path folder;
    private final Queue<String> failures = new ConcurrentLinkedQueue<>();
    private final TreeMap<Integer, Integer> statuses = new TreeMap<>();

    @Test void noRequestIsAnsweredWith5xxOrHangsOrLeaks() {
        try (var service = new RealService(folder, Accounts.open(), SETTINGS)) {
            JsonNode document = service.get("/openapi.json").json();
            var number = new AtomicInteger();
            try (var lanes = Executors.newVirtualThreadPerTaskExecutor()) {
                for (int lane = 0; lane < AT_ONCE; lane++) {
                    var requests = new FuzzRequests(document, SEED * 1000 + lane);
                    String session = prepared(service, requests, lane);
                    lanes.submit(() -> drive(service, requests, session, number));
                }
            }
            assertTrue(failures.isEmpty(), () -> String.join("\n", failures));
            assertTrue(statuses.getOrDefault(200, 0) > REQUESTS / 20, statuses::toString);
            assertTrue(statuses.getOrDefault(400, 0) > REQUESTS / 20, statuses::toString);
            // All the memory of requests is free again: a body that needs most of it is read.
            Answer large = service.post("tokenize", "{'base_model': 'ultrasafe/usf-tiny', 'text': '"
                    + "x".repeat(3 << 20) + "'}");
            assertTrue(large.status() == 200 || large.status() == 400, () ->
                    new String(large.bytes(), StandardCharsets.UTF_8));
        }
    }

    /// The objects with which a lane begins.
    private static String prepared(RealService service, FuzzRequests requests, int lane) {
        String session = String.format("0a1b2c3d-0000-4000-8000-%012x", lane);
        service.post("create_session", "{'session_id': '" + session + "'}");
        requests.remember("session_id", session);
        Answer run = service.post("create_model", "{'session_id': '" + session
                + "', 'model_seq_id': 1, 'base_model': 'ultrasafe/usf-tiny'}");
        requests.learn(run.json());
        String id = run.text("model_id");
        requests.remember("path", "bios://" + id + "/a");
        requests.remember("path", "tinker://" + id + "/sampler_weights/a");
        requests.learn(service.post("create_sampling_session", "{'session_id': '" + session
                + "', 'sampling_session_seq_id': 1, 'base_model': 'ultrasafe/usf-tiny'}").json());
        return session;
    }

    private void drive(RealService service, FuzzRequests requests, String session, AtomicInteger number) {
        while (failures.size() < MOST_FAILURES) {
            int sent = number.incrementAndGet();
            if (sent > REQUESTS) return;
            if (sent % PROGRESS == 0)
                System.out.println("fuzz: " + sent + " of " + REQUESTS + " requests");
            FuzzRequests.Request request = requests.next();
            try {
                Answer answer = answer(service, request);
                if (answer.status() >= 500 && answer.status() != 501)
                    failures.add(answer.status() + " to " + request + ": "
                            + new String(answer.bytes(), StandardCharsets.UTF_8));
                requests.learn(answer.json());
                synchronized (statuses) {
                    statuses.merge(answer.status(), 1, Integer::sum);
                }
            } catch (RuntimeException failed) {
                failures.add(failed + " to " + request);
            }
            requests.remember("session_id", session);
        }
    }

    /// The answer. A part that does not answer in time, on a slow machine, is asked again, as clients do.
    private static Answer answer(RealService service, FuzzRequests.Request request) {
        Answer answer = service.send(built(service, request));
        for (int again = 1; again < ATTEMPTS && answer.status() == 503; again++)
            answer = service.send(built(service, request));
        return answer;
    }

    private static HttpRequest.Builder built(RealService service, FuzzRequests.Request request) {
        var built = HttpRequest.newBuilder(service.uri(request.path())).timeout(LIMIT)
                .method(request.method(), BodyPublishers.ofByteArray(request.body()))
                .header("Content-Type", request.contentType()).header("Accept", request.accept());
        return request.encoding().isEmpty() ? built : built.header("Content-Encoding", request.encoding());
    }

    @Test void aSeedGivesTheSameRequests() {
        try (var service = new RealService(folder, Accounts.open(), SETTINGS)) {
            JsonNode document = service.get("/openapi.json").json();
            List<List<String>> twice = List.of(some(document), some(document));
            assertEquals(twice.get(0), twice.get(1));
        }
    }

    private static List<String> some(JsonNode document) {
        var requests = new FuzzRequests(document, SEED);
        return java.util.stream.Stream.generate(() -> requests.next().toString()).limit(200).toList();
    }
}
