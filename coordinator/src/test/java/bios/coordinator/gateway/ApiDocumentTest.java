package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.TestClient.Answer;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// The OpenAPI document says what the gateway reads and answers.
class ApiDocumentTest {
    private static final String SESSION = "0a1b2c3d-0000-4000-8000-00000000000a";
    private static final Pattern FIELDS = Pattern.compile("it has \\[([^]]*)]");

    @TempDir private static Path folder;
    private static RealService service;
    private static JsonNode document;
    private static SchemaCheck schemas;
    private static String run;

    @BeforeAll static void start() {
        service = new RealService(folder, Accounts.open(),
                "long-poll = 5 s, token-secret = \"a secret of tokens\"");
        document = service.get("/openapi.json").json();
        schemas = new SchemaCheck(document);
        service.post("create_session", "{'session_id': '" + SESSION + "'}");
        run = service.post("create_model", "{'session_id': '" + SESSION
                + "', 'model_seq_id': 1, 'base_model': 'ultrasafe/usf-tiny'}").text("model_id");
    }

    @AfterAll static void stop() {
        service.close();
    }

    @Test void everyEndpointIsInTheDocumentAndTheOtherWayRound() {
        var endpoints = new TreeSet<String>();
        for (Endpoint each : service.endpoints)
            endpoints.add(each.method() + (each.pattern().getFirst().isEmpty() ? " " : " /api/v1/")
                    + String.join("/", each.pattern()).replace("**", "*"));
        var documented = new TreeSet<String>();
        document.get("paths").properties().forEach(path -> path.getValue().properties().forEach(operation ->
                documented.add(operation.getKey().toUpperCase(java.util.Locale.ROOT) + " "
                        + path.getKey().replaceAll("\\{[^}]*}", "*"))));
        assertEquals(endpoints, documented);
    }

    /// An object of a request with a field that nobody knows: the refusal names those that are known.
    private static Set<String> fieldsRead(String path, JsonNode body, String... at) {
        JsonNode whole = body.deepCopy();
        JsonNode place = whole;
        for (String name : at) place = name.matches("[0-9]+") ? place.get(Integer.parseInt(name))
                : place.get(name);
        ((ObjectNode) place).put("nobodyKnowsThis", 1);
        String method = path.startsWith("PUT ") ? "PUT" : "POST";
        Answer answer = service.send(method, path.replaceFirst("^PUT ", ""),
                whole.toString().getBytes(StandardCharsets.UTF_8));
        JsonNode error = answer.json().has("message") ? answer.json() : answer.json().path("error");
        Matcher found = FIELDS.matcher(error.path("message").asText());
        assertTrue(answer.status() == 400 && found.find(), () -> path + ": " + answer.json());
        var names = new TreeSet<>(List.of(found.group(1).split(", ")));
        names.remove("nobodyKnowsThis");
        return names;
    }

    private static Set<String> documented(JsonNode schema) {
        var names = new TreeSet<String>();
        schemas.resolved(schema).path("properties").fieldNames().forEachRemaining(names::add);
        return names;
    }

    private static String full(String path) {
        return path.startsWith("/") ? path : "/api/v1/" + path;
    }

    private static JsonNode bodyOf(String path, String method) {
        return document.at("/paths/" + full(path).replace("~", "~0").replace("/", "~1") + "/"
                + method + "/requestBody/content/application~1json/schema");
    }

    private static void assertSame(String path, String body, String... at) {
        assertEquals(documented(bodyOf(path, "post")), fieldsRead(path, TestClient.json(body), at), path);
    }

    private static String operation(String fields) {
        return "{'model_id': '" + run + "', 'seq_id': 900" + (fields.isEmpty() ? "" : ", " + fields) + "}";
    }

    private static final String BATCH = "{'loss_fn': 'cross_entropy', 'data': [{'model_input':"
            + " {'chunks': [{'tokens': [1, 2]}]}, 'loss_fn_inputs': {'target_tokens':"
            + " {'dtype': 'int64', 'data': [2, 3]}}}]}";

    private static final String PROMPT = "{'model': 'ultrasafe/usf-tiny', 'prompt': [1, 2]}";
    private static final String CHAT =
            "{'model': 'ultrasafe/usf-tiny', 'messages': [{'role': 'user', 'content': 'a'}]}";

    @Test void requestsHaveTheFieldsThatAreRead() {
        assertSame("create_session", "{}");
        assertSame("session_heartbeat", "{'session_id': '" + SESSION + "'}");
        assertSame("tokenize", "{'base_model': 'ultrasafe/usf-tiny', 'text': 'a'}");
        assertSame("detokenize", "{'base_model': 'ultrasafe/usf-tiny', 'tokens': [1]}");
        assertSame("create_model", "{'session_id': '" + SESSION
                + "', 'model_seq_id': 2, 'base_model': 'ultrasafe/usf-tiny'}");
        assertSame("load_training_client", "{'session_id': '" + SESSION
                + "', 'model_seq_id': 3, 'path': 'bios://" + run + "/a'}");
        assertSame("get_info", "{'model_id': '" + run + "'}");
        assertSame("unload_model", "{'model_id': '" + run + "'}");
        assertSame("weights_info", "{'path': 'bios://" + run + "/a'}");
        assertSame("forward_backward", operation("'forward_backward_input': " + BATCH));
        assertSame("forward", operation("'forward_input': " + BATCH));
        assertSame("optim_step", operation(""));
        assertSame("save_weights", operation("'path': 'x'"));
        assertSame("save_weights_for_sampler", operation("'path': 'x'"));
        assertSame("load_weights", operation("'path': 'bios://" + run + "/a'"));
        assertSame("save_weights_external", operation("'path': 'x'"));
        assertSame("external_weights_upload_start", "{'base_model': 'ultrasafe/usf-tiny'}");
        assertSame("external_weights_upload_finish", "{'upload_id': 'x'}");
        assertSame("retrieve_future", "{'request_id': 'x'}");
        assertSame("search_checkpoints", "{}");
        assertSame("copy_weights", "{'session_id': '" + SESSION
                + "', 'model_seq_id': 1, 'source_path': 'bios://" + run + "/a'}");
        assertSame("join_sampling_session", "{'sampling_session_id': 'x'}");
        assertSameObject("SearchOwner", "search_checkpoints", "{'owner': {}}", "owner");
        assertSameObject("SearchCursor", "search_checkpoints", "{'cursor': {'last_created_at':"
                + " '2026-01-31T00:00:00Z', 'last_checkpoint_uuid': 'x'}}", "cursor");
        assertSame("create_sampling_session", "{'session_id': '" + SESSION
                + "', 'sampling_session_seq_id': 7, 'base_model': 'ultrasafe/usf-tiny'}");
        assertSame("/v1/completions", PROMPT);
        assertSame("/v1/chat/completions", CHAT);
        assertSame("/v1/messages", CHAT.replace("'messages'", "'max_tokens': 3, 'messages'"));
        String ttl = "training_runs/" + run + "/checkpoints/weights/a/ttl";
        assertEquals(documented(bodyOf("training_runs/{run}/checkpoints/{kind}/{name}/ttl", "put")),
                fieldsRead("PUT " + ttl, TestClient.json("{}")));
        assertEquals(documented(bodyOf("sessions/{session}/project", "put")),
                fieldsRead("PUT sessions/" + SESSION + "/project", TestClient.json("{}")));
    }

    private static void assertSameObject(String name, String path, String body, String... at) {
        assertEquals(documented(document.at("/components/schemas/" + name)),
                with("type", name, fieldsRead(path, TestClient.json(body), at)), name);
    }

    /// A chunk of a model input is the only nested object with a type.
    private static Set<String> with(String field, String name, Set<String> read) {
        if (!name.equals("Chunk")) return read;
        var more = new TreeSet<>(read);
        more.add(field);
        return more;
    }

    @Test void nestedObjectsHaveTheFieldsThatAreRead() {
        String forward = operation("'forward_input': " + BATCH);
        assertSameObject("Batch", "forward", forward, "forward_input");
        assertSameObject("Datum", "forward", forward, "forward_input", "data", "0");
        assertSameObject("Chunk", "forward", forward, "forward_input", "data", "0", "model_input", "chunks",
                "0");
        assertSameObject("Tensor", "forward", forward, "forward_input", "data", "0", "loss_fn_inputs",
                "target_tokens");
        assertSameObject("AdamParams", "optim_step", operation("'adam_params': {}"), "adam_params");
        assertSameObject("LoraConfig", "create_model", "{'session_id': '" + SESSION + "', 'model_seq_id': 2,"
                + " 'base_model': 'ultrasafe/usf-tiny', 'lora_config': {}}", "lora_config");
        String sampler = service.post("create_sampling_session", "{'session_id': '" + SESSION
                + "', 'sampling_session_seq_id': 8, 'base_model': 'ultrasafe/usf-tiny'}")
                .text("sampling_session_id");
        String sample = "{'sampling_session_id': '" + sampler + "', 'seq_id': 1, 'prompt': {'chunks':"
                + " [{'tokens': [1]}]}, 'sampling_params': {}}";
        assertSameObject("SamplingParams", "asample", sample, "sampling_params");
        assertSame("asample", sample);
    }

    /// Sends a request and compares the answer with the document.
    private static Answer checked(String method, String path, String body, String... headers) {
        Answer answer = service.send(method, path, body.replace('\'', '"').getBytes(StandardCharsets.UTF_8),
                headers);
        var wrong = new ArrayList<String>();
        document.get("paths").properties().forEach(each -> {
            String pattern = each.getKey().replaceAll("\\{[^}]*}", "[^/]+");
            JsonNode operation = each.getValue().path(method.toLowerCase(java.util.Locale.ROOT));
            if (operation.isMissingNode() || !full(path).replaceAll("\\?.*", "").matches(pattern))
                return;
            JsonNode response = operation.path("responses").path("" + answer.status());
            if (response.isMissingNode()) response = operation.path("responses").path("default");
            JsonNode schema = response.path("content").path("application/json").path("schema");
            if (answer.json().isNull()) assertTrue(answer.status() == 204 || response.path("content").size()
                    > 1, path);
            else wrong.addAll(schemas.problems(path, schema, answer.json()));
        });
        assertEquals(List.of(), wrong, () -> answer.json().toString());
        return answer;
    }

    private static void done(String path, String body) {
        Answer future = checked("POST", path, body);
        Answer result = checked("POST", "retrieve_future",
                "{'request_id': '" + future.text("request_id") + "'}");
        assertEquals(200, result.status(), path);
        assertFalse(result.json().has("error"), () -> path + ": " + result.json());
    }

    private static String next(int seq, String fields) {
        return "{'model_id': '" + run + "', 'seq_id': " + seq + ", " + fields + "}";
    }

    @Test void realAnswersAreAsTheDocumentSays() {
        for (String path : List.of("client/config", "client/dynamic_config", "auth/token", "telemetry"))
            checked("POST", path, "{}");
        for (String path : List.of("healthz", "whoami", "get_server_capabilities", "nothing"))
            checked("GET", path, "");
        done("create_model", "{'session_id': '" + SESSION
                + "', 'model_seq_id': 1, 'base_model': 'ultrasafe/usf-tiny'}");
        done("forward_backward", next(1, "'forward_backward_input': " + BATCH));
        done("forward", next(2, "'forward_input': " + BATCH));
        done("optim_step", next(3, "'adam_params': {}"));
        done("save_weights", next(4, "'path': 'a', 'metadata': {'b': 1}"));
        done("save_weights_for_sampler", next(5, "'path': 's'"));
        done("save_weights_for_sampler", next(6, "'sampling_session_seq_id': 6"));
        done("load_weights", next(7, "'path': 'bios://" + run + "/a'"));
        checked("POST", "load_weights", next(7, "'path': 'bios://" + run + "/b'"));
        checked("POST", "tokenize", "{'base_model': 'ultrasafe/usf-tiny', 'text': 'a'}");
        checked("POST", "detokenize", "{'base_model': 'ultrasafe/usf-tiny', 'tokens': [1]}");
        checked("POST", "get_info", "{'model_id': '" + run + "'}");
        checked("POST", "weights_info", "{'path': 'bios://" + run + "/a'}");
        Answer sampler = checked("POST", "create_sampling_session", "{'session_id': '" + SESSION
                + "', 'sampling_session_seq_id': 9, 'model_path': 'bios://" + run + "/sampler_weights/s'}");
        String id = sampler.text("sampling_session_id");
        checked("GET", "samplers/" + id, "");
        assertEquals(200, checked("POST", "join_sampling_session", "{'sampling_session_id': '" + id + "'}")
                .status());
        assertEquals(200, checked("POST", "copy_weights", "{'session_id': '" + SESSION
                + "', 'model_seq_id': 1, 'source_path': 'bios://" + run + "/a'}").status());
        done("asample", "{'sampling_session_id': '" + id
                + "', 'seq_id': 1, 'prompt': {'chunks': [{'tokens': [1]}]}}");
        listings();
        ofOpenAi("bios://" + run + "/sampler_weights/s");
        String checkpoint = "training_runs/" + run + "/checkpoints/weights/a";
        assertEquals(200, checked("GET", checkpoint, "").status());
        checked("GET", checkpoint + "x", "");
        checked("PUT", checkpoint + "/ttl", "{'ttl_seconds': 1000}");
        checked("POST", checkpoint + "/publish", "");
        checked("DELETE", checkpoint + "/publish", "");
        Answer link = checked("GET", checkpoint + "/archive", "");
        checked("GET", link.text("url").replaceFirst(".*/api/v1/", ""), "");
        checked("PUT", "sessions/" + SESSION + "/project", "{'project_id': 'p'}");
        checked("POST", "training_runs/" + run + "/retry", "{}");
        checked("DELETE", checkpoint, "");
    }

    private static void ofOpenAi(String weights) {
        for (String path : List.of("/v1/models", "/v1/models/ultrasafe%2Fusf-tiny"))
            assertEquals(200, checked("GET", path, "").status(), path);
        assertEquals(404, checked("GET", "/v1/models/nothing", "").status());
        String more = ", 'n': 2, 'logprobs': ";
        for (String body : List.of(PROMPT, PROMPT.replace("}", more + "0}"), PROMPT.replace("}", more + "5}"),
                PROMPT.replace("}", more + "2, 'echo': true, 'max_tokens': 0}"),
                PROMPT.replace("ultrasafe/usf-tiny", weights)))
            assertEquals(200, checked("POST", "/v1/completions", body).status(), body);
        for (String body : List.of(CHAT, CHAT.replace("]}", "]" + more + "true}"),
                CHAT.replace("]}", "]" + more + "true, 'top_logprobs': 2}")))
            assertEquals(200, checked("POST", "/v1/chat/completions", body).status(), body);
        String message = CHAT.replace("'messages'", "'max_tokens': 3, 'messages'");
        for (String body : List.of(message, message.replace("'messages'", "'system': 'a', 'messages'")))
            assertEquals(200, checked("POST", "/v1/messages", body).status(), body);
        assertEquals(400, checked("POST", "/v1/messages", "{}").status());
        assertEquals(400, checked("POST", "/v1/completions", "{}").status());
        assertEquals(400, checked("POST", "/v1/chat/completions", PROMPT).status());
    }

    private static void listings() {
        for (String path : List.of("training_runs", "training_runs/" + run, "checkpoints?public=false",
                "training_runs/" + run + "/checkpoints", "training_runs/" + run + "/timings",
                "training_runs/" + run + "/history", "sessions?access_scope=accessible",
                "sessions/" + SESSION, "audit", "billing/usage/events",
                "billing/usage/checkpoints/current"))
            assertEquals(200, checked("GET", path, "").status(), path);
        for (String limit : List.of("1", "200")) assertEquals(200, checked("POST", "search_checkpoints",
                "{'limit': " + limit + "}").status());
        Answer trace = checked("GET", "sessions/" + SESSION + "/trace_export", "");
        checked("GET", trace.text("url").replaceFirst(".*/api/v1/", ""), "");
    }

    @Test void thePageAtTheRootNeedsNothingFromElsewhere() {
        Answer page = service.get("/");
        String html = new String(page.bytes(), StandardCharsets.UTF_8);
        assertEquals(200, page.status());
        assertTrue(html.contains("ultrasafe/usf-tiny") && html.contains("openapi.json"), html);
        assertFalse(Pattern.compile("https?://|src=|@import").matcher(html).find(), html);
        for (String link : List.of("/openapi.json", "/healthz", "/readyz", "/metrics"))
            assertTrue(html.contains("href=\"" + link.substring(1) + "\""), link);
    }
}
