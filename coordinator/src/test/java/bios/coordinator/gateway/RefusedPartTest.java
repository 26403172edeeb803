package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.TestClient.Answer;
import java.nio.file.Path;
import java.util.UUID;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// A part of a batch that is wrong, from a client that cuts batches into parts, with the real entity of the
/// run.
class RefusedPartTest {
    private static String part(String run, long seq, int token) {
        return "{'model_id': '" + run + "', 'seq_id': " + seq + ", 'forward_backward_input': {'data':"
                + " [{'model_input': {'chunks': [{'tokens': [" + token + "]}]}, 'loss_fn_inputs':"
                + " {'target_tokens': {'dtype': 'int64', 'data': [1]}}}], 'loss_fn': 'cross_entropy'}}";
    }

    private static Answer step(RealService service, String run, long seq) {
        return service.post("optim_step", "{'model_id': '" + run + "', 'seq_id': " + seq + "}");
    }

    /// The final result of a future.
    private static Answer done(RealService service, Answer future) {
        Answer result = service.result(future);
        while (result.status() == 408) result = service.result(future);
        return result;
    }

    private static String run(RealService service) {
        String session = service.post("create_session",
                "{'session_id': '" + new UUID(1, 2) + "'}").text("session_id");
        Answer created = service.post("create_model", "{'session_id': '" + session
                + "', 'model_seq_id': 0, 'base_model': 'ultrasafe/usf-tiny'}");
        assertEquals(200, created.status(), created.json().toString());
        return created.text("model_id");
    }

    @Test void failsInItsPlaceAndNoStepAppliesTheOthers(@TempDir Path folder) {
        try (var service = new RealService(folder, Accounts.open(), "long-poll = 2 s")) {
            String run = run(service);
            service.agent = "AsyncTinker/Python 0.25.0";
            Answer good = service.post("forward_backward", part(run, 1, 5));
            Answer wrong = service.post("forward_backward", part(run, 2, 1000));
            assertEquals(200, wrong.status());
            assertEquals(wrong.text("request_id"),
                    service.post("forward_backward", part(run, 2, 1000)).text("request_id"));
            Answer step = step(service, run, 3);
            assertEquals("forward_backward", done(service, good).text("type"));
            // The step is asked for first: the failure of the part has not been read yet.
            Answer stepped = done(service, step);
            assertEquals("user", stepped.text("category"), stepped.json().toString());
            Answer failed = done(service, wrong);
            assertEquals("user", failed.text("category"));
            assertTrue(failed.text("error").contains("1000 is not a token id"), failed.text("error"));
            done(service, service.post("forward_backward", part(run, 4, 7)));
            Answer next = done(service, step(service, run, 5));
            assertEquals("optim_step", next.text("type"));
            assertEquals(1, next.json().path("metrics").path("grad_norm").asDouble(), next.json().toString());
            service.agent = "test";
            assertEquals(400, service.post("forward_backward", part(run, 6, 1000)).status());
            // Any client may say that it is a part of a larger batch.
            Answer part = service.post("forward_backward", part(run, 6, 1000).replace("{'model_id'",
                    "{'part': true, 'model_id'"));
            assertEquals(200, part.status());
            assertEquals("user", done(service, step(service, run, 7)).text("category"));
        }
    }

    @Test void failsTheNextStepEvenIfItsFailureWasReadBefore(@TempDir Path folder) {
        try (var service = new RealService(folder, Accounts.open(), "long-poll = 2 s")) {
            String run = run(service);
            service.agent = "AsyncTinker/Python 0.25.0";
            done(service, service.post("forward_backward", part(run, 1, 5)));
            Answer failed = done(service, service.post("forward_backward", part(run, 2, 1000)));
            assertEquals("user", failed.text("category"));
            Answer step = done(service, step(service, run, 3));
            assertEquals("user", step.text("category"), step.json().toString());
            assertTrue(step.text("error").contains("1000 is not a token id"), step.text("error"));
            assertEquals("forward_backward",
                    done(service, service.post("forward_backward", part(run, 4, 5))).text("type"));
            assertEquals("optim_step", done(service, step(service, run, 5)).text("type"));
            // Passes in between are executed and dropped with the rest of the batch.
            done(service, service.post("forward_backward", part(run, 6, 1000)));
            assertEquals("forward_backward",
                    done(service, service.post("forward_backward", part(run, 7, 5))).text("type"));
            assertEquals("user", done(service, step(service, run, 8)).text("category"));
            done(service, service.post("forward_backward", part(run, 9, 5)));
            Answer next = done(service, step(service, run, 10));
            assertEquals(1, next.json().path("metrics").path("grad_norm").asDouble(), next.json().toString());
        }
    }

    /// A part that only the engine can find wrong.
    @Test void failsTheNextStepAlsoIfTheEngineRefusesIt(@TempDir Path folder) {
        try (var service = new RealService(folder, Accounts.open(), "long-poll = 2 s")) {
            String run = run(service);
            done(service, service.post("forward_backward", part(run, 1, 5)));
            Answer failed = done(service,
                    service.post("forward_backward", part(run, 2, ScriptedEngine.FAILING)));
            assertEquals("user", failed.text("category"), failed.json().toString());
            Answer step = done(service, step(service, run, 3));
            assertEquals("user", step.text("category"), "it applied the rest of the batch: " + step.json());
            done(service, service.post("forward_backward", part(run, 4, 7)));
            Answer next = done(service, step(service, run, 5));
            assertEquals(1, next.json().path("metrics").path("grad_norm").asDouble(), next.json().toString());
            // A batch of one part has no rest: whoever knows of its failure goes on with the next batch.
            assertEquals("user", done(service, service.post("forward_backward",
                    part(run, 6, ScriptedEngine.FAILING))).text("category"));
            done(service, service.post("forward_backward", part(run, 7, 7)));
            assertEquals("optim_step", done(service, step(service, run, 8)).text("type"));
        }
    }

    @Test void ofAForwardPassBlocksNothing(@TempDir Path folder) {
        try (var service = new RealService(folder, Accounts.open(), "long-poll = 2 s")) {
            String run = run(service);
            service.agent = "AsyncTinker/Python 0.24.1";
            Answer wrong = service.post("forward",
                    part(run, 1, 1000).replace("forward_backward_input", "forward_input"));
            Answer step = step(service, run, 2);
            assertEquals("user", done(service, wrong).text("category"));
            assertEquals("optim_step", done(service, step).text("type"));
        }
    }
}
