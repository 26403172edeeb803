package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.Wait;
import bios.coordinator.gateway.TestClient.Answer;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.net.URI;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Adapters that were made elsewhere come in over HTTP; runs, sessions and stores are real.
class UploadsTest {
    private static final Accounts ACCOUNTS =
            Accounts.fromLines("keys", List.of("alice tml-alice-key", "bob tml-bob-key"));
    private static final String PREFIX = "base_model.model.model.layers.";
    private static final int HIDDEN = 16;

    @TempDir private static Path folder;
    private static RealService service;

    @BeforeAll static void start() {
        service = new RealService(folder, ACCOUNTS, "long-poll = 20 s, archive-url-secret = secret,"
                + " max-upload-bytes = 1 MiB, max-uploads = 100");
        as("alice");
    }

    @AfterAll static void stop() {
        service.close();
    }

    private static void as(String account) {
        service.key = "tml-" + account + "-key";
    }

    private static String text(Answer answer) {
        return answer.status() + " " + new String(answer.bytes(), StandardCharsets.UTF_8);
    }

    /// The tensors of an adapter of rank 4 on q_proj and down_proj.
    private static Map<String, int[]> tensors() {
        var all = new LinkedHashMap<String, int[]>();
        for (int layer = 0; layer < 2; layer++) {
            all.put(PREFIX + layer + ".self_attn.q_proj.lora_A.weight", new int[] {4, HIDDEN});
            all.put(PREFIX + layer + ".self_attn.q_proj.lora_B.weight", new int[] {32, 4});
            all.put(PREFIX + layer + ".mlp.down_proj.lora_A.weight", new int[] {4, 40});
            all.put(PREFIX + layer + ".mlp.down_proj.lora_B.weight", new int[] {HIDDEN, 4});
        }
        return all;
    }

    private static byte[] safetensors(Map<String, int[]> tensors, String dtype) {
        ObjectNode header = TestClient.MAPPER.createObjectNode();
        int at = 0;
        for (var tensor : tensors.entrySet()) {
            int bytes = 4 * tensor.getValue()[0] * tensor.getValue()[1];
            ObjectNode one = header.putObject(tensor.getKey()).put("dtype", dtype);
            one.putArray("shape").add(tensor.getValue()[0]).add(tensor.getValue()[1]);
            one.putArray("data_offsets").add(at).add(at + bytes);
            at += bytes;
        }
        byte[] json = header.toString().getBytes(StandardCharsets.UTF_8);
        return ByteBuffer.allocate(8 + json.length + at).order(ByteOrder.LITTLE_ENDIAN).putLong(json.length)
                .put(json).array();
    }

    private static ObjectNode config() {
        return (ObjectNode) TestClient.json("{'peft_type': 'LORA', 'r': 4, 'lora_alpha': 8, 'bias': 'none',"
                + " 'base_model_name_or_path': '/home/me/models/tiny', 'target_modules':"
                + " ['down_proj', 'q_proj'], 'use_dora': false, 'modules_to_save': null, 'rank_pattern': {},"
                + " 'init_lora_weights': true, 'lora_dropout': 0.05, 'a_field_of_a_newer_peft': [1]}");
    }

    private static JsonNode begun(String more) {
        Answer answer = service.post("external_weights_upload_start",
                "{'base_model': 'ultrasafe/usf-tiny'" + more + "}");
        assertEquals(200, answer.status(), () -> text(answer));
        return answer.json();
    }

    private static Answer put(JsonNode upload, String file, byte[] content) {
        JsonNode url = upload.path("urls").path(file);
        String key = service.key;
        service.key = "";
        try {
            return service.send(HttpRequest.newBuilder(service.uri(URI.create(
                    (url.isTextual() ? url : url.path("url")).asText()).toString()
                    .replaceFirst("^https?://[^/]*", ""))).PUT(BodyPublishers.ofByteArray(content))
                    .header("Content-Type", "application/octet-stream"));
        } finally {
            service.key = key;
        }
    }

    private static Answer finish(JsonNode upload) {
        return service.post("external_weights_upload_finish",
                "{'upload_id': '" + upload.path("upload_id").asText() + "'}");
    }

    private static JsonNode uploaded(String more, JsonNode config, byte[] weights) {
        JsonNode upload = begun(more);
        Answer first = put(upload, Uploads.CONFIG, config.toString().getBytes(StandardCharsets.UTF_8));
        assertEquals(200, first.status(), () -> text(first));
        Answer second = put(upload, Uploads.WEIGHTS, weights);
        assertEquals(200, second.status(), () -> text(second));
        assertEquals(weights.length, second.json().path("size_bytes").asInt());
        return upload;
    }

    @Test void anUploadBecomesSamplerWeightsThatAreListedAndCanBeSampledAndLoaded() {
        JsonNode upload = uploaded(", 'name': 'mine', 'ttl_seconds': 5000, 'user_metadata': {'from': 'peft'},"
                + " 'destination_project_id': 'p', 'lora_config': {'rank': 4, 'train_unembed': true}",
                config(), safetensors(tensors(), "F32"));
        Answer finished = finish(upload);
        assertEquals(200, finished.status(), () -> text(finished));
        String path = finished.text("tinker_path");
        assertTrue(path.matches("tinker://usf-tiny-[0-9a-f]+/sampler_weights/mine"), path);
        assertEquals(4, finished.json().path("lora_rank").asInt());
        // A repetition has the same answer, and its files are gone.
        assertEquals(path, finish(upload).text("tinker_path"));
        assertEquals(2, service.blobs("uploads").stream().filter(blob -> blob.ref().id().scope()
                .contains(upload.path("upload_id").asText())).count());

        JsonNode info = service.post("weights_info", "{'tinker_path': '" + path + "'}").json();
        assertEquals("[4,8.0]", "[" + info.path("lora_rank") + "," + info.path("lora_alpha") + "]");
        assertEquals("[\"q_proj\",\"down_proj\"]", info.path("target_modules").toString());
        String run = path.substring(9, path.indexOf("/sampler"));
        JsonNode listed = service.get("training_runs/" + run + "/checkpoints").json().path("checkpoints");
        assertEquals("sampler_weights/mine", listed.path(0).path("checkpoint_id").asText());
        assertTrue(Instant.parse(listed.path(0).path("expires_at").asText())
                .isAfter(Instant.now().plusSeconds(4000)));
        JsonNode shown = service.get("training_runs/" + run).json();
        assertEquals("peft", shown.path("user_metadata").path("from").asText());
        assertEquals("p", shown.path("project_id").asText());

        String session = service.post("create_session", "{}").text("session_id");
        Answer sampler = service.post("create_sampling_session", "{'session_id': '" + session
                + "', 'sampling_session_seq_id': 1, 'model_path': '" + path + "'}");
        assertEquals(200, sampler.status(), () -> text(sampler));
        Answer loaded = service.post("load_weights", "{'session_id': '" + session
                + "', 'model_seq_id': 2, 'optimizer': false, 'path': '" + path + "'}");
        assertEquals(200, loaded.status(), () -> text(loaded));
        JsonNode result = service.result(loaded).json();
        assertEquals("load_weights", result.path("type").asText(), result::toString);
        assertEquals(4, service.post("get_info", "{'model_id': '" + loaded.text("model_id") + "'}").json()
                .path("lora_rank").asInt());
        // The same session and number are the same run; with the optimizer there is nothing to load.
        assertEquals(loaded.text("model_id"), service.post("load_weights", "{'session_id': '" + session
                + "', 'model_seq_id': 2, 'optimizer': false, 'path': '" + path + "'}").text("model_id"));
        assertEquals("weights_only", service.post("load_weights", "{'session_id': '" + session
                + "', 'model_seq_id': 3, 'path': '" + path + "'}").text("error"));
        assertEquals("base_model", service.post("load_weights", "{'session_id': '" + session
                + "', 'model_seq_id': 4, 'optimizer': false, 'base_model': 'a/b', 'path': '" + path
                + "'}").text("field"));
        assertEquals("model_id", service.post("load_weights", "{'path': '" + path + "'}").text("field"));
    }

    /// Files that are refused, and what the refusal has to name.
    private static void refused(String field, String said, Consumer<ObjectNode> config,
            Consumer<Map<String, int[]>> tensors, String dtype) {
        ObjectNode changed = config();
        config.accept(changed);
        Map<String, int[]> weights = tensors();
        tensors.accept(weights);
        Answer answer = finish(uploaded("", changed, safetensors(weights, dtype)));
        assertEquals(400, answer.status(), () -> text(answer));
        assertEquals(field, answer.text("field"), () -> text(answer));
        assertTrue(answer.text("message").contains(said), () -> text(answer));
    }

    private static void refusedConfig(String name, String value) {
        refused(Uploads.CONFIG + "." + name, "", config -> config.set(name, TestClient.json(value)), _ -> { },
                "F32");
    }

    @Test void whatIsNoAdapterOfTheModelIsRefusedByItsField() {
        refusedConfig("r", "0");
        refusedConfig("r", "257");
        refusedConfig("r", "'4'");
        refusedConfig("lora_alpha", "0");
        refusedConfig("lora_alpha", "null");
        refusedConfig("lora_alpha", "1e40");
        refusedConfig("lora_alpha", "1e-50");
        refusedConfig("use_rslora", "'yes'");
        refusedConfig("peft_type", "'IA3'");
        refusedConfig("use_dora", "true");
        refusedConfig("bias", "'all'");
        refusedConfig("modules_to_save", "['embed_tokens']");
        refusedConfig("rank_pattern", "{'q_proj': 8}");
        refusedConfig("layers_to_transform", "[0]");
        refusedConfig("init_lora_weights", "'pissa'");
        refusedConfig("target_modules", "['q_proj', 'v_proj']");
        String weights = Uploads.WEIGHTS;
        refused(weights, "lacks lora_B of mlp.down_proj in layer 1", _ -> { },
                all -> all.remove(PREFIX + "1.mlp.down_proj.lora_B.weight"), "F32");
        refused(weights, "[4, 16]", _ -> { },
                all -> all.put(PREFIX + "0.self_attn.q_proj.lora_A.weight", new int[] {4, 17}), "F32");
        refused(weights, "r = 5", config -> config.put("r", 5), _ -> { }, "F32");
        refused(weights, "layer", _ -> { },
                all -> all.put(PREFIX + "2.mlp.down_proj.lora_A.weight", new int[] {4, 40}), "F32");
        refused(weights, "embed_tokens", _ -> { },
                all -> all.put("base_model.model.model.embed_tokens.weight", new int[] {100, 16}), "F32");
        refused(weights, "twice", _ -> { }, all -> {
            all.put("base_model.model.lm_head.lora_A.weight", new int[] {4, 16});
            all.put("base_model.model.model.unembed_tokens.lora_A.weight", new int[] {4, 16});
        }, "F32");
        refused(weights, "I32", _ -> { }, _ -> { }, "I32");
        refused(weights, "no tensors", _ -> { }, Map::clear, "F32");
    }

    @Test void filesThatAreNoneAreRefusedAndLargeOnesAreNotStored() {
        JsonNode upload = begun("");
        Answer missing = finish(upload);
        assertEquals(Uploads.CONFIG, missing.text("field"), () -> text(missing));
        put(upload, Uploads.CONFIG, "[".repeat(10_000).getBytes(StandardCharsets.UTF_8));
        put(upload, Uploads.WEIGHTS, new byte[0]);
        assertEquals(Uploads.CONFIG, finish(upload).text("field"));
        put(upload, Uploads.CONFIG, config().toString().getBytes(StandardCharsets.UTF_8));
        for (byte[] file : List.of(new byte[0], new byte[] {1, 2, 3}, "x".repeat(400)
                .getBytes(StandardCharsets.UTF_8), ByteBuffer.allocate(16).order(ByteOrder.LITTLE_ENDIAN)
                .putLong(8).array(), ByteBuffer.allocate(16).putLong(-1).array())) {
            put(upload, Uploads.WEIGHTS, file);
            Answer answer = finish(upload);
            assertEquals(400, answer.status(), () -> text(answer));
            assertEquals(Uploads.WEIGHTS, answer.text("field"), () -> text(answer));
        }
        assertEquals(413, put(upload, Uploads.WEIGHTS, new byte[(1 << 20) + 1]).status());
        assertEquals(200, put(upload, Uploads.WEIGHTS, safetensors(tensors(), "BF16")).status());
        // No run was made for any of these.
        assertFalse(service.get("training_runs?limit=1000").json().toString()
                .contains(upload.path("upload_id").asText().substring(14)));
        Answer other = service.post("external_weights_upload_start", "{'base_model': 'a/b'}");
        assertEquals("base_model", other.text("field"), () -> text(other));
        refused(Uploads.CONFIG + ".r", "rank = 8", _ -> { }, _ -> { }, "F32", ", 'lora_config': {'rank': 8}");
    }

    private static void refused(String field, String said, Consumer<ObjectNode> config,
            Consumer<Map<String, int[]>> tensors, String dtype, String more) {
        ObjectNode changed = config();
        config.accept(changed);
        Map<String, int[]> weights = tensors();
        tensors.accept(weights);
        Answer answer = finish(uploaded(more, changed, safetensors(weights, dtype)));
        assertEquals(field, answer.text("field"), () -> text(answer));
        assertTrue(answer.text("message").contains(said), () -> text(answer));
    }

    /// What the adapter itself says is not asked of the caller, whatever its type and size; it is not stored.
    @Test void whatIsIgnoredOfALoraConfigIsNotStored() {
        for (String ignored : List.of("'alpha': {'x': 1}", "'target_modules': ['" + "q".repeat(1 << 20)
                + "']")) {
            JsonNode upload = uploaded(", 'lora_config': {'rank': 4, " + ignored + "}", config(),
                    safetensors(tensors(), "F32"));
            Answer finished = finish(upload);
            assertEquals(200, finished.status(), () -> text(finished));
        }
    }

    /// What cannot be read again is not begun.
    @Test void anUploadThatIsStartedCanBeFinished(@TempDir Path other) {
        try (var large = new RealService(other, ACCOUNTS, "archive-url-secret = secret,"
                + " max-metadata-bytes = 4 MiB")) {
            large.key = service.key;
            Answer refused = large.post("external_weights_upload_start", "{'base_model':"
                    + " 'ultrasafe/usf-tiny', 'user_metadata': {'x': '" + "y".repeat(1 << 20) + "'}}");
            assertEquals(400, refused.status(), () -> text(refused));
            assertEquals("user_metadata", refused.text("field"));
        }
    }

    @Test void anUploadThatAnEngineRefusesLeavesNothingThatIsListed() {
        JsonNode runs = service.get("training_runs?limit=1000").json();
        JsonNode sessions = service.get("sessions?limit=1000").json();
        JsonNode upload = uploaded(", 'name': '" + ScriptedEngine.REFUSED_UPLOAD + "'", config(),
                safetensors(tensors(), "F32"));
        Answer refused = finish(upload);
        assertEquals("a scripted failure", refused.text("message").replaceFirst(".*: ", ""), () ->
                text(refused));
        assertEquals("conflict", finish(upload).text("error"));
        Wait.until(() -> service.get("training_runs?limit=1000").json().equals(runs), () ->
                text(service.get("training_runs?limit=1000")));
        assertEquals(sessions, service.get("sessions?limit=1000").json());
    }

    @Test void linksAndUploadsOfAnotherAccountAreWorthNothing() {
        JsonNode upload = uploaded("", config(), safetensors(tensors(), "F32"));
        as("bob");
        assertEquals(404, finish(upload).status());
        as("alice");
        for (String file : List.of("adapter_model.bin", "start", ".."))
            assertEquals(404, service.send("PUT", "external_weights_uploads/"
                    + upload.path("upload_id").asText() + "/" + file + "?token="
                    + upload.path("urls").path(Uploads.WEIGHTS).asText().replaceAll(".*token=", ""),
                    new byte[1]).status());
        assertEquals(200, finish(upload).status());
        assertEquals(404, service.post("external_weights_upload_finish", "{'upload_id': 'x'}").status());
        assertEquals(404, service.post("external_weights_upload_finish",
                "{'upload_id': '1700000000000.0a1b2c3d-0000-4000-8000-00000000000a'}").status());
    }

    @Test void theFormOfTheLinksIsThatOfTheClientsVersion() {
        assertTrue(begun("").path("urls").path(Uploads.WEIGHTS).isTextual());
        service.agent = "AsyncTinker/Python 0.39.0";
        assertTrue(begun("").path("urls").path(Uploads.WEIGHTS).isTextual());
        service.agent = "AsyncTinker/Python 0.40.0";
        try {
            JsonNode upload = uploaded("", config(), safetensors(tensors(), "F16"));
            assertTrue(upload.path("urls").path(Uploads.WEIGHTS).path("headers").isObject());
            assertEquals(200, finish(upload).status());
        } finally {
            service.agent = "test";
        }
    }

    @Test void whatIsLeftOfAnUploadIsDeletedWhenItIsOver() {
        var blobs = new MemoryBlobs();
        var uploads = new Uploads(blobs);
        var over = new Uploads.Id(1_000, java.util.UUID.fromString("0a1b2c3d-0000-4000-8000-00000000000a"));
        var open = new Uploads.Id(9_000_000,
                java.util.UUID.fromString("0a1b2c3d-0000-4000-8000-00000000000b"));
        for (var id : List.of(over, open)) {
            uploads.start("alice", id, new byte[] {1});
            uploads.put("alice", id, Uploads.WEIGHTS, out -> out.write(new byte[7]));
        }
        assertEquals(2, uploads.pending("alice", 500).uploads());
        assertEquals(16, uploads.pending("alice", 2_000).bytes());
        assertEquals(1, uploads.pending("alice", 2_000).uploads());
        assertEquals(0, uploads.pending("bob", 0).uploads());
        assertTrue(uploads.find("alice", over, 2_000).isEmpty());
        uploads.finished("alice", open);
        assertEquals(0, uploads.pending("alice", 2_000).uploads(), "a finished upload is not under way");
        assertEquals(1, uploads.pending("alice", 500).uploads());
        assertTrue(uploads.find("alice", open, 2_000).isPresent(), "finishing it can be repeated");
        uploads.sweep(2_000);
        assertEquals(4, blobs.blobs.size());
        uploads.sweep(4_000_000);
        assertEquals(2, blobs.blobs.size());
        assertTrue(uploads.find("alice", open, 4_000_000).isPresent());
        assertTrue(uploads.find("bob", open, 4_000_000).isEmpty());
    }

    @Test void weightsAreSavedForUseElsewhereAndFetchedFileByFile() {
        String session = service.post("create_session", "{}").text("session_id");
        String run = service.post("create_model", "{'session_id': '" + session
                + "', 'model_seq_id': 1, 'base_model': 'ultrasafe/usf-tiny'}").text("model_id");
        service.agent = "AsyncTinker/Python 0.39.0";
        Answer saved;
        try {
            saved = service.result(service.post("save_weights_external", "{'model_id': '" + run
                    + "', 'seq_id': 1, 'path': 'out', 'ttl_seconds': 3600}"));
        } finally {
            service.agent = "test";
        }
        assertEquals("tinker://" + run + "/external_weights/out", saved.text("path"), () -> text(saved));
        assertTrue(saved.json().path("size_bytes").asInt() > 0);
        assertEquals("unsupported", service.post("save_weights_external", "{'model_id': '" + run
                + "', 'seq_id': 2, 'path': 'out', 'age_encryption_recipients': ['age1x']}").text("error"));
        Answer links = service.get("training_runs/" + run
                + "/checkpoints/external_weights/out/external_weights_urls");
        assertEquals(200, links.status(), () -> text(links));
        JsonNode urls = links.json().path("urls");
        String link = urls.path(Uploads.WEIGHTS).asText().replaceFirst("^https?://[^/]*", "");
        service.key = "";
        try {
            assertEquals("adapter of " + run, new String(service.get(link).bytes(), StandardCharsets.UTF_8));
            Answer rest = service.get(link, "Range", "bytes=8-");
            assertEquals(206, rest.status());
            assertEquals("of " + run, new String(rest.bytes(), StandardCharsets.UTF_8));
            assertEquals(404, service.get(link.replace(Uploads.WEIGHTS, Uploads.CONFIG)).status());
            Answer config = service.get(urls.path(Uploads.CONFIG).asText()
                    .replaceFirst("^https?://[^/]*", ""));
            assertTrue(new String(config.bytes(), StandardCharsets.UTF_8).contains("\"LORA\""));
        } finally {
            as("alice");
        }
    }

    @Test void eachSequenceHasAnIdOfItsOwn() {
        String session = service.post("create_session", "{}").text("session_id");
        String sampler = service.post("create_sampling_session", "{'session_id': '" + session
                + "', 'sampling_session_seq_id': 1, 'base_model': 'ultrasafe/usf-tiny'}")
                .text("sampling_session_id");
        String body = "{'sampling_session_id': '" + sampler + "', 'seq_id': 0, 'num_samples': 2, 'prompt':"
                + " {'chunks': [{'tokens': [1]}]}, 'record_stability_info': true, 'topk_sample_logprobs': 0";
        Answer future = service.post("asample", body + "}");
        JsonNode first = service.result(future).json().path("sequences");
        assertTrue(first.path(0).path("sequence_id").asText().length() > 10, first::toString);
        assertNotEquals(first.path(0).path("sequence_id"), first.path(1).path("sequence_id"));
        assertEquals(first, service.result(future).json().path("sequences"));
        JsonNode told = future.json().path("sample_sequence_ids");
        assertEquals(2, told.size());
        for (int i = 0; i < 2; i++) assertEquals(told.get(i), first.path(i).path("sequence_id"));
        assertEquals("prompt_alt_tokens_k", service.post("asample", body + ", 'prompt_alt_tokens_k': 2}")
                .text("field"));
    }
}
