package bios.coordinator.gateway;

import static bios.coordinator.gateway.TestService.SESSION;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.fleet.EngineDirectory;
import bios.coordinator.gateway.TestClient.Answer;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.run.RunId;
import com.fasterxml.jackson.databind.JsonNode;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.net.Socket;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Stream;
import org.apache.commons.compress.archivers.tar.TarArchiveEntry;
import org.apache.commons.compress.archivers.tar.TarArchiveInputStream;
import org.apache.commons.compress.compressors.gzip.GzipCompressorInputStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/// Archives, downloaded over HTTP and written directly.
class ArchiveTest {
    private static TestService service;
    private static String run;

    @BeforeAll static void start() {
        service = new TestService(Accounts.open(), "");
        run = service.post("create_model",
                "{'session_id': '" + SESSION + "', 'model_seq_id': 1, 'base_model': 'ultrasafe/usf-tiny',"
                + " 'lora_config': {'rank': 8, 'alpha': 16, 'target_modules': ['v_proj', 'q_proj']}}")
                .text("model_id");
        service.post("save_weights", "{'model_id': '" + run
                + "', 'seq_id': 1, 'path': 'a', 'metadata': {'note': 'hi', 'n': [1," + " 2]}}");
    }

    @AfterAll static void stop() {
        service.close();
    }

    private static Map<String, byte[]> members(byte[] archive) throws IOException {
        var members = new LinkedHashMap<String, byte[]>();
        try (var tar = new TarArchiveInputStream(
                new GzipCompressorInputStream(new ByteArrayInputStream(archive)))) {
            for (TarArchiveEntry entry = tar.getNextEntry(); entry != null; entry = tar.getNextEntry()) {
                assertTrue(entry.isFile() && !entry.isLink() && !entry.isSymbolicLink(), entry.getName());
                assertFalse(entry.getName().startsWith("/") || entry.getName().contains(".."),
                        entry.getName());
                assertEquals(0, entry.getLastModifiedTime().toMillis());
                assertEquals(0, entry.getLongUserId());
                members.put(entry.getName(), tar.readAllBytes());
            }
        }
        return members;
    }

    private static Answer download(String... headers) {
        List<String> all = new ArrayList<>(List.of("Accept", "application/gzip"));
        all.addAll(List.of(headers));
        return service.get("training_runs/" + run + "/checkpoints/weights/a/archive",
                all.toArray(String[]::new));
    }

    private static final PublicUrl NOWHERE = new PublicUrl(Optional.empty(), "127.0.0.1", () -> 0);

    @Test void theArchiveIsTheSameBytesEachTimeAndHoldsWhatPeftNeeds() throws IOException {
        Answer first = download();
        assertEquals(200, first.status());
        assertEquals("application/gzip", first.response().headers().firstValue("Content-Type").orElseThrow());
        assertArrayEquals(first.bytes(), download().bytes());
        Map<String, byte[]> members = members(first.bytes());
        assertEquals(List.of("adapter/adapter_config.json", "adapter/adapter_model.safetensors",
                "metadata.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"),
                List.copyOf(members.keySet()));
        assertArrayEquals(service.blobs.readSmall(service.runs.runs.get(new RunId(run)).checkpoints
                .getFirst().adapter(), 1 << 30), members.get("adapter/adapter_model.safetensors"));
        JsonNode config = TestService.MAPPER.readTree(members.get("adapter/adapter_config.json"));
        assertEquals("LORA", config.get("peft_type").asText());
        assertEquals("ultrasafe/usf-tiny", config.get("base_model_name_or_path").asText());
        assertEquals("[\"q_proj\",\"v_proj\"]", config.get("target_modules").toString());
        assertEquals("16", config.get("lora_alpha").toString());
        // The fields of peft.LoraConfig; PEFT refuses other fields or warns.
        assertTrue(Set.of("base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode",
                "init_lora_weights", "lora_alpha", "lora_dropout", "peft_type", "r", "target_modules",
                "task_type", "use_dora", "use_rslora").containsAll(names(config)));
        JsonNode metadata = TestService.MAPPER.readTree(members.get("metadata.json"));
        assertEquals(new TreeSet<>(Set.of("format_version", "path", "kind", "base_model", "lora", "step",
                "created_at", "parent_path", "hyperparameters", "user_metadata")), names(metadata));
        assertEquals("ultrasafe/usf-tiny", metadata.get("base_model").get("logical").asText());
        assertEquals("{\"note\":\"hi\",\"n\":[1,2]}", metadata.get("user_metadata").toString());
        assertEquals("training", metadata.get("kind").asText());
        assertEquals("bios://" + run + "/a", metadata.get("path").asText());
    }

    private static TreeSet<String> names(JsonNode node) {
        var names = new TreeSet<String>();
        node.fieldNames().forEachRemaining(names::add);
        return names;
    }

    /// The cookbook's tools merge the output head by this name, also into an embedding that is tied to it.
    @Test void tinkersLayoutCallsTheOutputHeadByTinkersName() throws IOException {
        String names = "{\"base_model.model.lm_head.lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[1,2],"
                + "\"data_offsets\":[0,8]},\"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight\":"
                + "{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[8,12]}} ";
        byte[] header = names.getBytes(StandardCharsets.UTF_8);
        byte[] data = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
        byte[] file = ByteBuffer.allocate(8 + header.length + data.length).order(ByteOrder.LITTLE_ENDIAN)
                .putLong(header.length).put(header).put(data).array();
        Archive.Member renamed = TinkerAdapter.of(Archive.Member.of(file));
        byte[] found = renamed.open().get().readAllBytes();
        assertEquals(renamed.bytes(), found.length);
        int length = (int) ByteBuffer.wrap(found).order(ByteOrder.LITTLE_ENDIAN).getLong();
        assertEquals(0, length % 8);
        var read = TestService.MAPPER.readTree(Arrays.copyOfRange(found, 8, 8 + length));
        assertEquals(Set.of("base_model.model.model.unembed_tokens.lora_A.weight",
                "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"), names(read));
        assertArrayEquals(data, Arrays.copyOfRange(found, 8 + length, found.length));
        for (byte[] other : List.of(new byte[3], new byte[20], "no tensors at all".getBytes(
                StandardCharsets.UTF_8))) {
            Archive.Member same = Archive.Member.of(other);
            assertEquals(same, TinkerAdapter.of(same));
        }
    }

    @Test void theSignedUrlServesTinkersLayoutWithoutAKeyAndNothingElse() throws IOException {
        Answer link = service.get("training_runs/" + run + "/checkpoints/weights%2Fa/archive");
        URI url = URI.create(link.text("url"));
        assertTrue(link.text("expires").endsWith("Z"));
        assertEquals(service.uri("").getAuthority(), url.getAuthority());
        Answer archive = service.get(url.getRawPath() + "?" + url.getRawQuery());
        assertEquals(List.of("adapter_config.json", "adapter_model.safetensors", "checkpoint_complete"),
                List.copyOf(members(archive.bytes()).keySet()));
        String token = url.getRawQuery();
        assertEquals(404,
                service.get(url.getRawPath() + "?" + token.substring(0, token.length() - 2) + "AA").status());
        assertEquals(404, service.get(url.getRawPath().replace("/weights/", "/sampler_weights/") + "?"
                + token).status());
    }

    /// Until 0.22.1 the SDK asks for the archive itself, and insists on the URL in a redirect.
    @Test void tinkersClientIsRedirectedToTheSignedUrl() throws IOException {
        service.agent = "AsyncTinker/Python 0.18.2";
        Answer redirect;
        try {
            redirect = download();
        } finally {
            service.agent = "test";
        }
        assertEquals(302, redirect.status());
        assertEquals(0, redirect.bytes().length);
        assertTrue(redirect.response().headers().firstValue("Expires").orElseThrow().endsWith(" GMT"));
        URI url = URI.create(redirect.response().headers().firstValue("Location").orElseThrow());
        assertEquals(service.uri("").getAuthority(), url.getAuthority());
        assertEquals(List.of("adapter_config.json", "adapter_model.safetensors", "checkpoint_complete"),
                List.copyOf(members(service.get(url.getRawPath() + "?" + url.getRawQuery()).bytes())
                        .keySet()));
    }

    @Test void theRestOfADownloadIsTheRestOfItsBytes() {
        Answer whole = download();
        String tag = whole.response().headers().firstValue("ETag").orElseThrow();
        assertEquals("bytes", whole.response().headers().firstValue("Accept-Ranges").orElseThrow());
        for (int from : new int[] {0, 1, 100, whole.bytes().length - 1}) {
            Answer rest = download("Range", "bytes=" + from + "-", "If-Range", tag);
            assertEquals(206, rest.status());
            assertEquals("bytes " + from + "-" + (whole.bytes().length - 1) + "/" + whole.bytes().length,
                    rest.response().headers().firstValue("Content-Range").orElseThrow());
            assertArrayEquals(Arrays.copyOfRange(whole.bytes(), from, whole.bytes().length), rest.bytes());
        }
        for (String other : List.of("bytes=" + whole.bytes().length + "-", "bytes=0-5", "bytes=-5"))
            assertArrayEquals(whole.bytes(), download("Range", other).bytes(), other);
        Answer changed = download("Range", "bytes=5-", "If-Range", "\"other\"");
        assertEquals(200, changed.status());
        assertArrayEquals(whole.bytes(), changed.bytes());
    }

    /// Every endpoint whose answer has a signed URL.
    private static List<String> requestsOfUrls() {
        String checkpoint = "GET /api/v1/training_runs/" + run + "/checkpoints/weights/a";
        String upload = "{\"base_model\": \"ultrasafe/usf-tiny\"}";
        return Stream.concat(Stream.of(checkpoint + "/archive", checkpoint + "/external_weights_urls",
                "GET /api/v1/sessions/" + SESSION + "/trace_export").map(start -> start
                        + " HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"),
                Stream.of("POST /api/v1/external_weights_upload_start HTTP/1.1\r\nHost: %s\r\n"
                        + "Content-Type: application/json\r\nContent-Length: " + upload.length()
                        + "\r\nConnection: close\r\n\r\n" + upload)).toList();
    }

    private static String answered(String request) throws IOException {
        try (var socket = new Socket("127.0.0.1", service.port())) {
            socket.getOutputStream().write(request.getBytes(StandardCharsets.US_ASCII));
            return new String(socket.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        }
    }

    @Test void aForgedHostIsInNoUrl() throws IOException {
        for (String request : requestsOfUrls()) {
            String root = "http://127.0.0.1:" + service.port();
            assertTrue(answered(request.formatted(root.substring(7))).contains("\"" + root + "/api/v1/"),
                    request);
            for (String forged : List.of("evil.example", "evil.example:" + service.port(),
                    "localhost@evil.example", "localhost.evil.example", "localhost/../..",
                    "192.0.2.1:" + service.port())) {
                String answer = answered(request.formatted(forged + "\r\nX-Forwarded-Host: evil.example"
                        + "\r\nForwarded: host=evil.example"));
                assertFalse(answer.contains("http://" + forged), answer);
                assertFalse(answer.contains("evil"), answer);
            }
        }
    }

    @Test void urlsHaveTheConfiguredRootOrOneOfThisMachine() {
        var none = new PublicUrl(Optional.empty(), "0.0.0.0", () -> 8400);
        assertEquals("http://localhost:9000", none.root("localhost:9000"));
        assertEquals("http://127.0.0.1:8400", none.root("127.0.0.1:8400"));
        assertEquals("http://[::1]:8400", none.root("[::1]:8400"));
        assertEquals("", none.root("bios.example.org:8400"));
        assertEquals("", none.root(""));
        var named = new PublicUrl(Optional.empty(), "bios.example.org", () -> 8400);
        assertEquals("http://bios.example.org:8400", named.root("bios.example.org:8400"));
        assertEquals("", named.root("bios.example.org:1"));
        assertEquals("https://a.example/b",
                new PublicUrl(Optional.of("https://a.example/b/"), "x", () -> 1).root("evil.example"));
    }

    @Test void tokensExpireAndBelongToOneAccount() {
        var urls = new SignedUrls(new byte[] {1, 2, 3}, NOWHERE);
        String token = urls.sign("run/weights/a", "someone.else", 1000);
        assertEquals(Optional.of("someone.else"), urls.verify("run/weights/a", token, 1000));
        assertEquals(Optional.empty(), urls.verify("run/weights/a", token, 1001));
        assertEquals(Optional.empty(), urls.verify("run/weights/b", token, 500));
        assertEquals(Optional.empty(), new SignedUrls(new byte[] {4}, NOWHERE)
                .verify("run/weights/a", token, 500));
        assertEquals(Optional.empty(), urls.verify("run/weights/a", token.replace(".1000.", ".9999."), 500));
    }

    @Test void aMissingBlobIsAnErrorAndNotATruncatedArchive() {
        String other = service.run(2);
        service.post("save_weights", "{'model_id': '" + other + "', 'seq_id': 1, 'path': 'a'}");
        service.blobs.list(BlobScope.checkpoints(new RunId(other), 0))
                .forEach(blob -> service.blobs.delete(blob.ref().id()));
        Answer answer = service.get("training_runs/" + other + "/checkpoints/weights/a/archive", "Accept",
                "application/gzip");
        assertEquals(500, answer.status());
        assertEquals("blob_missing", answer.text("error"));
    }

    @Test void aDamagedBlobIsAnErrorAndNotATruncatedArchive() {
        String other = service.run(3);
        service.post("save_weights", "{'model_id': '" + other + "', 'seq_id': 1, 'path': 'a'}");
        var blob = service.runs.runs.get(new RunId(other)).checkpoints.getFirst().adapter();
        byte[] whole = service.blobs.readSmall(blob, 1 << 30);
        byte[] damaged = whole.clone();
        damaged[damaged.length - 1] ^= 1;
        service.blobs.blobs.put(blob.id(), damaged);
        String archive = "training_runs/" + other + "/checkpoints/weights/a/archive";
        try {
            Answer answer = service.get(archive, "Accept", "application/gzip");
            assertEquals(500, answer.status());
            assertEquals("blob_damaged", answer.text("error"));
            assertTrue(answer.text("message").contains(blob.id().sha256()), answer.text("message"));
        } finally {
            service.blobs.blobs.put(blob.id(), whole);
        }
        assertEquals(200, service.get(archive, "Accept", "application/gzip").status());
    }

    @Test void aModelWithoutATokenizerHasAnArchiveWithoutOne() throws IOException {
        service.withoutTokenizer = true;
        try {
            Answer answer = download();
            assertEquals(200, answer.status());
            assertEquals(List.of("adapter/adapter_config.json", "adapter/adapter_model.safetensors",
                    "metadata.json"),
                    List.copyOf(members(answer.bytes()).keySet()));
        } finally {
            service.withoutTokenizer = false;
        }
    }

    @Test void theTokenizerNeedsAWorker() {
        EngineDirectory all = service.directory.get();
        service.directory.set(all.withOnlyEngines(List.of()));
        try {
            Answer answer = download();
            assertEquals(503, answer.status());
            assertEquals("no_worker", answer.text("error"));
            assertEquals(503, service.post("create_model", "{'session_id': '" + SESSION
                    + "', 'model_seq_id': 9, 'base_model': 'ultrasafe/usf-tiny'}").status());
            assertEquals(0, service.get("get_server_capabilities").json().get("supported_models").size());
            assertEquals(200,
                    service.post("optim_step", "{'model_id': '" + run + "', 'seq_id': 50}").status());
        } finally {
            service.directory.set(all);
        }
    }

    @Test void aTokenizerCannotPutFilesElsewhere() {
        var manifest = service.runs.runs.get(new RunId(run)).checkpoints.getFirst();
        for (String name : new ArrayList<>(List.of("../x", "a/b", "", ".hidden", "/etc/passwd")))
            assertThrows(IllegalArgumentException.class, () -> Archive.inBiosFormat(manifest,
                    Archive.Member.of(new byte[0]), Map.of(name, new byte[0])), name);
    }
}
