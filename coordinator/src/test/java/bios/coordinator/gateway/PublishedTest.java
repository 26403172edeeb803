package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.assertNotEquals;

import bios.coordinator.Wait;
import bios.coordinator.gateway.TestClient.Answer;
import com.fasterxml.jackson.databind.JsonNode;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Published checkpoints, times to live, projects, filters and traces with real runs, sessions and stores.
class PublishedTest {
    private static final Accounts ACCOUNTS = Accounts.fromLines("keys",
            List.of("alice tml-alice-key", "bob tml-bob-key"));
    private static final String ALICES = "0a1b2c3d-0000-4000-8000-0000000000a1";
    private static final String BOBS = "0a1b2c3d-0000-4000-8000-0000000000b1";

    @TempDir private static Path folder;
    private static RealService service;
    private static String run;
    private static String bobs;

    @BeforeAll static void start() {
        service = open(folder);
        as("bob");
        ok(service.post("create_session", "{'session_id': '" + BOBS + "'}"));
        bobs = model(BOBS, 1);
        as("alice");
        ok(service.post("create_session", "{'session_id': '" + ALICES + "', 'project_id': 'first'}"));
        run = model(ALICES, 1);
        save(1, "a");
        save(2, "b");
        done(service.post("save_weights_for_sampler", operation(3, "'path': 's'")));
    }

    @AfterAll static void stop() {
        service.close();
    }

    private static RealService open(Path folder) {
        return new RealService(folder, ACCOUNTS, "long-poll = 5 s, archive-url-secret = secret");
    }

    private static void as(String account) {
        service.key = "tml-" + account + "-key";
    }

    private static String model(String session, int seq) {
        return ok(service.post("create_model", "{'session_id': '" + session + "', 'model_seq_id': " + seq
                + ", 'base_model': 'ultrasafe/usf-tiny', 'user_metadata': {'kind': 'n" + seq + "'}}"))
                .text("model_id");
    }

    private static String operation(long seq, String fields) {
        return "{'model_id': '" + run + "', 'seq_id': " + seq + ", " + fields + "}";
    }

    private static void save(long seq, String name) {
        done(service.post("save_weights", operation(seq, "'path': '" + name + "'")));
    }

    private static Answer ok(Answer answer) {
        assertEquals(2, answer.status() / 100, () -> text(answer));
        return answer;
    }

    private static void done(Answer future) {
        Answer answer = ok(service.result(ok(future)));
        assertFalse(answer.json().has("error"), () -> text(answer));
    }

    private static String text(Answer answer) {
        return answer.status() + " " + new String(answer.bytes(), StandardCharsets.UTF_8);
    }

    private static Answer send(String method, String path, String body) {
        return service.send(method, path, body.replace('\'', '"').getBytes(StandardCharsets.UTF_8));
    }

    private static String checkpoint(String id) {
        return "training_runs/" + run + "/checkpoints/" + id;
    }

    private static Answer info(String id) {
        return service.post("weights_info", "{'tinker_path': 'tinker://" + run + "/" + id + "'}");
    }

    private static List<String> listed(String path, String list, String field) {
        return StreamSupport.stream(ok(service.get(path)).json().path(list).spliterator(), false)
                .map(each -> each.path(field).asText()).sorted().collect(Collectors.toList());
    }

    /// Every way in which another account may read a checkpoint.
    private static List<Answer> reads(int number) {
        var all = new ArrayList<Answer>();
        all.add(info("sampler_weights/s"));
        all.add(service.post("create_sampling_session", "{'session_id': '" + BOBS
                + "', 'sampling_session_seq_id': " + number + ", 'model_path': 'tinker://" + run
                + "/sampler_weights/s'}"));
        all.add(service.get(checkpoint("sampler_weights/s") + "/archive"));
        all.add(service.get(checkpoint("weights/b") + "/archive", "Accept", "application/gzip"));
        all.add(service.post("load_training_client", "{'session_id': '" + BOBS + "', 'model_seq_id': "
                + (100 + number) + ", 'path': 'bios://" + run + "/b'}"));
        all.add(service.get("training_runs/" + run + "?access_scope=accessible"));
        all.add(service.get(checkpoint("weights/b") + "?access_scope=accessible"));
        return all;
    }

    private static void publish(String method) {
        as("alice");
        for (String id : List.of("weights/b", "sampler_weights/s"))
            for (int twice = 0; twice < 2; twice++)
                ok(send(method, checkpoint(id) + "/publish", ""));
    }

    @Test void aPublishedCheckpointIsReadByAllUntilItIsUnpublished() {
        as("bob");
        List<String> before = reads(1).stream().map(PublishedTest::text).toList();
        assertTrue(before.stream().allMatch(t -> t.startsWith("404")), before::toString);
        publish("POST");
        assertEquals(List.of("sampler_weights/s", "weights/b"),
                listed("checkpoints?public=true", "checkpoints", "checkpoint_id"));
        as("bob");
        List<Answer> during = reads(2);
        during.forEach(PublishedTest::ok);
        done(during.get(4));
        Answer link = during.get(2);
        assertEquals(200, service.get(URI.create(link.text("url")).getRawSchemeSpecificPart()
                .replaceFirst("^//[^/]*", "")).status(), () -> text(link));
        String sampler = during.get(1).text("sampling_session_id");
        Answer sample = ok(service.post("asample", "{'sampling_session_id': '" + sampler
                + "', 'seq_id': 0, 'prompt': {'chunks': [{'tokens': [1]}]}}"));
        assertTrue(ok(service.result(sample)).json().has("sequences"));
        done(service.post("load_weights", "{'model_id': '" + bobs + "', 'seq_id': 1, 'path': 'bios://" + run
                + "/weights/b'}"));
        othersSeeNothingElse();
        publish("DELETE");
        as("bob");
        List<String> after = reads(3).stream().map(PublishedTest::text).toList();
        assertTrue(after.stream().allMatch(t -> t.startsWith("404")), after::toString);
    }

    private static void othersSeeNothingElse() {
        for (String id : List.of("bios:%2F%2F" + run + "%2Fweights%2Fb", "bios://" + run + "/weights/b"))
            assertEquals("alice", ok(service.get("/v1/models/" + id)).text("owned_by"));
        assertEquals(404, info("weights/a").status());
        assertEquals(404, service.get(checkpoint("weights/a") + "?access_scope=accessible").status());
        assertEquals(404, service.get(checkpoint("weights/b")).status());
        assertEquals(404, service.get("training_runs/" + run).status());
        assertEquals(List.of("sampler_weights/s", "weights/b"), listed("training_runs/" + run
                + "/checkpoints?access_scope=accessible", "checkpoints", "checkpoint_id"));
        assertEquals(404, service.get("training_runs/" + run + "/history").status());
        assertEquals(404, send("DELETE", checkpoint("weights/b"), "").status());
        assertEquals(404, send("PUT", checkpoint("weights/b") + "/ttl", "{'ttl_seconds': 1}").status());
        assertEquals(404, service.post("optim_step", operation(90, "'type': 'x'")).status());
    }

    @Test void aRunOfAnotherAccountIsShownAsOfItsNewestPublishedCheckpoint() {
        as("alice");
        String mains = run;
        try {
            Answer created = service.post("load_training_client", "{'session_id': '" + ALICES
                    + "', 'model_seq_id': 70, 'path': 'bios://" + run + "/weights/a',"
                    + " 'user_metadata': {'kind': 'loaded'}}");
            done(created);
            run = created.text("model_id");
            save(1, "b");
            ok(send("POST", checkpoint("weights/b") + "/publish", ""));
            done(service.post("forward_backward", operation(2, "'forward_backward_input': {'loss_fn':"
                    + " 'cross_entropy', 'data': [{'model_input': {'chunks': [{'tokens': [1]}]},"
                    + " 'loss_fn_inputs': {'target_tokens': {'dtype': 'int64', 'data': [2]}}}]}")));
            done(service.post("optim_step", operation(3, "'type': 'optim_step'")));
            JsonNode own = ok(service.get("training_runs/" + run)).json();
            assertEquals(List.of("1", "first", "bios://" + mains + "/a"), List.of(own.path("step")
                    .asText(), own.path("project_id").asText(), own.path("parent_path").asText()));
            as("bob");
            JsonNode shown = ok(service.get("training_runs/" + run + "?access_scope=accessible")).json();
            assertEquals(List.of("0", "null", "null", "false"), List.of(shown.path("step").asText(),
                    shown.path("project_id").asText(), shown.path("parent_path").asText(),
                    shown.path("corrupted").asText()));
            assertEquals(shown.at("/last_checkpoint/time"), shown.path("last_request_time"));
            assertEquals("loaded", shown.at("/user_metadata/kind").asText());
            assertEquals(own.path("lora_rank"), shown.path("lora_rank"));
        } finally {
            run = mains;
        }
    }

    private static Answer load(long seq, String token) {
        as("bob");
        return service.post("load_weights", "{'model_id': '" + bobs + "', 'seq_id': " + seq + ", 'path':"
                + " 'tinker://" + run + "/weights/given', 'weights_access_token': '" + token + "'}");
    }

    @Test void aKeyOfAnotherAccountDoesNotOpenWhatIsNotPublished() {
        as("alice");
        save(80, "given");
        Answer refused = load(80, "tml-alice-key");
        assertEquals("unsupported", refused.text("error"), () -> text(refused));
        assertEquals("weights_access_token", refused.text("field"));
        assertTrue(refused.text("message").contains("published"), () -> text(refused));
        assertEquals("weights_access_token", load(80, "tml-nobody").text("field"));
        as("alice");
        ok(send("POST", checkpoint("weights/given") + "/publish", ""));
        done(load(80, "tml-alice-key"));
        done(load(81, "tml-bob-key"));
    }

    @Test void aNameThatIsSavedAgainIsPrivateAgain() {
        as("alice");
        save(10, "again");
        ok(send("POST", checkpoint("weights/again") + "/publish", ""));
        as("bob");
        ok(info("weights/again"));
        as("alice");
        ok(service.post("optim_step", operation(11, "'type': 'optim_step'")));
        save(12, "again");
        as("bob");
        assertEquals(404, info("weights/again").status());
    }

    @Test void aTimeToLiveIsSetExtendedAndRemovedAndEndsInTime() {
        as("alice");
        for (int i = 0; i < 3; i++) save(20 + i, "ttl" + i);
        assertEquals(400, send("PUT", checkpoint("weights/ttl0") + "/ttl", "{'ttl_seconds': 0}").status());
        for (int i = 0; i < 3; i++)
            ok(send("PUT", checkpoint("weights/ttl" + i) + "/ttl", "{'ttl_seconds': 2}"));
        ok(send("PUT", checkpoint("weights/ttl1") + "/ttl", "{'ttl_seconds': 5000}"));
        ok(send("PUT", checkpoint("weights/ttl2") + "/ttl", "{'ttl_seconds': null}"));
        Wait.until(() -> info("weights/ttl0").status() == 404, () -> "it stays");
        assertEquals(200, info("weights/ttl1").status());
        assertEquals(200, info("weights/ttl2").status());
        List<String> left = listed("training_runs/" + run + "/checkpoints", "checkpoints", "checkpoint_id");
        assertFalse(left.contains("weights/ttl0"), left::toString);
        assertTrue(left.contains("weights/ttl1") && left.contains("weights/ttl2"), left::toString);
    }

    @Test void publicationAndTimeToLiveSurviveARestart(@TempDir Path other) {
        RealService main = service;
        String mains = run;
        service = open(other);
        try {
            as("alice");
            ok(service.post("create_session", "{'session_id': '" + ALICES + "'}"));
            run = model(ALICES, 1);
            save(1, "gone");
            save(2, "read");
            ok(send("POST", checkpoint("weights/read") + "/publish", ""));
            ok(send("PUT", checkpoint("weights/gone") + "/ttl", "{'ttl_seconds': 1}"));
            service.close();
            service = open(other);
            as("bob");
            assertEquals(200, info("weights/read").status());
            as("alice");
            Wait.until(() -> info("weights/gone").status() == 404, () -> "it stays");
            assertEquals(200, info("weights/read").status());
        } finally {
            service.close();
            service = main;
            run = mains;
        }
    }

    @Test void runsBelongToTheProjectOfTheirSessionAndAreFoundByIt() {
        as("alice");
        String session = "0a1b2c3d-0000-4000-8000-0000000000a2";
        ok(service.post("create_session", "{'session_id': '" + session + "', 'project_id': 'second'}"));
        String other = model(session, 7);
        assertEquals("second", ok(service.get("training_runs/" + other)).text("project_id"));
        awaitListed("training_runs?project_id=second", List.of(other));
        assertEquals(List.of(other), listed("training_runs?user_metadata.kind=n7", "training_runs",
                "training_run_id"));
        assertEquals(List.of(), listed("training_runs?base_model=none", "training_runs", "training_run_id"));
        assertEquals(List.of("sampler_weights/s"), listed("checkpoints?project_id=first&checkpoint_type="
                + "sampler", "checkpoints", "checkpoint_id"));
        ok(send("PUT", "sessions/" + session + "/project", "{'project_id': 'third'}"));
        assertEquals("third", ok(service.get("training_runs/" + other)).text("project_id"));
        awaitListed("training_runs?project_id=third", List.of(other));
        awaitListed("training_runs?project_id=second", List.of());
        assertEquals(400, service.get("checkpoints?public=perhaps").status());
    }

    private static Answer copy(String session, int seq, String source) {
        return service.post("copy_weights", "{'session_id': '" + session + "', 'model_seq_id': " + seq
                + ", 'source_path': '" + source + "'}");
    }

    @Test void aCopyHasARunOfItsOwnInTheProjectOfItsSession() {
        as("alice");
        save(60, "original");
        String session = "0a1b2c3d-0000-4000-8000-0000000000a5";
        ok(service.post("create_session", "{'session_id': '" + session + "', 'project_id': 'archive'}"));
        String source = "tinker://" + run + "/weights/original";
        String path = ok(copy(session, 1, source)).text("tinker_path");
        assertTrue(path.endsWith("/weights/original") && !path.equals(source), path);
        assertEquals(path, ok(copy(session, 1, source)).text("tinker_path"));
        String copied = path.substring(9, path.indexOf("/weights"));
        assertEquals("archive", ok(service.get("training_runs/" + copied)).text("project_id"));
        assertEquals("model_seq_id", copy(session, 1, "bios://" + run + "/a").text("field"));
        // The run of a copy is unloaded; the copy stays when its source is deleted.
        assertEquals("run_closed", service.post("optim_step", "{'model_id': '" + copied + "', 'seq_id': 9}")
                .text("error"));
        ok(send("DELETE", checkpoint("weights/original"), ""));
        assertEquals("training", ok(service.post("weights_info", "{'tinker_path': '" + path + "'}"))
                .text("kind"));
        done(service.post("load_training_client", "{'session_id': '" + session
                + "', 'model_seq_id': 1, 'path': '" + path + "'}"));
        ok(send("DELETE", "training_runs/" + copied + "/checkpoints/weights/original", ""));
        assertEquals("conflict", copy(session, 1, "bios://" + run + "/a").text("error"));
    }

    @Test void whatIsPublishedIsCopiedByOthersAndKeepsItsKind() {
        as("alice");
        done(service.post("save_weights_for_sampler", operation(61, "'path': 'given-away'")));
        String source = "bios://" + run + "/sampler_weights/given-away";
        as("bob");
        assertEquals(404, copy(BOBS, 50, source).status());
        as("alice");
        ok(send("POST", checkpoint("sampler_weights/given-away") + "/publish", ""));
        as("bob");
        Answer copy = ok(service.post("copy_weights", "{'session_id': '" + BOBS + "', 'model_seq_id': 50,"
                + " 'source_path': '" + source + "', 'ttl_seconds': 5000, 'weights_access_token':"
                + " 'tml-alice-key'}"));
        assertTrue(copy.text("path").endsWith("/sampler_weights/given-away"), () -> text(copy));
        String id = copy.text("path").substring(7, copy.text("path").indexOf("/sampler"));
        JsonNode shown = ok(service.get("training_runs/" + id + "/checkpoints")).json().at("/checkpoints/0");
        assertTrue(!shown.get("public").asBoolean() && shown.get("expires_at").isTextual(), shown::toString);
        assertTrue(text(ok(service.get("audit"))).contains("copy_weights"));
        as("alice");
        ok(send("DELETE", checkpoint("sampler_weights/given-away") + "/publish", ""));
        as("bob");
        assertEquals("sampler", ok(service.post("weights_info", "{'path': '" + copy.text("path") + "'}"))
                .text("kind"));
    }

    @Test void clientsOfOneSamplerAreGivenDifferentNumbers() {
        as("alice");
        String sampler = ok(service.post("create_sampling_session", "{'session_id': '" + ALICES
                + "', 'sampling_session_seq_id': 70, 'base_model': 'ultrasafe/usf-tiny'}"))
                .text("sampling_session_id");
        String body = "{'sampling_session_id': '" + sampler + "', 'type': 'join_sampling_session'}";
        var numbers = new TreeSet<Long>();
        for (int i = 0; i < 5; i++)
            numbers.add(ok(service.post("join_sampling_session", body)).json().get("client_counter")
                    .asLong());
        assertEquals(5, numbers.size());
        assertTrue(numbers.first() > 0 && numbers.last() <= 1L << 32, numbers::toString);
        long first = Math.multiplyExact(numbers.last(), 1_000_000_000L);
        ok(service.result(ok(service.post("asample", "{'sampling_session_id': '" + sampler + "', 'seq_id': "
                + first + ", 'prompt': {'chunks': [{'tokens': [1]}]}}"))));
        as("bob");
        assertEquals(404, service.post("join_sampling_session", body).status());
    }

    private static List<String> found(String body) {
        return StreamSupport.stream(ok(service.post("search_checkpoints", body)).json().path("checkpoints")
                .spliterator(), false).map(each -> each.path("path").asText()).toList();
    }

    @Test void checkpointsAreSearchedByAllThatIsGivenPageByPage() {
        as("alice");
        String session = "0a1b2c3d-0000-4000-8000-0000000000a4";
        ok(service.post("create_session", "{'session_id': '" + session + "', 'project_id': 'fourth'}"));
        String other = model(session, 9);
        String mine = "{'model_id': '" + other + "', 'seq_id': ";
        done(service.post("save_weights", mine + "1, 'path': 'a', 'metadata': {'loss': 'low'}}"));
        done(service.post("save_weights", mine + "2, 'path': 'b', 'metadata': {'kind': 'own'}}"));
        done(service.post("save_weights_for_sampler", mine + "3, 'path': 's'}"));
        String a = "bios://" + other + "/a";
        String b = "bios://" + other + "/b";
        String s = "bios://" + other + "/sampler_weights/s";
        String in = "{'project_ids': ['fourth', 'nothing']";
        Wait.until(() -> found(in + "}").size() == 3, () -> found(in + "}").toString());
        assertEquals(List.of(s, b, a), found(in + "}"));
        assertEquals(List.of(s), found(in + ", 'checkpoint_type': 'sampler'}"));
        assertEquals(List.of(s, b, a), found(in + ", 'base_models': ['none', 'ultrasafe/usf-tiny']}"));
        assertEquals(List.of(), found(in + ", 'base_models': []}"));
        // of the run, unless the checkpoint says otherwise
        assertEquals(List.of(s, a), found("{'user_metadata': {'kind': 'n9'}}"));
        assertEquals(List.of(b), found(in + ", 'user_metadata': {'kind': 'own'}}"));
        assertEquals(List.of(a), found("{'user_metadata': {'kind': 'n9', 'loss': 'low'}}"));
        assertEquals(List.of(), found(in + ", 'user_metadata': {'kind': 'n9', 'loss': 'high'}}"));
        Answer first = ok(service.post("search_checkpoints", in + ", 'limit': 2}"));
        assertEquals("ultrasafe/usf-tiny", first.json().at("/checkpoints/0/base_model").asText());
        String rest = in + ", 'limit': 2, 'cursor': " + first.json().get("next_cursor") + "}";
        ok(send("DELETE", "training_runs/" + other + "/checkpoints/weights/b", ""));
        Wait.until(() -> found(in + "}").equals(List.of(s, a)), () -> found(in + "}").toString());
        Answer second = ok(service.post("search_checkpoints", rest));
        assertEquals(a, second.json().at("/checkpoints/0/path").asText());
        assertTrue(second.json().get("next_cursor").isNull() && second.json().at("/checkpoints/1")
                .isMissingNode(), () -> text(second));
    }

    @Test void aSearchShowsWhatTheCallerOwns() {
        as("alice");
        Wait.until(() -> found("{'owner': {'type': 'own'}}").contains("bios://" + run
                + "/sampler_weights/s"), () -> "not found");
        for (String owner : List.of("{'type': 'accessible'}", "{}",
                "{'type': 'user', 'owner_urns': ['bob', 'alice']}"))
            assertTrue(found("{'owner': " + owner + "}").contains("bios://" + run + "/sampler_weights/s"));
        assertEquals(List.of(), found("{'owner': {'type': 'user', 'owner_urns': ['bob']}}"));
        as("bob");
        for (String owner : List.of("{'type': 'own'}", "{'type': 'accessible'}",
                "{'type': 'user', 'owner_urns': ['alice']}"))
            assertFalse(found("{'owner': " + owner + "}").toString().contains(run), owner);
    }

    /// The index follows a run within moments.
    private static void awaitListed(String path, List<String> runs) {
        Wait.until(() -> listed(path, "training_runs", "training_run_id").equals(runs), () ->
                listed(path, "training_runs", "training_run_id").toString());
    }

    @Test void aTraceShowsTheOperationsOfTheRunsOfASession() {
        as("alice");
        Answer link = ok(service.get("sessions/" + ALICES + "/trace_export"));
        assertEquals("ready", link.text("status"), () -> text(link));
        service.key = "";
        Answer trace = ok(service.get(URI.create(link.text("url")).getRawSchemeSpecificPart()
                .replaceFirst("^//[^/]*", "")));
        assertTrue(text(trace).contains("save_weights"), () -> text(trace));
        assertNotEquals(200, service.get("traces/" + ALICES + "?token=a.1.b").status());
    }
}
