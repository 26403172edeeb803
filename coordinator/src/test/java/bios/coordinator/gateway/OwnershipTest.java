package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.TestClient.Answer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeSet;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// An account cannot see, use or change objects of another account at any endpoint: the response is that for
/// an id that does not exist. Runs, sessions, samplers and stores are real.
class OwnershipTest {
    private static final String SECRET = "the secret of signed URLs";
    private static final PublicUrl NOWHERE = new PublicUrl(Optional.empty(), "127.0.0.1", () -> 0);
    private static final Accounts ACCOUNTS = Accounts.fromLines("keys",
            List.of("alice tml-alice-key", "bob tml-bob-key"));

    /// The ids of one account's objects, and the account on whose behalf an archive link is signed.
    ///
    /// @param sample id of a sampling request
    /// @param reader the account that uses the ids
    private record OwnedIds(String session, String run, String sampler, String sample, String reader) {
        /// `text` with every id replaced, so that answers for different ids can be compared.
        String masked(String text) {
            return text.replace(sample, "SAMPLE").replace(sampler, "SAMPLER").replace(session, "SESSION")
                    .replace(run, "RUN").replaceAll("\"request_id\":\"[0-9a-f-]{36}\"", "\"request_id\":ID");
        }

        OwnedIds readBy(String account) {
            return new OwnedIds(session, run, sampler, sample, account);
        }
    }

    private record Request(String method, String path, String body, String... headers) {}

    /// Builds a request that names the objects of `ids`.
    private interface Probe {
        Request apply(OwnedIds ids);
    }

    /// How an endpoint is tested with ids of another account.
    private sealed interface Case {
        /// The endpoint takes ids: a request with ids of another account gets the response for ids that do
        /// not exist.
        record Owned(int status, List<Probe> requests) implements Case {}

        /// The endpoint takes an id and refuses the owner too, for a reason that only the owner may know.
        record Refusing(Probe request) implements Case {}

        /// The endpoint lists objects: only those of the caller.
        record Listing(Request request) implements Case {}

        /// The endpoint creates an object if it does not exist: an id of another account is refused.
        record Making(Probe request) implements Case {}

        /// The endpoint takes no id.
        record Without() implements Case {}
    }

    @TempDir private static Path folder;
    private static RealService service;
    private static OwnedIds alice;
    private static OwnedIds bob;
    private static OwnedIds nobody;

    @BeforeAll static void start() {
        service = new RealService(folder, ACCOUNTS,
                "long-poll = 5 s, archive-url-secret = \"" + SECRET + "\"");
        alice = made("alice", "0a1b2c3d-0000-4000-8000-00000000000a");
        bob = made("bob", "0a1b2c3d-0000-4000-8000-00000000000b");
        String missing = "0a1b2c3d-0000-4000-8000-00000000000c";
        nobody = new OwnedIds(missing, "usf-tiny-0123456789abcdef", missing + ":sample:1",
                "sample:r1:" + missing + ":sample:1:0:0123456789abcdef", "bob");
    }

    @AfterAll static void stop() {
        service.close();
    }

    private static void as(String account) {
        service.key = "tml-" + account + "-key";
    }

    private static OwnedIds made(String account, String session) {
        as(account);
        post("create_session", "{'session_id': '" + session + "'}");
        String run = post("create_model", "{'session_id': '" + session
                + "', 'model_seq_id': 1, 'base_model': 'ultrasafe/usf-tiny'}").text("model_id");
        result(post("forward", batch(run, 1, "forward_input")));
        result(post("save_weights", "{'model_id': '" + run + "', 'seq_id': 2, 'path': 'a'}"));
        result(post("save_weights_for_sampler", "{'model_id': '" + run + "', 'seq_id': 3, 'path': 's'}"));
        result(post("save_weights_for_sampler",
                "{'model_id': '" + run + "', 'seq_id': 4, 'sampling_session_seq_id': 4}"));
        String sampler = post("create_sampling_session", "{'session_id': '" + session
                + "', 'sampling_session_seq_id': 1, 'model_path': 'bios://" + run + "/sampler_weights/s'}")
                .text("sampling_session_id");
        String sample = post("asample", sample(sampler, 0)).text("request_id");
        post("retrieve_future", "{'request_id': '" + sample + "'}");
        return new OwnedIds(session, run, sampler, sample, account);
    }

    private static Answer post(String path, String body) {
        Answer answer = service.post(path, body);
        assertEquals(200, answer.status(), () -> path + " " + body + ": " + text(answer));
        return answer;
    }

    private static void result(Answer future) {
        Answer answer = service.result(future);
        assertEquals(200, answer.status(), () -> text(answer));
        assertFalse(answer.json().has("error"), () -> text(answer));
    }

    private static String text(Answer answer) {
        return new String(answer.bytes(), StandardCharsets.UTF_8);
    }

    private static String batch(String run, long seq, String field) {
        return "{'model_id': '" + run + "', 'seq_id': " + seq + ", '" + field
                + "': {'loss_fn': 'cross_entropy', 'data': [{'model_input': {'chunks': [{'tokens': [1, 2]}]},"
                + " 'loss_fn_inputs': {'target_tokens': {'dtype': 'int64', 'data': [2, 3]}}}]}}";
    }

    private static String sample(String sampler, long seq) {
        return "{'sampling_session_id': '" + sampler + "', 'seq_id': " + seq
                + ", 'prompt': {'chunks': [{'tokens': [1]}]}}";
    }

    // The cases in the order in which they are tested: those that end or delete objects are last.

    private static Request get(String path) {
        return new Request("GET", path, "");
    }

    private static Request call(String path, String body) {
        return new Request("POST", path, body.replace('\'', '"'));
    }

    private static Case owned(Probe... requests) {
        return new Case.Owned(404, List.of(requests));
    }

    private static Map<String, Case> cases() {
        var cases = new LinkedHashMap<String, Case>();
        for (String free : List.of("GET healthz", "POST client/config", "POST client/dynamic_config",
                "GET get_server_capabilities", "POST telemetry", "POST tokenize", "POST detokenize"))
            cases.put(free, new Case.Without());
        cases.put("GET training_runs", new Case.Listing(get("training_runs")));
        cases.put("GET checkpoints", new Case.Listing(get("checkpoints")));
        cases.put("POST search_checkpoints", new Case.Listing(call("search_checkpoints",
                "{'owner': {'type': 'accessible'}}")));
        cases.put("GET sessions", new Case.Listing(get("sessions")));
        cases.put("GET audit", new Case.Listing(get("audit")));
        cases.put("GET billing/usage/events", new Case.Without());
        cases.put("GET billing/usage/checkpoints/current", new Case.Without());
        // UploadsTest has the ids of uploads.
        for (String upload : List.of("POST external_weights_upload_start",
                "PUT external_weights_uploads/*/*", "POST external_weights_upload_finish"))
            cases.put(upload, new Case.Without());
        cases.put("GET usage", new Case.Listing(get("usage")));
        cases.put("GET whoami", new Case.Without());
        cases.put("POST auth/token", new Case.Without());
        cases.put("POST create_session", new Case.Making(ids ->
                call("create_session", "{'session_id': '" + ids.session() + "'}")));
        openAi(cases);
        sessions(cases);
        operations(cases);
        futures(cases);
        reading(cases);
        setAside(cases);
        checkpoints(cases);
        cases.put("POST unload_model", owned(ids ->
                call("unload_model", "{'model_id': '" + ids.run() + "'}")));
        return cases;
    }

    private static void sessions(Map<String, Case> cases) {
        cases.put("POST session_heartbeat", owned(ids ->
                call("session_heartbeat", "{'session_id': '" + ids.session() + "'}")));
        cases.put("GET sessions/*", owned(ids -> get("sessions/" + ids.session())));
        cases.put("GET sessions/*/trace_export", owned(ids ->
                get("sessions/" + ids.session() + "/trace_export")));
        cases.put("GET traces/*", owned(ids -> get("traces/" + ids.session() + "?token=" + signed("traces/"
                + ids.session(), ids))));
        cases.put("PUT sessions/*/project", owned(ids -> new Request("PUT", "sessions/" + ids.session()
                + "/project", "{\"project_id\": \"p\"}")));
        cases.put("POST create_model", owned(ids -> call("create_model", "{'session_id': '" + ids.session()
                + "', 'model_seq_id': 1, 'base_model': 'ultrasafe/usf-tiny'}")));
        cases.put("POST load_training_client", owned(
                ids -> call("load_training_client", "{'session_id': '" + ids.session()
                        + "', 'model_seq_id': 2, 'path': 'bios://" + ids.run() + "/a'}"),
                // The caller's session with another account's checkpoint, and the reverse.
                ids -> call("load_training_client", "{'session_id': '" + own(ids).session()
                        + "', 'model_seq_id': 3, 'path': 'bios://" + ids.run() + "/a'}"),
                ids -> call("load_training_client", "{'session_id': '" + ids.session()
                        + "', 'model_seq_id': 4, 'path': 'bios://" + own(ids).run() + "/a'}")));
        cases.put("POST create_sampling_session", owned(
                ids -> call("create_sampling_session", "{'session_id': '" + ids.session()
                        + "', 'sampling_session_seq_id': 2, 'base_model': 'ultrasafe/usf-tiny'}"),
                ids -> call("create_sampling_session", "{'session_id': '" + own(ids).session()
                        + "', 'sampling_session_seq_id': 3, 'model_path': 'bios://" + ids.run()
                        + "/sampler_weights/s'}")));
        cases.put("GET samplers/*", owned(ids -> get("samplers/" + ids.sampler())));
        cases.put("POST join_sampling_session", owned(ids -> call("join_sampling_session",
                "{'sampling_session_id': '" + ids.sampler() + "'}")));
        cases.put("POST copy_weights", owned(ids -> call("copy_weights", "{'session_id': '"
                + own(ids).session() + "', 'model_seq_id': 1, 'source_path': 'bios://" + ids.run() + "/a'}"),
                ids -> call("copy_weights", "{'session_id': '" + ids.session()
                + "', 'model_seq_id': 2, 'source_path': 'bios://" + own(ids).run() + "/a'}")));
        cases.put("POST asample", owned(ids -> call("asample", sample(ids.sampler(), 1))));
    }

    private static void openAi(Map<String, Case> cases) {
        cases.put("GET /v1/models", new Case.Listing(get("/v1/models")));
        cases.put("GET /v1/models/**", owned(
                ids -> get("/v1/models/bios://" + ids.run() + "/sampler_weights/s"),
                ids -> get("/v1/models/tinker:%2F%2F" + ids.run() + "%2Fsampler_weights%2Fs")));
        cases.put("POST /v1/completions", owned(ids -> call("/v1/completions", "{'model': 'bios://"
                + ids.run() + "/sampler_weights/s', 'prompt': [1]}")));
        cases.put("POST /v1/chat/completions", owned(ids -> call("/v1/chat/completions",
                "{'model': 'tinker://" + ids.run() + "/sampler_weights/s', 'stream': true, 'messages':"
                + " [{'role': 'user', 'content': 'a'}]}")));
        cases.put("POST /v1/messages", owned(ids -> call("/v1/messages", "{'model': 'bios://" + ids.run()
                + "/sampler_weights/s', 'max_tokens': 2, 'messages': [{'role': 'user', 'content': 'a'}]}")));
    }

    /// The ids of the account that makes the request.
    private static OwnedIds own(OwnedIds ids) {
        return ids.reader().equals("alice") ? alice : bob;
    }

    private static void operations(Map<String, Case> cases) {
        cases.put("POST forward_backward", owned(
                ids -> call("forward_backward", batch(ids.run(), 10, "forward_backward_input")),
                // A batch above the inline limit is stored as a blob.
                ids -> call("forward_backward", large(ids.run(), 11))));
        cases.put("POST forward", owned(ids -> call("forward", batch(ids.run(), 12, "forward_input"))));
        cases.put("POST optim_step", owned(ids ->
                call("optim_step", "{'model_id': '" + ids.run() + "', 'seq_id': 13}")));
        cases.put("POST save_weights", owned(ids ->
                call("save_weights", "{'model_id': '" + ids.run() + "', 'seq_id': 14, 'path': 'a'}")));
        cases.put("POST save_weights_for_sampler", owned(
                ids -> call("save_weights_for_sampler",
                        "{'model_id': '" + ids.run() + "', 'seq_id': 15, 'path': 's'}"),
                ids -> call("save_weights_for_sampler",
                        "{'model_id': '" + ids.run() + "', 'seq_id': 16, 'sampling_session_seq_id': 5}")));
        cases.put("POST save_weights_external", owned(ids -> call("save_weights_external",
                "{'model_id': '" + ids.run() + "', 'seq_id': 18, 'path': 'e'}")));
        cases.put("POST load_weights", owned(
                ids -> call("load_weights", "{'model_id': '" + ids.run() + "', 'seq_id': 17, 'path': 'bios://"
                        + own(ids).run() + "/a'}"),
                ids -> call("load_weights", "{'session_id': '" + ids.session()
                        + "', 'model_seq_id': 5, 'path': 'bios://" + own(ids).run() + "/a'}"),
                ids -> call("load_weights", "{'session_id': '" + own(ids).session()
                        + "', 'model_seq_id': 6, 'path': 'bios://" + ids.run() + "/a'}")));
    }

    private static String large(String run, long seq) {
        String small = batch(run, seq, "forward_backward_input");
        int datum = small.indexOf("{'model_input'");
        int end = small.indexOf("]}}");
        String text = small.substring(datum, end + 4);
        return small.replace(text, text + (", " + text).repeat(3000));
    }

    private static void futures(Map<String, Case> cases) {
        List<Probe> ids = new ArrayList<>();
        for (String suffix : List.of(":create", ":1:forward", ":2", ":3", ":4:sampler:"))
            ids.add(given -> future(given.run() + suffix
                    + (suffix.endsWith(":") ? given.session() + ":4" : "")));
        // The caller's snapshot is opened in another account's session.
        ids.add(given -> future(own(given).run() + ":4:sampler:" + given.session() + ":4"));
        cases.put("POST retrieve_future", new Case.Owned(404, ids));
    }

    private static Request future(String id) {
        return call("retrieve_future", "{'request_id': '" + id + "'}");
    }

    private static void reading(Map<String, Case> cases) {
        cases.put("POST get_info", owned(ids -> call("get_info", "{'model_id': '" + ids.run() + "'}")));
        cases.put("POST weights_info", owned(
                ids -> call("weights_info", "{'path': 'bios://" + ids.run() + "/a'}"),
                ids -> call("weights_info", "{'tinker_path': 'tinker://" + ids.run() + "/weights/a'}")));
        for (String what : List.of("", "/checkpoints", "/timings", "/history", "/metrics"))
            cases.put("GET training_runs/*" + what, owned(ids ->
                    get("training_runs/" + ids.run() + what)));
    }

    private static void setAside(Map<String, Case> cases) {
        for (String what : List.of("retry", "give_up")) cases.put("POST training_runs/*/" + what,
                new Case.Refusing(ids ->
                        new Request("POST", "training_runs/" + ids.run() + "/" + what, "{}")));
    }

    private static void checkpoints(Map<String, Case> cases) {
        String pattern = "training_runs/*/checkpoints/*/*";
        cases.put("GET " + pattern, owned(ids -> get(checkpoint(ids))));
        cases.put("GET " + pattern + "/archive", owned(
                ids -> get(checkpoint(ids) + "/archive"),
                ids -> new Request("GET", checkpoint(ids) + "/archive", "", "Accept", "application/gzip")));
        cases.put("GET archives/*/*/*", owned(ids -> get("archives/" + ids.run() + "/weights/a?token="
                + signed("archives/" + ids.run() + "/weights/a", ids))));
        cases.put("GET " + pattern + "/external_weights_urls", owned(ids ->
                get(checkpoint(ids) + "/external_weights_urls")));
        String file = "/weights/a/adapter_config.json";
        cases.put("GET external_weights/*/*/*/*", owned(ids -> get("external_weights/" + ids.run() + file
                + "?token=" + signed("external_weights/" + ids.run() + file, ids))));
        cases.put("POST " + pattern + "/publish", owned(ids ->
                new Request("POST", checkpoint(ids) + "/publish", "")));
        // It was published by its owner above: that does not let others change it.
        cases.put("DELETE " + pattern + "/publish", owned(ids ->
                new Request("DELETE", checkpoint(ids) + "/publish", "")));
        cases.put("PUT " + pattern + "/ttl", owned(ids ->
                new Request("PUT", checkpoint(ids) + "/ttl", "{\"ttl_seconds\": 1000}")));
        cases.put("DELETE " + pattern, owned(ids -> new Request("DELETE", checkpoint(ids), "")));
    }

    /// A token with which the reader may download.
    private static String signed(String path, OwnedIds ids) {
        return new SignedUrls(SECRET.getBytes(StandardCharsets.UTF_8), NOWHERE).sign(path, ids.reader(),
                service.clock.millis() + 60_000);
    }

    private static String checkpoint(OwnedIds ids) {
        return "training_runs/" + ids.run() + "/checkpoints/weights/a";
    }

    private static Answer send(Request request) {
        return service.send(request.method(), request.path(),
                request.body().getBytes(StandardCharsets.UTF_8), request.headers());
    }

    @Test void everyEndpointHasItsCase() {
        var endpoints = new TreeSet<String>();
        for (Endpoint endpoint : service.endpoints)
            endpoints.add(endpoint.method() + " " + String.join("/", endpoint.pattern()));
        assertEquals(endpoints, new TreeSet<>(cases().keySet()));
    }

    /// Each request is sent by another account first and then by the owner, for whom it must succeed:
    /// otherwise the refusal proves nothing.
    @Test void objectsOfAnotherAccountAreAnsweredLikeMissingOnes() {
        var wrong = new ArrayList<String>();
        cases().forEach((endpoint, each) -> {
            switch (each) {
                case Case.Owned(int status, var requests) -> requests.forEach(request ->
                        compare(endpoint, status, request, wrong));
                case Case.Refusing(var request) -> {
                    as("bob");
                    Answer others = send(request.apply(alice.readBy("bob")));
                    expect(endpoint, 404, others, wrong);
                    expect(endpoint, 404, send(request.apply(nobody)), wrong);
                    as("alice");
                    expect(endpoint, 400, send(request.apply(alice)), wrong);
                }
                case Case.Making(var request) -> {
                    as("bob");
                    expect(endpoint, 404, send(request.apply(alice)), wrong);
                    as("alice");
                    expect(endpoint, 200, send(request.apply(alice)), wrong);
                }
                case Case.Listing(var request) -> listed(endpoint, request, wrong);
                case Case.Without _ -> { }
            }
        });
        assertEquals(List.of(), wrong);
    }

    private static void compare(String endpoint, int status, Probe request,
            List<String> wrong) {
        as("bob");
        Answer others = send(request.apply(alice.readBy("bob")));
        Answer missing = send(request.apply(nobody));
        expect(endpoint, status, others, wrong);
        expect(endpoint, status, missing, wrong);
        if (!alice.masked(text(others)).equals(nobody.masked(text(missing))))
            wrong.add(endpoint + ": another's is answered " + text(others) + ", a missing one "
                    + text(missing));
        as("alice");
        Answer owners = send(request.apply(alice));
        if (owners.status() / 100 != 2)
            wrong.add(endpoint + ": its owner is answered " + owners.status() + " " + text(owners));
    }

    private static void expect(String endpoint, int status, Answer answer, List<String> wrong) {
        if (answer.status() != status)
            wrong.add(endpoint + ": expected " + status + ", got " + answer.status() + " " + text(answer));
    }

    private static void listed(String endpoint, Request request, List<String> wrong) {
        for (OwnedIds owner : List.of(alice, bob)) {
            OwnedIds other = owner == alice ? bob : alice;
            as(owner.reader());
            String list = text(send(request));
            boolean shows = list.contains(owner.run()) || list.contains(owner.session());
            if (!shows) wrong.add(endpoint + " does not show the caller's own: " + list);
            if (list.contains(other.run()) || list.contains(other.session()))
                wrong.add(endpoint + " shows another account's: " + list);
        }
    }

    @Test void anothersSamplingRequestIsAnsweredLikeOneThatDoesNotExist() {
        as("bob");
        for (String router : List.of("r1", "r2")) {
            Answer others = send(future(alice.sample().replace("sample:r1:", "sample:" + router + ":")));
            Answer missing = send(future(nobody.sample().replace("sample:r1:", "sample:" + router + ":")));
            assertEquals(410, others.status(), () -> text(others));
            assertEquals(digestless(nobody.masked(text(missing))), digestless(alice.masked(text(others))));
        }
        as("alice");
        assertEquals(200, send(future(alice.sample())).status());
    }

    private static String digestless(String text) {
        return text.replaceAll(":0:[0-9a-f]{16}", ":0:DIGEST");
    }

    @Test void anothersCheckpointFailsALoadLikeOneThatDoesNotExist() {
        as("bob");
        var answers = new ArrayList<String>();
        long seq = 100;
        for (OwnedIds ids : List.of(alice, nobody)) {
            Answer result = service.result(service.post("load_weights", "{'model_id': '" + bob.run()
                    + "', 'seq_id': " + seq++ + ", 'path': 'bios://" + ids.run() + "/a'}"));
            assertEquals(200, result.status(), () -> text(result));
            assertEquals("checkpoint_not_found", result.text("code"), () -> text(result));
            answers.add(ids.masked(text(result)));
        }
        assertEquals(answers.get(1), answers.get(0));
    }

    @Test void aRefusedRequestLeavesNothingBehind() {
        as("bob");
        send(call("forward_backward", large(alice.run(), 900)));
        send(call("optim_step", "{'model_id': '" + alice.run() + "', 'seq_id': 901}"));
        as("alice");
        assertEquals(404, send(future(alice.run() + ":900")).status());
        assertEquals(404, send(future(alice.run() + ":901")).status());
        assertTrue(service.blobs("runs/" + alice.run() + "/operations/900").isEmpty());
    }
}
