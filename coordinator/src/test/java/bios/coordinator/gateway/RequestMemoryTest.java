package bios.coordinator.gateway;

import static bios.coordinator.gateway.TestService.SESSION;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.TestClient.Answer;
import java.io.IOException;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
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
        int large = MEMORY - MEMORY / 8 - 10;
        try (var socket = new Socket("127.0.0.1", service.port())) {
            socket.getOutputStream().write(("POST /api/v1/forward_backward HTTP/1.1\r\nHost: x\r\n"
                    + "Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: " + large
                    + "\r\n\r\n").getBytes(StandardCharsets.US_ASCII));
            socket.getInputStream().readNBytes("HTTP/1.1 100".length()); // the server waits for the body
            Answer busy = service.send("POST", "forward_backward", new byte[2 << 20]);
            assertEquals(429, busy.status(), busy.text("message"));
            assertEquals("busy", busy.text("error"));
            assertTrue(busy.response().headers().firstValue("Retry-After").isPresent());
            assertEquals(200,
                    service.post("session_heartbeat", "{'session_id': '" + SESSION + "'}").status());
        }
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
