package bios.command;

import bios.CommandFailed;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.List;
import picocli.CommandLine.Option;

/// HTTP client and options of the commands that inspect and manage a running service.
public final class Remote {
    private static final ObjectMapper JSON = new ObjectMapper();

    @Option(names = "--url", defaultValue = "${env:BIOS_BASE_URL:-http://127.0.0.1:8400}",
            description = "The service (default: $BIOS_BASE_URL, else http://127.0.0.1:8400).")
    private String url = "";

    @Option(names = "--key", defaultValue = "${env:BIOS_API_KEY:-}",
            description = "API key (default: $$BIOS_API_KEY).")
    private String key = "";

    @Option(names = "--json", description = "Print the service's JSON.")
    private boolean json;

    /// Whether the user asked for JSON.
    public boolean json() {
        return json;
    }

    /// The JSON response of a path below `/api/v1`; throws [CommandFailed] with the message of the service.
    public JsonNode get(String path) {
        return send("GET", path, "");
    }

    /// The response of a path below `/api/v1` as text.
    String text(String path) {
        try {
            HttpResponse<String> answer = client().send(request(path).build(), BodyHandlers.ofString());
            if (answer.statusCode() / 100 != 2)
                throw refused(answer.statusCode(), JSON.readTree(answer.body()));
            return answer.body();
        } catch (IOException failure) {
            throw unreachable(failure);
        } catch (InterruptedException _) {
            throw new CommandFailed("interrupted");
        }
    }

    /// Sends a request with a JSON body (or none) and returns the JSON response.
    public JsonNode send(String method, String path, String body) {
        HttpRequest request = request(path).header("Content-Type", "application/json")
                .method(method, body.isEmpty() ? BodyPublishers.noBody() : BodyPublishers.ofString(body))
                .build();
        try {
            HttpResponse<String> answer = client().send(request, BodyHandlers.ofString());
            JsonNode content = answer.body().isEmpty()
                    ? JSON.createObjectNode() : JSON.readTree(answer.body());
            if (answer.statusCode() / 100 != 2) throw refused(answer.statusCode(), content);
            return content;
        } catch (IOException failure) {
            throw unreachable(failure);
        } catch (InterruptedException _) {
            throw new CommandFailed("interrupted");
        }
    }

    /// Downloads the gzip response of a path into a file, which is created atomically; returns its size in
    /// bytes.
    public long download(String path, Path file) {
        if (Files.isDirectory(file)) throw new CommandFailed(file + " is a folder; expected a file");
        Path part = file.resolveSibling(file.getFileName() + ".part");
        try {
            Files.deleteIfExists(part);
            Files.createFile(part);
        } catch (IOException failure) {
            throw new CommandFailed("cannot write " + part + ": " + failure);
        }
        try {
            HttpResponse<Path> answer = client().send(request(path).header("Accept",
                    "application/gzip").build(), BodyHandlers.ofFile(part));
            if (answer.statusCode() != 200) {
                JsonNode content = JSON.readTree(Files.readString(part));
                Files.deleteIfExists(part);
                throw refused(answer.statusCode(), content);
            }
            Files.move(part, file, StandardCopyOption.REPLACE_EXISTING);
            return Files.size(file);
        } catch (IOException failure) {
            throw unreachable(failure);
        } catch (InterruptedException _) {
            throw new CommandFailed("interrupted");
        }
    }

    /// Prints a table.
    static void table(List<String> header, List<List<String>> rows) {
        int[] widths = new int[header.size()];
        for (int c = 0; c < widths.length; c++) {
            widths[c] = header.get(c).length();
            for (List<String> row : rows) widths[c] = Math.max(widths[c], row.get(c).length());
        }
        line(header, widths);
        for (List<String> row : rows) line(row, widths);
    }

    private static void line(List<String> cells, int[] widths) {
        StringBuilder text = new StringBuilder();
        for (int c = 0; c < widths.length; c++)
            text.append(cells.get(c)).append(" ".repeat(widths[c] - cells.get(c).length() + 2));
        System.out.println(text.toString().stripTrailing());
    }

    private HttpRequest.Builder request(String path) {
        HttpRequest.Builder request;
        try {
            request = HttpRequest.newBuilder(URI.create(url.replaceAll("/+$", "") + "/api/v1" + path))
                    .timeout(Duration.ofSeconds(60));
        } catch (IllegalArgumentException wrong) {
            throw new CommandFailed("--url " + url + ": " + wrong.getMessage()
                    + "; expected an address such as http://127.0.0.1:8400");
        }
        return key.isEmpty() ? request : request.header("X-API-Key", key);
    }

    private static HttpClient client() {
        return HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1)
                .connectTimeout(Duration.ofSeconds(5)).build();
    }

    private static CommandFailed refused(int status, JsonNode problem) {
        return new CommandFailed(status + " " + problem.path("message").asText(problem.toString()));
    }

    private CommandFailed unreachable(IOException failure) {
        return new CommandFailed("no service answers at " + url + " (" + failure
                + "); start one with 'bios up', or name it with --url");
    }
}
