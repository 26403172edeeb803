package bios.coordinator.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;

/// An HTTP client of a gateway on this machine.
abstract class TestClient {
    static final ObjectMapper MAPPER = new ObjectMapper();

    private final HttpClient client = HttpClient.newHttpClient();
    String key = "";
    String agent = "test";

    /// The port of the gateway.
    abstract int port();

    /// An HTTP response.
    record Answer(int status, JsonNode json, byte[] bytes, HttpResponse<byte[]> response) {
        String text(String field) {
            return json.path(field).asText(null);
        }
    }

    /// Parses JSON in which single quotes are used instead of double quotes.
    static JsonNode json(String text) {
        try {
            return MAPPER.readTree(text.replace('\'', '"'));
        } catch (IOException wrong) {
            throw new IllegalStateException(wrong);
        }
    }

    URI uri(String path) {
        return URI.create("http://127.0.0.1:" + port() + (path.startsWith("/")
                ? path : "/api/v1/" + path));
    }

    Answer send(HttpRequest.Builder request) {
        if (!key.isEmpty()) request.header("X-API-Key", key);
        request.header("User-Agent", agent);
        try {
            HttpResponse<byte[]> response = client.send(request.build(),
                    HttpResponse.BodyHandlers.ofByteArray());
            boolean json = response.headers().firstValue("content-type").orElse("")
                    .startsWith("application/json");
            return new Answer(response.statusCode(),
                    json ? MAPPER.readTree(response.body()) : MAPPER.nullNode(), response.body(), response);
        } catch (IOException | InterruptedException failed) {
            throw new IllegalStateException(failed);
        }
    }

    Answer get(String path, String... headers) {
        HttpRequest.Builder request = HttpRequest.newBuilder(uri(path));
        if (headers.length > 0) request.headers(headers);
        return send(request);
    }

    /// Sends JSON in which single quotes are used instead of double quotes.
    Answer post(String path, String body, String... headers) {
        return send("POST", path, body.replace('\'', '"').getBytes(StandardCharsets.UTF_8), headers);
    }

    Answer send(String method, String path, byte[] body, String... headers) {
        HttpRequest.Builder request = HttpRequest.newBuilder(uri(path))
                .method(method, HttpRequest.BodyPublishers.ofByteArray(body))
                .header("Content-Type", "application/json");
        if (headers.length > 0) request.headers(headers);
        return send(request);
    }

    /// The result of a future.
    Answer result(Answer future, String... headers) {
        return post("retrieve_future", "{'request_id': '" + future.text("request_id") + "'}", headers);
    }

    void closeClient() {
        client.close();
    }
}
