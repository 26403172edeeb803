package bios.coordinator.gateway;

import static bios.coordinator.gateway.TestService.SESSION;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.TestService.Answer;
import java.net.http.HttpRequest;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;

/// Keys, and what somebody else's things look like.
class AccountsTest {
    private static final Accounts TWO = Accounts.fromLines("keys",
            List.of("# two people", "", "alice tml-alice-key", "bob  tml-bob-key", "alice tml-alice-second"));

    @Test void aKeyGivesItsAccount() {
        assertEquals(Optional.of("alice"), TWO.of(Optional.of("tml-alice-key")));
        assertEquals(Optional.of("alice"), TWO.of(Optional.of("tml-alice-second")));
        assertEquals(Optional.of("bob"), TWO.of(Optional.of("tml-bob-key")));
        assertEquals(Optional.empty(), TWO.of(Optional.of("tml-bob-key ")));
        assertEquals(Optional.empty(), TWO.of(Optional.of("")));
        assertEquals(Optional.empty(), TWO.of(Optional.empty()));
        assertEquals(Optional.of("default"), Accounts.open().of(Optional.empty()));
    }

    @Test void aBadFileNamesItsLineAndNoKey() {
        for (String line : List.of("alice", "alice two keys", "al/ice tml-alice-key", "alice short")) {
            var bad = assertThrows(IllegalArgumentException.class,
                    () -> Accounts.fromLines("keys", List.of("ok tml-okay-key", line)));
            assertTrue(bad.getMessage().startsWith("keys, line 2: "), bad.getMessage());
            assertFalse(bad.getMessage().contains("tml-"), bad.getMessage());
        }
        assertThrows(IllegalArgumentException.class,
                () -> Accounts.fromLines("keys", List.of("a tml-same-key", "b tml-same-key")));
        assertThrows(IllegalArgumentException.class, () -> Accounts.fromLines("keys", List.of("# nothing")));
    }

    @Test void aStrangerSeesNothingOfOthers() {
        try (var service = new TestService(TWO, "long-poll = 100 ms")) {
            assertEquals(200, service.get("healthz").status());
            Answer nobody = service.get("training_runs");
            assertEquals(401, nobody.status());
            assertEquals("unauthenticated", nobody.text("error"));
            service.key = "tml-alice-key";
            service.post("create_session", "{'session_id': '" + SESSION + "'}");
            String run = service.run(1);
            service.post("save_weights", "{'model_id': '" + run + "', 'seq_id': 1, 'path': 'a'}");
            String sampler = service.post("create_sampling_session",
                    "{'session_id': '" + SESSION + "', 'sampling_session_seq_id': 1,"
                    + " 'base_model': 'ultrasafe/usf-tiny'}").text("sampling_session_id");
            String sample = "{'sampling_session_id': '" + sampler
                    + "', 'seq_id': 0, 'prompt': {'chunks': [{'tokens': [1]}]}}";
            String request = service.post("asample", sample).text("request_id");
            assertEquals(200, service.post("retrieve_future", "{'request_id': '" + request + "'}").status());
            service.key = "tml-bob-key";
            for (Answer answer : List.of(service.get("training_runs/" + run), service.get("training_runs/"
                    + run + "/checkpoints"), service.post("get_info", "{'model_id': '" + run + "'}"),
                    service.post("optim_step", "{'model_id': '" + run + "', 'seq_id': 2}"),
                    service.post("weights_info", "{'path': 'bios://" + run + "/a'}"),
                    service.post("unload_model", "{'model_id': '" + run + "'}"),
                    service.post("retrieve_future", "{'request_id': '" + run + ":1'}"),
                    service.post("retrieve_future", "{'request_id': '" + run + ":create'}"),
                    service.post("retrieve_future", "{'request_id': '" + request + "'}"),
                    service.post("asample", sample),
                    service.get("samplers/" + sampler), service.get("sessions/" + SESSION),
                    service.post("session_heartbeat", "{'session_id': '" + SESSION + "'}"),
                    service.post("create_session", "{'session_id': '" + SESSION + "'}"),
                    service.get("training_runs/" + run + "/checkpoints/weights/a/archive"),
                    service.send(HttpRequest.newBuilder(service.uri("training_runs/" + run
                            + "/checkpoints/weights/a")).DELETE()),
                    service.post("create_model", "{'session_id': '" + SESSION
                            + "', 'model_seq_id': 1, 'base_model': 'ultrasafe/usf-tiny'}"),
                    service.post("load_training_client", "{'session_id': '" + SESSION
                            + "', 'model_seq_id': 2, 'path': 'bios://" + run + "/a'}")))
                assertEquals(404, answer.status(), () -> new String(answer.bytes()));
            assertEquals(0, service.get("training_runs").json().get("training_runs").size());
            assertEquals(0, service.get("checkpoints").json().get("cursor").get("total_count").asInt());
        }
    }
}
