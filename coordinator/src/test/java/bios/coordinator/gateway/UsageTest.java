package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.Wait;
import bios.coordinator.gateway.TestClient.Answer;
import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Usage, limits and audit log of accounts, with real entities and stores.
class UsageTest {
    private static final Accounts ACCOUNTS = Accounts.fromLines("keys", List.of("alice tml-alice-key",
            "bob tml-bob-key", "root tml-root-key operator"));
    private static final String SESSION = "0a1b2c3d-0000-4000-8000-0000000000a1";

    @TempDir private Path folder;
    private RealService service;
    private String run;

    private RealService open(String settings) {
        return new RealService(folder, ACCOUNTS, "long-poll = 5 s" + settings);
    }

    private void as(String account) {
        service.key = "tml-" + account + "-key";
    }

    private static String text(Answer answer) {
        return answer.status() + " " + new String(answer.bytes(), StandardCharsets.UTF_8);
    }

    private static Answer ok(Answer answer) {
        assertEquals(2, answer.status() / 100, () -> text(answer));
        return answer;
    }

    private void done(String path, int seq, String fields) {
        Answer result = ok(service.result(ok(service.post(path, "{'model_id': '" + run + "', 'seq_id': " + seq
                + ", " + fields + "}"))));
        assertFalse(result.json().has("error"), () -> text(result));
    }

    private static String input(String name) {
        return "'" + name + "': {'loss_fn': 'cross_entropy', 'data': [{'model_input': {'chunks': [{'tokens':"
                + " [1, 2, 3]}]}, 'loss_fn_inputs': {'target_tokens':"
                + " {'dtype': 'int64', 'data': [2, 3, 4]}}}]}";
    }

    private void work() {
        as("alice");
        ok(service.post("create_session", "{'session_id': '" + SESSION + "', 'project_id': 'p,1'}"));
        run = model(1);
        done("forward_backward", 1, input("forward_backward_input"));
        done("forward_backward", 2, input("forward_backward_input"));
        done("forward", 3, input("forward_input"));
        done("optim_step", 4, "'adam_params': {}");
        done("save_weights", 5, "'path': 'a'");
        done("save_weights_for_sampler", 6, "'path': 's'");
        for (String from : List.of("'model_path': 'bios://" + run + "/sampler_weights/s'",
                "'base_model': 'ultrasafe/usf-tiny'")) {
            String sampler = ok(service.post("create_sampling_session", "{'session_id': '" + SESSION
                    + "', 'sampling_session_seq_id': " + from.length() + ", " + from + "}"))
                    .text("sampling_session_id");
            for (int twice = 0; twice < 2; twice++) ok(service.result(ok(service.post("asample",
                    "{'sampling_session_id': '" + sampler
                    + "', 'seq_id': 0, 'prompt': {'chunks': [{'tokens': [1, 2, 3, 4]}]}}"))));
        }
        service.counted();
    }

    private String model(int seq) {
        return ok(service.post("create_model", "{'session_id': '" + SESSION + "', 'model_seq_id': " + seq
                + ", 'base_model': 'ultrasafe/usf-tiny'}")).text("model_id");
    }

    private JsonNode usage() {
        as("alice");
        return ok(service.get("usage")).json();
    }

    /// The numbers of a usage but for device time, which each run of the test has its own of.
    private static List<Long> numbers(JsonNode usage) {
        var all = new ArrayList<Long>();
        for (String name : List.of("tokens_trained", "tokens_evaluated", "tokens_prefilled", "tokens_sampled",
                "sampling_requests")) all.add(usage.path(name).asLong(-1));
        return all;
    }

    @Test void usageIsCountedOnceAndSurvivesARestart() {
        List<Long> all = List.of(6L, 3L, 8L, 2L, 2L);
        service = open("");
        try {
            work();
            Wait.until(() -> numbers(usage()).equals(all), () -> "the usage is " + usage());
            JsonNode usage = usage();
            assertEquals(List.of(6L, 3L, 4L, 1L, 1L), numbers(usage.get("runs").get(0)));
            assertEquals(List.of(0L, 0L, 4L, 1L, 1L), numbers(usage.get("base_models").get(0)));
            assertTrue(usage.get("stored_bytes").asLong() > 0 && usage.get("device_seconds").asDouble() > 0);
            // Nothing is in a recovery point yet, or all of it is: the run is executed again, or not.
            service.close();
            service = open("");
            as("alice");
            ok(service.get("training_runs/" + run));
            Wait.until(() -> numbers(usage()).equals(all), () ->
                    "after a restart the usage is " + usage());
            done("forward", 7, input("forward_input"));
            Wait.until(() -> usage().path("tokens_evaluated").asLong() == 6, () ->
                    "the usage is " + usage());
            assertEquals(6, usage().path("tokens_trained").asLong());
            others();
            exported();
        } finally {
            service.close();
        }
    }

    private void others() {
        as("bob");
        assertEquals(0, ok(service.get("usage")).json().get("runs").size());
        Answer refused = service.get("usage?owner=alice");
        assertEquals("operators_only", refused.text("error"), () -> text(refused));
        assertEquals(403, service.get("audit?owner=alice").status());
        as("root");
        assertEquals(6, ok(service.get("usage?owner=alice")).json().get("tokens_trained").asLong());
        assertTrue(text(service.get("audit?owner=alice")).contains("create_model"));
    }

    /// The events, but for what grows with the time.
    private static List<JsonNode> withoutStorage(JsonNode hours) {
        var events = new ArrayList<JsonNode>();
        hours.get("data").forEach(events::add);
        events.removeIf(event -> event.at("/event_info/type").asText().equals("storage"));
        return events;
    }

    private void exported() {
        as("alice");
        String csv = text(ok(service.get("usage?format=csv")));
        String[] lines = csv.substring(4).split("\r\n");
        assertTrue(lines[0].startsWith("training_run_id,base_model,project_id,session_id,tokens_trained"),
                csv);
        assertTrue(lines[1].startsWith(run + ",ultrasafe/usf-tiny,\"p,1\"," + SESSION + ",6,"), csv);
        JsonNode hours = ok(service.get("billing/usage/events?starting_on=2020-01-01T00:00:00Z")).json();
        long trained = 0;
        for (JsonNode event : hours.get("data")) if (event.at("/event_info/type").asText().equals("training"))
            trained += event.at("/event_info/token_count").asLong();
        assertEquals(12, trained, hours::toString);
        assertEquals(0, ok(service.get("billing/usage/events?ending_before=2020-01-01T00:00:00Z")).json()
                .get("data").size());
        for (String same : List.of("2020-01-01T00:00:00", "2020-01-01T02:00:00%2B02:00"))
            assertEquals(withoutStorage(hours),
                    withoutStorage(ok(service.get("billing/usage/events?starting_on=" + same)).json()));
        assertEquals(400, service.get("billing/usage/events?starting_on=now").status());
        assertEquals(1, ok(service.get("usage?project_id=p%2C1")).json().get("runs").size());
        assertEquals(0, ok(service.get("usage?project_id=q")).json().get("runs").size());
    }

    @Test void noCellOfACsvFileIsAFormula() {
        service = open("");
        try {
            as("alice");
            List<String> formulas = List.of("=A1", "=A1\\n", "-1+A1", "+1", "@A1", "\\n=A1", "\\t=A1");
            for (int i = 0; i < formulas.size(); i++) {
                String session = SESSION.substring(0, SESSION.length() - 1) + i;
                ok(service.post("create_session", "{'session_id': '" + session + "', 'project_id': '"
                        + formulas.get(i) + "'}"));
                ok(service.post("create_model", "{'session_id': '" + session
                        + "', 'model_seq_id': 1, 'base_model': 'ultrasafe/usf-tiny'}"));
            }
            Wait.until(() -> usage().path("runs").size() == formulas.size(), () ->
                    "the usage is " + usage());
            String csv = text(ok(service.get("usage?format=csv")));
            for (String formula : formulas) {
                String cell = "'" + formula.replace("\\n", "\n").replace("\\t", "\t");
                assertTrue(csv.contains(",ultrasafe/usf-tiny," + (cell.contains("\n") ? "\"" + cell + "\""
                        : cell) + ","), formula + " in " + csv);
            }
        } finally {
            service.close();
        }
    }

    private List<String> audited() {
        as("alice");
        var events = new ArrayList<String>();
        ok(service.get("audit")).json().get("entries").forEach(e -> events.add(e.get("event").asText()));
        return events.reversed();
    }

    @Test void theAuditLogSaysWhatWasDoneAndSurvivesARestart() {
        service = open("");
        try {
            work();
            String checkpoint = "training_runs/" + run + "/checkpoints/weights/a";
            model(1);
            ok(service.get(checkpoint + "/archive"));
            ok(service.send("POST", checkpoint + "/publish", new byte[0]));
            ok(service.send("DELETE", checkpoint + "/publish", new byte[0]));
            ok(service.send("DELETE", checkpoint, new byte[0]));
            List<String> all = List.of("create_model", "save_weights", "save_weights_for_sampler",
                    "download_checkpoint", "publish_checkpoint", "unpublish_checkpoint", "delete_checkpoint");
            assertEquals(all, audited());
            service.close();
            service = open("");
            assertEquals(all, audited());
            JsonNode newest = service.get("audit?event_type=checkpoints").json().get("entries").get(0);
            assertEquals("tinker://" + run + "/weights/a", newest.get("tinker_path").asText());
            assertEquals(12, newest.get("key_id").asText().length());
            as("bob");
            assertEquals(0, service.get("audit").json().get("entries").size());
        } finally {
            service.close();
        }
    }

    @Test void anAccountHasAsManyRunsAndBytesAsItMayHave() {
        service = open(", limits { runs = 2, owners { bob { stored-bytes = 1, runs = 0 } } }");
        try {
            as("alice");
            ok(service.post("create_session", "{'session_id': '" + SESSION + "'}"));
            run = model(1);
            model(2);
            model(1);
            Answer refused = service.post("create_model", "{'session_id': '" + SESSION
                    + "', 'model_seq_id': 3, 'base_model': 'ultrasafe/usf-tiny'}");
            assertEquals("limit_reached", refused.text("error"), () -> text(refused));
            assertTrue(refused.text("message").contains("bios.gateway.limits.runs"), () -> text(refused));
            ok(service.post("unload_model", "{'model_id': '" + run + "'}"));
            Wait.until(() -> service.post("create_model", "{'session_id': '" + SESSION
                    + "', 'model_seq_id': 3, 'base_model': 'ultrasafe/usf-tiny'}").status() == 200,
                    () -> "an unloaded run counts");
            as("bob");
            ok(service.post("create_session", "{'session_id': '0a1b2c3d-0000-4000-8000-0000000000b1'}"));
            run = ok(service.post("create_model", "{'session_id': '0a1b2c3d-0000-4000-8000-0000000000b1',"
                    + " 'model_seq_id': 1, 'base_model': 'ultrasafe/usf-tiny'}")).text("model_id");
            done("save_weights", 1, "'path': 'a'");
            Answer full = service.post("save_weights", "{'model_id': '" + run
                    + "', 'seq_id': 2, 'path': 'b'}");
            assertEquals("limit_reached", full.text("error"), () -> text(full));
            assertTrue(full.text("message").contains("stored-bytes"), () -> text(full));
        } finally {
            service.close();
        }
    }
}
