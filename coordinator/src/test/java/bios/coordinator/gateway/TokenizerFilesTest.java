package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.TestClient.Answer;
import java.net.http.HttpRequest;
import java.util.List;
import org.junit.jupiter.api.Test;

/// Tokenizer files, as clients of the Hugging Face Hub ask for them.
class TokenizerFilesTest {
    private static Answer head(TestService service, String path) {
        return service.send(HttpRequest.newBuilder(service.uri(path))
                .method("HEAD", HttpRequest.BodyPublishers.noBody()));
    }

    private static String header(Answer answer, String name) {
        return answer.response().headers().firstValue(name).orElse("");
    }

    @Test void aTokenizerIsFoundAsOnTheHub() {
        try (var service = new TestService(Accounts.open(), "long-poll = 100 ms")) {
            String root = "/ultrasafe/usf-tiny/resolve/main/";
            Answer head = service.get(root + "tokenizer.json");
            assertEquals("{}", new String(head.bytes()));
            Answer described = head(service, root + "tokenizer.json");
            assertEquals(200, described.status());
            assertEquals("2", header(described, "content-length"));
            assertTrue(header(described, "etag").matches("\"[0-9a-f]{40}\""), header(described, "etag"));
            assertTrue(header(described, "x-repo-commit").matches("[0-9a-f]{40}"));
            assertEquals(header(head, "etag"), header(described, "etag"));
            assertArrayEquals(new byte[0], service.get("/ultrasafe/usf-tiny/resolve/"
                    + header(described, "x-repo-commit") + "/tokenizer_config.json").bytes());
            Answer missing = head(service, root + "config.json");
            assertEquals(404, missing.status());
            assertEquals("EntryNotFound", header(missing, "x-error-code"));
            assertEquals("RepoNotFound",
                    header(head(service, "/ultrasafe/other/resolve/main/config.json"), "x-error-code"));
            Answer injected = head(service,
                    "/ultrasafe/other%0d%0aSet-Cookie:%20a=b/resolve/main/config.json");
            assertEquals(404, injected.status());
            assertEquals("", header(injected, "set-cookie"));
            Answer info = service.get("/api/models/ultrasafe/usf-tiny");
            assertEquals("ultrasafe/usf-tiny", info.text("id"));
            assertEquals(header(described, "x-repo-commit"), info.text("sha"));
            assertEquals(2, info.json().get("siblings").size());
            assertEquals(2, service.get("/api/models/ultrasafe/usf-tiny/tree/main").json().size());
            assertEquals(404, service.get("/api/models/ultrasafe/usf-tiny/tree/main/templates").status());
            assertEquals("ultrasafe/usf-tiny",
                    service.get("/api/models/ultrasafe/usf-tiny/revision/main").text("id"));
            assertEquals("ultrasafe/usf-tiny", service.get("get_server_capabilities").json()
                    .get("supported_models").get(0).get("tokenizer_id").asText());
            service.withoutTokenizer = true;
            assertEquals(200, head(service, root + "tokenizer.json").status());
        }
    }

    @Test void aServiceWithKeysNeedsOneForItsTokenizers() {
        var accounts = Accounts.fromLines("keys", List.of("alice tml-alice-key"));
        try (var service = new TestService(accounts, "long-poll = 100 ms")) {
            String file = "/ultrasafe/usf-tiny/resolve/main/tokenizer.json";
            assertEquals(401, service.get(file).status());
            assertEquals(401, service.get(file, "Authorization", "Bearer tml-other-key").status());
            assertEquals(200, service.get(file, "Authorization", "Bearer tml-alice-key").status());
            assertEquals(200, service.get(file, "X-API-Key", "tml-alice-key").status());
        }
    }

    @Test void aModelWithoutTokenizerIsNotFound() {
        try (var service = new TestService(Accounts.open(), "long-poll = 100 ms")) {
            service.withoutTokenizer = true;
            assertEquals(404, service.get("/ultrasafe/usf-tiny/resolve/main/tokenizer.json").status());
        }
    }
}
