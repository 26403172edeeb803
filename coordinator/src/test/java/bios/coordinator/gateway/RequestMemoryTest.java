package bios.coordinator.gateway;

import static bios.coordinator.gateway.TestService.SESSION;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.TestClient.Answer;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RequestId;
import bios.protocol.run.RunId;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletionException;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import java.util.function.LongPredicate;
import org.apache.pekko.actor.Cancellable;
import org.apache.pekko.stream.javadsl.Sink;
import org.apache.pekko.stream.javadsl.Source;
import org.apache.pekko.util.ByteString;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/// The memory of requests in flight has a bound, whatever the bodies are made of.
class RequestMemoryTest {
    private static final int MEMORY = 4 << 20;
    private static TestService service;

    @BeforeAll static void start() {
        service = new TestService(Accounts.open(), "long-poll = 100 ms, max-bytes-in-work = " + MEMORY);
    }

    @AfterAll static void stop() {
        service.close();
    }

    private static byte[] body(String begin, String repeated, int bytes, String end) {
        return (begin + repeated.repeat(bytes / repeated.length()) + end).getBytes(StandardCharsets.UTF_8);
    }

    private static String keys(int bytes) {
        var text = new StringBuilder("{\"metadata\": {");
        for (int i = 0; text.length() < bytes; i++) text.append("\"k").append(i).append("\":0,");
        return text.append("\"last\":0}}").toString();
    }

    /// Bodies that take many times their size when they are parsed.
    private static List<byte[]> hostile(int bytes) {
        return List.of(body("{\"data\": [", "{},", bytes, "{}]}"), body("{\"data\": [", "[],", bytes, "[]]}"),
                body("{\"stop\": [", "1,", bytes, "1]}"), body("{\"tokens\": [", "1,", bytes, "1]}"),
                body("{\"tags\": [", "\"\",", bytes, "\"\"]}"),
                body("{\"data\": [", "{\"dtype\":1},", bytes, "{}]}"),
                keys(bytes).getBytes(StandardCharsets.UTF_8));
    }

    @Test void hostileBodiesAreRefusedByTheMemoryThatTheyWouldTake() {
        for (byte[] body : hostile(MEMORY / 4)) {
            Answer answer = service.send("POST", "forward_backward", body);
            assertEquals(413, answer.status(), () -> new String(body, 0, 30, StandardCharsets.UTF_8));
            assertEquals("body_too_large", answer.text("error"));
        }
        assertEquals(200, service.post("session_heartbeat", "{'session_id': '" + SESSION + "'}").status());
    }

    @Test void theCountIsAtLeastWhatAValueTakes() {
        var reader = new JsonReader(64, 1 << 26);
        for (byte[] body : hostile(1 << 18)) {
            var told = new AtomicLong();
            var kept = new ArrayList<Json>();
            long before = used();
            for (int i = 0; i < 3; i++) kept.add(reader.read(body, told::addAndGet));
            long taken = used() - before;
            assertTrue(told.get() + (1 << 19) > taken, () -> new String(body, 0, 30, StandardCharsets.UTF_8)
                    + " takes " + taken + " and counts " + told);
            assertEquals(3, kept.size());
        }
    }

    private static long used() {
        System.gc();
        return Runtime.getRuntime().totalMemory() - Runtime.getRuntime().freeMemory();
    }

    @Test void base64StaysInTheBodyHoweverItIsWritten() {
        for (String text : List.of("{\"tokens_base64\":\"AQID\"}", "{ \"tokens_base64\" : \n\t\"AQID\" }",
                "\uFEFF{\"tokens_base64\": \"AQID\"}", "{\"type\":1,\"tokens_base64\":\"\\u0041QID\"}")) {
            Json body = new JsonReader(64, 1 << 26).read(text.getBytes(StandardCharsets.UTF_8), _ -> { });
            assertArrayEquals(new byte[] {1, 2, 3}, Fields.of(FieldPath.BODY, body).base64("tokens_base64"),
                    text);
        }
    }

    @Test void whatIsNotRequestedIsNotBuilt() {
        for (String shape : List.of("{},", "[],", "1,", "\"text\",")) {
            var told = new AtomicLong();
            Json read = new JsonReader(64, 1 << 26)
                    .read(body("{\"surprise\": [", shape, 1 << 20, "0]}"), told::addAndGet);
            assertEquals("surprise", ((Json.Obj) read).fields().keySet().iterator().next());
            assertTrue(told.get() < 1 << 16, shape);
        }
        Answer answer = service.send("POST", "session_heartbeat",
                body("{\"session_id\": \"" + SESSION + "\", \"surprise\": [", "{},", 1 << 20, "0]}"));
        assertEquals(400, answer.status());
        assertEquals("surprise", answer.text("field"));
    }

    @Test void aSmallRequestIsServedWhileLargeOnesHoldTheMemory() throws IOException {
        int large = MEMORY / 2 + MEMORY / 4;
        try (var socket = new Socket("127.0.0.1", service.port())) {
            announce(socket, large);
            socket.getOutputStream().write(new byte[large - 1]);
            await(service.memory, bytes -> bytes >= large - 1);
            Answer busy = service.send("POST", "forward_backward", new byte[2 << 20]);
            assertEquals(429, busy.status(), busy.text("message"));
            assertEquals("busy", busy.text("error"));
            assertTrue(busy.response().headers().firstValue("Retry-After").isPresent());
            assertEquals(200,
                    service.post("session_heartbeat", "{'session_id': '" + SESSION + "'}").status());
        }
    }

    /// Announces a body, and waits until the server waits for it.
    private static void announce(Socket socket, int length) throws IOException {
        socket.getOutputStream().write(("POST /api/v1/forward_backward HTTP/1.1\r\nHost: x\r\n"
                + "Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: " + length
                + "\r\n\r\n").getBytes(StandardCharsets.US_ASCII));
        socket.getInputStream().readNBytes("HTTP/1.1 100".length());
    }

    @Test void aBodyHoldsOnlyWhatHasArrivedOfIt() throws IOException {
        try (var socket = new Socket("127.0.0.1", service.port())) {
            announce(socket, MEMORY - MEMORY / 8 - 10);
            assertEquals(0, service.memory.taken());
            assertEquals(400, service.send("POST", "forward_backward", new byte[MEMORY / 8 * 3]).status());
        }
    }

    /// Begins to retrieve a result, reads only the beginning of the response, and returns it.
    private static String begin(Socket socket, TestService large, String body, String accept)
            throws IOException {
        socket.setReceiveBufferSize(4096);
        socket.connect(new InetSocketAddress("127.0.0.1", large.port()));
        socket.getOutputStream().write(("POST /api/v1/retrieve_future HTTP/1.1\r\nHost: x\r\nAccept: "
                + accept + "\r\nContent-Type: application/json\r\nContent-Length: " + body.length()
                + "\r\n\r\n" + body).getBytes(StandardCharsets.US_ASCII));
        return new String(socket.getInputStream().readNBytes("HTTP/1.1 200".length()),
                StandardCharsets.US_ASCII);
    }

    /// Waits until the gateway holds as much memory.
    private static void await(RequestMemory memory, LongPredicate taken) {
        while (!taken.test(memory.taken())) LockSupport.parkNanos(1_000_000);
    }

    @Test void aResponseHoldsItsMemoryUntilItIsReadOrItsConnectionIsGone() throws IOException {
        try (var large = new TestService(Accounts.open(), "long-poll = 100 ms, max-bytes-in-work = 64 MiB")) {
            var run = new RunId(large.run(1));
            large.runs.runs.get(run).results.put(1L, new OperationResult.Evaluated(
                    Collections.nCopies(8, new float[1 << 18]), Map.of()));
            String body = "{\"request_id\": \"" + new RequestId(run, 1) + "\"}";
            for (String accept : List.of("application/json", "application/x-protobuf")) {
                var unread = new ArrayList<Socket>();
                Answer answer = large.post("retrieve_future", body, "Accept", accept);
                assertEquals(200, answer.status());
                byte[] whole = answer.bytes();
                await(large.memory, bytes -> bytes == 0);
                String begun;
                do {
                    unread.add(new Socket());
                    begun = begin(unread.getLast(), large, body, accept);
                } while (begun.endsWith("200") && unread.size() < 32);
                assertTrue(begun.endsWith("429"), begun + " after " + unread.size() + " responses");
                answer = large.post("retrieve_future", body, "Accept", accept);
                assertEquals(429, answer.status());
                assertEquals("busy", answer.text("error"));
                assertTrue(answer.response().headers().firstValue("Retry-After").isPresent());
                assertEquals(200, large.post("session_heartbeat", "{'session_id': '" + SESSION + "'}")
                        .status());
                for (Socket socket : unread) socket.close();
                await(large.memory, bytes -> bytes == 0);
                answer = large.post("retrieve_future", body, "Accept", accept);
                assertEquals(200, answer.status());
                assertArrayEquals(whole, answer.bytes());
            }
        }
    }

    @Test void aResponseWhoseConnectionIsGoneBeforeItBeganHoldsNothing() {
        var memory = new RequestMemory(8 << 20);
        var later = new ArrayList<Runnable>();
        var responses = new ResponseMemory(memory, (_, task) -> {
            later.add(task);
            return Cancellable.alreadyCancelled();
        });
        var written = responses.hold(1 << 20).written(new byte[1 << 20]);
        assertEquals(1 << 20, memory.taken());
        later.forEach(Runnable::run);
        assertEquals(0, memory.taken());

        // The connection was only slow: the memory is taken again, or the response ends.
        var materializer = service.kit.system();
        assertEquals(1 << 20, written.runFold(0, (bytes, block) -> bytes + block.size(), materializer)
                .toCompletableFuture().join());
        await(memory, bytes -> bytes == 0);
        RequestMemory.Share others = memory.new Share();
        others.take(7 << 20);
        RequestMemory.Share rest = memory.new Share();
        rest.take(1 << 20);
        assertThrows(CompletionException.class, () -> written.runFold(0, (bytes, block) ->
                bytes + block.size(), materializer).toCompletableFuture().join());
        others.release();
        rest.release();
        assertEquals(0, memory.taken());
    }

    @Test void whatIsMadeForAClientThatIsGoneBeforeItBeganEnds() {
        var later = new ArrayList<Runnable>();
        var responses = new ResponseMemory(new RequestMemory(8 << 20), (_, task) -> {
            later.add(task);
            return Cancellable.alreadyCancelled();
        });
        var ends = new AtomicLong();
        var bytes = responses.ending(Source.single(ByteString.fromString("x")), ends::incrementAndGet);
        assertEquals(0, ends.get());
        later.forEach(Runnable::run);
        assertEquals(1, ends.get());
        bytes.runWith(Sink.ignore(), service.kit.system()).toCompletableFuture().join();
        while (ends.get() < 2) Thread.onSpinWait();
    }

    @Test void aResponseOfAnySizeCanBeHadAlone() {
        var memory = new RequestMemory(8 << 20);
        ResponseMemory.Held held = new ResponseMemory(memory, (_, _) -> Cancellable.alreadyCancelled())
                .hold(1L << 40);
        assertEquals(7 << 20, memory.taken());
        held.release();
        held.release();
        assertEquals(0, memory.taken());
    }

    @Test void aBodyInChunksOfOneByteCountsWhatItTakes() throws IOException {
        try (var socket = new Socket("127.0.0.1", service.port())) {
            socket.getOutputStream().write(("POST /api/v1/forward_backward HTTP/1.1\r\nHost: x\r\n"
                    + "Connection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
                    + "\r\n" + "1\r\n \r\n".repeat(100_000) + "0\r\n\r\n")
                    .getBytes(StandardCharsets.US_ASCII));
            socket.getOutputStream().flush();
            String answer = new String(socket.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
            assertTrue(answer.startsWith("HTTP/1.1 413"), answer);
        }
    }

    @Test void aLargeReplyIsWrittenInBlocksWithTheTextOfTheWhole() {
        float[] values = new float[20_000];
        for (int i = 0; i < values.length; i++) values[i] = -i / 7f;
        Map<String, Object> tensor = ApiResponse.object("data", values, "data_base64", new byte[] {1, 2, 3});
        var fields = ApiResponse.object("type", "forward", "outputs",
                Collections.nCopies(9, tensor).iterator(), "none", null, "empty",
                List.of().iterator());
        var blocks = new ArrayList<ByteString>();
        new JsonBlocks(fields).forEachRemaining(blocks::add);
        assertTrue(blocks.size() > 3, () -> blocks.size() + " blocks");
        byte[] whole = blocks.stream().reduce(ByteString.emptyByteString(), ByteString::concat).toArray();
        fields.put("outputs", Collections.nCopies(9, tensor));
        fields.put("empty", List.of());
        assertEquals(new String(JsonWriter.write(fields), StandardCharsets.UTF_8),
                new String(whole, StandardCharsets.UTF_8));
        assertTrue(new String(whole, StandardCharsets.UTF_8).contains("\"data_base64\":\"AQID\""));
    }
}
