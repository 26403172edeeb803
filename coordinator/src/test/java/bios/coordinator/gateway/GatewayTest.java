package bios.coordinator.gateway;

import static bios.coordinator.gateway.TestService.SESSION;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.fleet.EngineDirectory;
import bios.coordinator.gateway.TestClient.Answer;
import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.UnservedModel;
import bios.protocol.run.Operation;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunId;
import bios.protocol.run.RunUsage;
import java.net.http.HttpRequest;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/// The HTTP protocol, with fakes of runs, sessions and an engine.
class GatewayTest {
    private static TestService service;

    @BeforeAll static void start() {
        service = new TestService(Accounts.open(), "long-poll = 100 ms");
    }

    @AfterAll static void stop() {
        service.close();
    }

    @AfterEach void calm() {
        service.runs.slow = false;
        service.runs.silent = false;
        service.runs.fault = null;
        service.runs.refuse = null;
        service.sessions.damaged = false;
        service.silentEngine = false;
        service.agent = "test";
    }

    private static String batch(String run, long seq) {
        return "{'model_id': '" + run + "', 'seq_id': " + seq
                + ", 'forward_backward_input': {'data': [{'model_input': {'chunks': [{'type':"
                + " 'encoded_text', 'tokens': [1, 2, 3]}]}, 'loss_fn_inputs': {'target_tokens': {'dtype':"
                + " 'int64', 'shape': [3], 'data': [2, 3, 4]},"
                + " 'weights': {'dtype': 'float32', 'data': [1, 0.5, 0]}}}], 'loss_fn': 'cross_entropy'},"
                + " 'type': 'forward_backward'}";
    }

    private static Operation operation(String run, long seq) {
        return service.runs.runs.get(new RunId(run)).operations.get(seq);
    }

    @Test void theHandshakeAnswers() {
        assertEquals("ok", service.get("healthz").text("status"));
        Answer config = service.post("client/config", "{'sdk_version': '0.25.0', 'whatever': 1}");
        assertFalse(config.json().get("use_pyqwest_transport").asBoolean());
        assertEquals(300,
                service.post("client/dynamic_config", "{}").json().get("refresh_interval_sec").asInt());
        assertEquals("accepted",
                service.post("telemetry", "{'events': [{'data': [1, 'x']}]}").text("status"));
        var model = service.get("get_server_capabilities").json().get("supported_models").get(0);
        assertEquals("ultrasafe/usf-tiny", model.get("model_name").asText());
        assertEquals(64, model.get("max_context_length").asInt());
        assertEquals("session_heartbeat",
                service.post("session_heartbeat", "{'session_id': '" + SESSION + "'}").text("type"));
        assertTrue(service.post("create_session",
                "{'tags': ['a'], 'user_metadata': {'k': [1, null]}}").text("session_id").length() > 30);
        assertEquals(2, service.post("tokenize",
                "{'base_model': 'ultrasafe/usf-tiny', 'text': 'ab'}").json().get("tokens").size());
        assertEquals("text of 2", service.post("detokenize",
                "{'base_model': 'ultrasafe/usf-tiny', 'tokens': [1, 2]}").text("text"));
    }

    @Test void aRepeatedCreationFindsTheSameRun() {
        String first = service.run(100);
        assertEquals(first, service.run(100));
        assertTrue(first.matches("usf-tiny-[0-9a-f]{16}"), first);
        assertFalse(first.equals(service.run(101)));
        Answer created = service.post("retrieve_future",
                "{'request_id': '" + first + ":create', 'allow_metadata_only': true}");
        assertEquals(200, created.status());
        assertEquals(first, created.text("model_id"));
        Answer info = service.post("get_info", "{'model_id': '" + first + "', 'type': 'get_info'}");
        assertEquals("ultrasafe/usf-tiny", info.text("model_name"));
        assertEquals(32, info.json().get("lora_rank").asInt());
        assertEquals(7, info.json().get("target_modules").size());
        var config = service.runs.runs.get(new RunId(first)).config;
        assertFalse(config.loraChosen());
        Answer other = service.post("create_model",
                "{'session_id': '" + SESSION + "', 'model_seq_id': 100, 'base_model': 'ultrasafe/usf-tiny',"
                + " 'lora_config': {'rank': 8}}");
        assertEquals(400, other.status());
        assertEquals("conflict", other.text("error"));
    }

    @Test void operationsAreAcceptedOnceAndGiveTheirResults() {
        String run = service.run(1);
        Answer future = service.post("forward_backward", batch(run, 1));
        assertEquals(run + ":1", future.text("request_id"));
        int before = service.runs.submitted;
        assertEquals(future.text("request_id"),
                service.post("forward_backward", batch(run, 1)).text("request_id"));
        assertEquals(before, service.runs.submitted);
        Answer result = service.result(future);
        assertEquals("forward_backward", result.text("type"));
        assertEquals(-0.5,
                result.json().get("loss_fn_outputs").get(0).get("logprobs").get("data").get(2).asDouble());
        assertEquals(1.5, result.json().get("metrics").get("loss:sum").asDouble());
        Answer packed = service.result(future, "Accept", "application/vnd.bios+json, application/json");
        assertEquals(12, Base64.getDecoder().decode(packed.json().get("loss_fn_outputs").get(0)
                .get("logprobs").get("data_base64").asText()).length);
        Answer forward = service.post("forward",
                batch(run, 2).replace("forward_backward_input", "forward_input"));
        assertEquals("forward", service.result(forward).text("type"));
        Answer step = service.post("optim_step",
                "{'model_id': '" + run + "', 'seq_id': 5, 'adam_params': {'learning_rate': 0.01}}");
        assertEquals(1, service.result(step).json().get("step").asInt());
        assertEquals(0.01, ((Operation.OptimStep) operation(run, 5)).params().orElseThrow().learningRate());
        assertEquals(0.95, ((Operation.OptimStep) operation(run, 5)).params().orElseThrow().beta2());
        service.post("optim_step", "{'model_id': '" + run + "', 'seq_id': 6, 'adam_params': null}");
        assertTrue(((Operation.OptimStep) operation(run, 6)).params().isEmpty());
        Answer other = service.post("optim_step", "{'model_id': '" + run + "', 'seq_id': 1}");
        assertEquals(400, other.status());
        assertEquals("conflict", other.text("error"));
    }

    @Test void packedTensorsReadAsPlainOnesDo() {
        String run = service.run(2);
        service.post("forward_backward", batch(run, 1));
        var tokens = ByteBuffer.allocate(12).order(ByteOrder.LITTLE_ENDIAN).putInt(1).putInt(2).putInt(3);
        var targets = ByteBuffer.allocate(24).order(ByteOrder.LITTLE_ENDIAN).putLong(2).putLong(3).putLong(4);
        var weights = ByteBuffer.allocate(12).order(ByteOrder.LITTLE_ENDIAN).putFloat(1).putFloat(0.5f)
                .putFloat(0);
        service.post("forward_backward",
                "{'model_id': '" + run + "', 'seq_id': 2, 'forward_backward_input': {'loss_fn':"
                + " 'cross_entropy', 'data': [" + "{'model_input': {'tokens_base64': '" + base64(tokens)
                + "'}, 'loss_fn_inputs': {'target_tokens': {'dtype': 'int64', 'shape': [3],"
                + " 'data_base64': '" + base64(targets)
                + "'}, 'weights': {'dtype': 'float32', 'shape': [3], 'data_base64': '" + base64(weights)
                + "'}}}]}}");
        assertEquals(operation(run, 1), operation(run, 2));
    }

    private static String base64(ByteBuffer bytes) {
        return Base64.getEncoder().encodeToString(bytes.array());
    }

    @Test void aLargeBatchGoesToTheBlobStoreAndARefusedOneLeavesNothing() {
        String run = service.run(3);
        String datum = "{'model_input': {'chunks': [{'type': 'encoded_text', 'tokens': " + "[1"
                + ", 1".repeat(59) + "]}]}, 'loss_fn_inputs':"
                + " {'target_tokens': {'dtype': 'int64', 'data': [2" + ", 2".repeat(59) + "]}}}";
        String body = "{'model_id': '" + run
                + "', 'seq_id': 1, 'forward_backward_input': {'loss_fn': 'cross_entropy', 'data': [" + datum
                + (", " + datum).repeat(999) + "]}}";
        assertEquals(200, service.post("forward_backward", body).status());
        assertEquals(1, service.blobs.list("runs/" + run + "/operations/1").size());
        assertEquals(1000, ((Operation.ForwardBackward) operation(run, 1)).data().size());
        String foreign = "usf-tiny-ffffffffffffffff";
        assertEquals(404, service.post("forward_backward", body.replace(run, foreign)).status());
        assertEquals(0, service.blobs.list("runs/" + foreign).size());
    }

    @Test void savesGivePathsInTheSchemeOfTheClient() {
        String run = service.run(4);
        Answer saved = service.result(service.post("save_weights",
                "{'model_id': '" + run + "', 'seq_id': 1, 'path': 'a', 'metadata': {'note': {'x': 1.50}}}"));
        assertEquals("bios://" + run + "/a", saved.text("path"));
        assertTrue(new String(saved.bytes()).contains("\"note\":{\"x\":1.50}"));
        service.agent = "AsyncTinker/Python 0.25.0";
        Answer tinker = service.post("retrieve_future", "{'request_id': '" + run + ":1'}");
        assertEquals("tinker://" + run + "/weights/a", tinker.text("path"));
        Answer sampler = service.result(service.post("save_weights_for_sampler",
                "{'model_id': '" + run + "', 'seq_id': 2, 'path': 's'}"));
        assertEquals("tinker://" + run + "/sampler_weights/s", sampler.text("path"));
        assertTrue(sampler.json().get("sampling_session_id").isNull());
        Answer info = service.post("weights_info",
                "{'tinker_path': 'tinker://" + run + "/sampler_weights/s'}");
        assertEquals("sampler", info.text("kind"));
        assertTrue(info.json().get("train_mlp").asBoolean());
        assertFalse(info.json().get("train_unembed").asBoolean());
    }

    @Test void aRetriedSnapshotUnderAnotherSamplerNumberIsOneOperation() {
        String run = service.run(5);
        Answer first = service.post("save_weights_for_sampler",
                "{'model_id': '" + run + "', 'seq_id': 1, 'sampling_session_seq_id': 50}");
        int submitted = service.runs.submitted;
        Answer again = service.post("save_weights_for_sampler",
                "{'model_id': '" + run + "', 'seq_id': 1, 'sampling_session_seq_id': 51}");
        assertEquals(submitted, service.runs.submitted);
        assertEquals(SESSION + ":sample:50", service.result(first).text("sampling_session_id"));
        assertEquals(SESSION + ":sample:51", service.result(again).text("sampling_session_id"));
        assertEquals(SESSION + ":sample:50", service.result(first).text("sampling_session_id"));
        assertTrue(service.result(first).json().get("path").isNull());
        service.post("optim_step", "{'model_id': '" + run + "', 'seq_id': 2}");
        Answer taken = service.post("save_weights_for_sampler",
                "{'model_id': '" + run + "', 'seq_id': 3, 'sampling_session_seq_id': 50}");
        assertEquals("conflict", service.result(taken).text("code"));
    }

    @Test void loadingATrainingClientMakesARunAndLoadsIntoIt() {
        String run = service.run(6);
        service.post("save_weights", "{'model_id': '" + run + "', 'seq_id': 1, 'path': 'a'}");
        service.post("save_weights_for_sampler", "{'model_id': '" + run + "', 'seq_id': 2, 'path': 's'}");
        String call = "{'session_id': '" + SESSION + "', 'model_seq_id': 60, 'path': 'bios://" + run + "/a'}";
        Answer future = service.post("load_training_client", call);
        assertEquals(future.text("request_id"),
                service.post("load_training_client", call).text("request_id"));
        Answer result = service.result(future);
        assertEquals("create_model", result.text("type"));
        assertEquals(7, result.json().get("step").asInt());
        String made = result.text("model_id");
        assertFalse(made.equals(run));
        assertEquals("bios://" + run + "/a", service.get("training_runs/" + made).text("parent_path"));
        Answer missing = service.post("load_training_client", call.replace("/a'", "/missing'"));
        assertEquals(404, missing.status());
        assertEquals("path", missing.text("field"));
        Answer sampler = service.post("load_training_client", call.replace("/a'", "/sampler_weights/s'"));
        assertEquals(400, sampler.status());
        assertEquals("weights_only", sampler.text("error"));
        Answer loaded = service.result(service.post("load_weights", "{'model_id': '" + run
                + "', 'seq_id': 9, 'path': 'tinker://" + run + "/weights/a', 'optimizer': false}"));
        assertEquals("load_weights", loaded.text("type"));
    }

    @Test void pollsEndWithoutAResultWhenTheRunIsSlowSilentOrUnavailable() {
        String run = service.run(7);
        Answer future = service.post("optim_step", "{'model_id': '" + run + "', 'seq_id': 1}");
        service.runs.slow = true;
        Answer pending = service.result(future);
        assertEquals(408, pending.status());
        assertEquals("try_again", pending.text("type"));
        assertEquals(run + ":1", pending.text("request_id"));
        service.runs.silent = true;
        assertEquals(408, service.result(future).status());
        Answer submit = service.post("optim_step", "{'model_id': '" + run + "', 'seq_id': 2}");
        assertEquals(503, submit.status());
        assertTrue(submit.response().headers().firstValue("Retry-After").isPresent());
        service.runs.silent = false;
        service.runs.refuse = Reason.UNAVAILABLE;
        assertEquals(408, service.result(future).status());
        service.runs.refuse = Reason.TOO_MANY;
        Answer full = service.post("optim_step", "{'model_id': '" + run + "', 'seq_id': 2}");
        assertEquals(429, full.status());
        assertEquals("queue_full", full.text("error"));
        assertTrue(full.response().headers().firstValue("Retry-After").isPresent());
        service.runs.refuse = Reason.CLOSED;
        assertEquals(400, service.post("optim_step", "{'model_id': '" + run + "', 'seq_id': 2}").status());
    }

    /// Tinker's clients repeat any 5xx at once and for ever; others tell their user.
    @Test void aPollOfWhatIsDamagedWaitsForTinkersClientsAndFailsForOthers() {
        String run = service.run(70);
        Answer saved = service.post("save_weights_for_sampler", "{'model_id': '" + run
                + "', 'seq_id': 1, 'sampling_session_seq_id': 70}");
        service.sessions.damaged = true;
        Answer session = service.result(saved);
        assertEquals(List.of(500, "session_damaged"), List.of(session.status(), session.text("error")));
        service.agent = "AsyncTinker/Python 0.25.0";
        session = service.result(saved);
        assertEquals(List.of(408, "paused_capacity"), List.of(session.status(), session.text("queue_state")));
        service.runs.refuse = Reason.DAMAGED;
        Answer damaged = service.result(saved);
        assertEquals(408, damaged.status());
        assertTrue(damaged.text("queue_state_reason").contains("run_damaged"), damaged.text("request_id"));
        service.runs.refuse = Reason.NOT_FOUND;
        assertEquals(404, service.result(saved).status());
        service.agent = "test";
        service.runs.refuse = Reason.DAMAGED;
        assertEquals(500, service.result(saved).status());
    }

    @Test void aFailedOperationIsA200WithItsCause() {
        String run = service.run(8);
        Answer future = service.post("optim_step", "{'model_id': '" + run + "', 'seq_id': 1}");
        service.runs.fault = Fault.user("weights_only", "no optimizer there");
        Answer failed = service.result(future);
        assertEquals(200, failed.status());
        assertEquals("no optimizer there", failed.text("error"));
        assertEquals("user", failed.text("category"));
        assertEquals("weights_only", failed.text("code"));
    }

    @Test void aModelThatIsNotServedIsListedWithItsReason() {
        EngineDirectory all = service.directory.get();
        try {
            service.directory.set(all.withEngine(service.engine, new EngineReply.Description(List.of(
                    TestService.MODEL), 0, 0, List.of(new UnservedModel("a b", "/m/a b", "is no name"),
                    new UnservedModel("org/part", "/m/part", "is cut off")))));
            var unserved = service.get("get_server_capabilities").json().get("unserved_models");
            assertEquals("a b", unserved.get(0).get("model_name").asText());
            assertEquals("is cut off", unserved.get(1).get("reason").asText());
            Answer refused = service.post("create_model", "{'session_id': '" + SESSION
                    + "', 'model_seq_id': 77, 'base_model': 'org/part'}");
            assertEquals(503, refused.status());
            assertTrue(refused.text("message").contains("is cut off"), refused.text("message"));
        } finally {
            service.directory.set(all);
        }
    }

    /// Tinker's client asks for log-probabilities with one token more.
    @Test void aPromptThatFillsTheContextIsScored() {
        String sampler = service.post("create_sampling_session", "{'session_id': '" + SESSION
                + "', 'sampling_session_seq_id': 33, 'base_model': 'ultrasafe/usf-tiny'}")
                .text("sampling_session_id");
        String body = "{'sampling_session_id': '" + sampler + "', 'seq_id': 1, 'prompt': {'chunks':"
                + " [{'type': 'encoded_text', 'tokens': [1" + ", 1".repeat(63) + "]}]}, 'num_samples': 1,"
                + " 'sampling_params': {'max_tokens': 1}, 'prompt_logprobs': true}";
        assertEquals(200, service.post("asample", body).status());
        Answer longer = service.post("asample", body.replace("[1,", "[1, 1,").replace("'seq_id': 1",
                "'seq_id': 2"));
        assertEquals(400, longer.status());
        assertEquals("prompt", longer.text("field"));
    }

    @Test void samplingIsIdempotentAndPinned() {
        Answer sampler = service.post("create_sampling_session", "{'session_id': '" + SESSION
                + "', 'sampling_session_seq_id': 1, 'base_model': 'ultrasafe/usf-tiny'}");
        String id = sampler.text("sampling_session_id");
        assertEquals(SESSION + ":sample:1", id);
        String body = "{'sampling_session_id': '" + id
                + "', 'seq_id': 1000000000000000000, 'prompt': {'chunks': [{'type': 'encoded_text',"
                + " 'tokens': [1]},"
                + " {'type': 'encoded_text', 'tokens': [2]}]}, 'num_samples': 2, 'sampling_params':"
                + " {'max_tokens': 2, 'seed': 18446744073709551615, 'stop': [7]},"
                + " 'prompt_logprobs': true, 'topk_prompt_logprobs': 1}";
        Answer future = service.post("asample", body);
        assertEquals(future.text("request_id"), service.post("asample", body).text("request_id"));
        Answer result = service.result(future);
        assertEquals(200, result.status());
        assertEquals("sample", result.text("type"));
        assertEquals(2, result.json().get("sequences").size());
        assertEquals("length", result.json().get("sequences").get(0).get("stop_reason").asText());
        assertFalse(result.json().get("sequences").get(0).has("model_logprobs"));
        Answer scaled = service.result(service.post("asample", body.replace("1000000000000000000", "7")
                .replace("'max_tokens'", "'temperature': 0.5, 'max_tokens'")));
        assertEquals(-0.25, scaled.json().get("sequences").get(0).get("logprobs").get(0).asDouble());
        assertEquals(-0.5, scaled.json().get("sequences").get(0).get("model_logprobs").get(0).asDouble());
        assertTrue(result.json().get("prompt_logprobs").get(0).isNull());
        assertTrue(result.json().get("topk_prompt_logprobs").get(0).isNull());
        assertEquals(3, result.json().get("topk_prompt_logprobs").get(1).get(0).get(0).asInt());
        synchronized (service.sampled) {
            var mine = service.sampled.stream().filter(s -> s.task().id().startsWith(id)).toList();
            assertEquals(2, mine.size());
            assertEquals(-1, mine.getFirst().task().seed());
            assertArrayEquals(new int[] {1, 2}, mine.getFirst().task().prompt());
            assertEquals(List.of(7), mine.getFirst().task().params().stopTokens());
        }
        assertEquals(410, service.post("retrieve_future", "{'request_id': 'sample:r1:nothing'}").status());
        assertEquals(410, service.post("retrieve_future",
                "{'request_id': 'sample:elsewhere:nothing'}").status());
        assertEquals("ultrasafe/usf-tiny", service.get("samplers/" + id).text("base_model"));
        assertEquals("ultrasafe/usf-tiny",
                service.get("samplers/" + id.replace(":", "%3A")).text("base_model"));
    }

    @Test void aSamplerOfAPathKeepsItAndAPendingSampleIsAPollWithoutResult() {
        String run = service.run(9);
        service.post("save_weights_for_sampler", "{'model_id': '" + run + "', 'seq_id': 1, 'path': 's'}");
        String call = "{'session_id': '" + SESSION
                + "', 'sampling_session_seq_id': 20, 'model_path': 'bios://" + run + "/sampler_weights/s'}";
        String id = service.post("create_sampling_session", call).text("sampling_session_id");
        assertEquals(id, service.post("create_sampling_session", call).text("sampling_session_id"));
        assertEquals("bios://" + run + "/sampler_weights/s",
                service.get("samplers/" + id).text("model_path"));
        assertEquals(400, service.post("create_sampling_session", "{'session_id': '" + SESSION
                + "', 'sampling_session_seq_id': 20, 'base_model': 'ultrasafe/usf-tiny'}").status());
        service.silentEngine = true;
        Answer future = service.post("asample", "{'sampling_session_id': '" + id
                + "', 'seq_id': 0, 'prompt': {'chunks': [{'tokens': [1]}]}}");
        Answer pending = service.result(future);
        assertEquals(408, pending.status());
        assertEquals("try_again", pending.text("type"));
    }

    @Test void aSamplerWhoseWeightsWereReleasedIsExpired() {
        String run = service.run(19);
        service.post("save_weights_for_sampler", "{'model_id': '" + run + "', 'seq_id': 1, 'path': 's'}");
        String id = service.post("create_sampling_session", "{'session_id': '" + SESSION
                + "', 'sampling_session_seq_id': 30, 'model_path': 'bios://" + run + "/sampler_weights/s'}")
                .text("sampling_session_id");
        String body = "{'sampling_session_id': '" + id + "', 'seq_id': %d, 'prompt': {'chunks':"
                + " [{'tokens': [1]}]}}";
        service.runs.released = true;
        service.post("asample", body.formatted(1));
        Answer expired = service.post("asample", body.formatted(2));
        service.runs.released = false;
        assertEquals(410, expired.status());
        assertEquals("snapshot_expired", expired.text("error"));
        assertTrue(expired.text("message").contains("were released"), expired.text("message"));
    }

    @Test void timingsAreTheNewestOperationsInMilliseconds() {
        String run = service.post("create_model", "{'session_id': '" + SESSION
                + "', 'model_seq_id': 30, 'base_model': 'ultrasafe/usf-tiny'}").text("model_id");
        var all = service.get("training_runs/" + run + "/timings").json().get("timings");
        assertEquals("{\"seq_id\":7,\"operation\":\"forward_backward\",\"journal_ms\":1.25,\"queue_ms\":0.0,"
                + "\"engine_ms\":2.0}", all.get(0).toString());
        assertEquals("save_weights_for_sampler", all.get(1).get("operation").asText());
        var newest = service.get("training_runs/" + run + "/timings?limit=1").json().get("timings");
        assertEquals(List.of(all.get(1)), List.of(newest.get(0)));
        assertEquals(400, service.get("training_runs/" + run + "/timings?limit=0").status());
    }

    @Test void listsShowRunsCheckpointsAndSessions() {
        String run = service.post("create_model",
                "{'session_id': '" + SESSION + "', 'model_seq_id': 10, 'base_model': 'ultrasafe/usf-tiny',"
                + " 'user_metadata': {'a': 'b', 'n': 1, 'o': {'x': []}}}").text("model_id");
        service.post("save_weights", "{'model_id': '" + run + "', 'seq_id': 1, 'path': 'a'}");
        Answer one = service.get("training_runs/" + run + "?access_scope=owned");
        assertEquals("1", one.json().get("user_metadata").get("n").asText());
        assertEquals("{\"x\":[]}", one.json().get("user_metadata").get("o").asText());
        assertEquals("weights/a", one.json().get("last_checkpoint").get("checkpoint_id").asText());
        assertTrue(one.text("last_request_time").endsWith("Z"));
        assertFalse(one.json().get("corrupted").asBoolean(true));
        synchronized (service.runs) {
            service.runs.runs.get(new RunId(run)).corrupted = Optional.of("tensor 'a' has NaN at [0, 1]");
        }
        assertTrue(service.get("training_runs/" + run).json().get("corrupted").asBoolean());
        Answer all = service.get("training_runs?limit=1&offset=1");
        assertEquals(1, all.json().get("training_runs").size());
        assertEquals(1, all.json().get("cursor").get("offset").asInt());
        Answer checkpoints = service.get("training_runs/" + run + "/checkpoints");
        assertEquals("tinker://" + run + "/weights/a",
                checkpoints.json().get("checkpoints").get(0).get("tinker_path").asText());
        assertTrue(service.get("checkpoints").json().get("cursor").get("total_count").asInt() >= 1);
        assertTrue(service.get("sessions").json().get("sessions").toString().contains(SESSION));
        assertTrue(service.get("sessions/" + SESSION).json().get("training_run_ids").toString()
                .contains(run));
        assertEquals(204, service.send("PUT", "training_runs/" + run + "/checkpoints/weights/a/ttl",
                "{\"ttl_seconds\": null}".getBytes()).status());
        assertEquals(204, service.send(HttpRequest.newBuilder(service.uri("training_runs/" + run
                + "/checkpoints/weights%2Fa")).DELETE()).status());
        assertEquals(404, service.send(HttpRequest.newBuilder(service.uri("training_runs/" + run
                + "/checkpoints/weights/a")).DELETE()).status());
    }

    @Test void anUnloadedRunAnswersItsUnloadRequest() {
        String run = service.run(11);
        assertEquals(404, service.post("retrieve_future", "{'request_id': '" + run + ":unload'}").status());
        Answer future = service.post("unload_model", "{'model_id': '" + run + "'}");
        assertEquals("unload_model", service.result(future).text("type"));
    }

    @Test void whatNeedsOneFieldOfARunFetchesNoCheckpoints() {
        int before = service.runs.descriptions;
        Answer creation = service.post("create_model", "{'session_id': '" + SESSION
                + "', 'model_seq_id': 97, 'base_model': 'ultrasafe/usf-tiny'}");
        String run = creation.text("model_id");
        assertEquals(run, service.result(creation).text("model_id"));
        assertEquals(200, service.post("get_info", "{'model_id': '" + run + "'}").status());
        Answer snapshot = service.post("save_weights_for_sampler",
                "{'model_id': '" + run + "', 'seq_id': 1, 'sampling_session_seq_id': 970}");
        assertEquals(200, snapshot.status(), () -> text(snapshot));
        Answer unloading = service.post("unload_model", "{'model_id': '" + run + "'}");
        assertEquals("unload_model", service.result(unloading).text("type"));
        assertEquals(before, service.runs.descriptions);
    }

    @Test void anInternalErrorIsA500WithoutDetails() {
        String run = service.run(12);
        service.runs.runs.get(new RunId(run)).config = null;
        Answer broken = service.post("get_info", "{'model_id': '" + run + "'}");
        assertEquals(500, broken.status());
        assertEquals("internal", broken.text("error"));
        assertEquals("server", broken.text("category"));
        assertFalse(new String(broken.bytes()).contains("NullPointer"));
        assertEquals(broken.text("request_id"),
                broken.response().headers().firstValue("X-Request-Id").orElseThrow());
        service.runs.runs.remove(new RunId(run));
    }

    private static String text(Answer answer) {
        return new String(answer.bytes(), StandardCharsets.UTF_8);
    }

    @Test void healthReadinessAndMetricsNeedNoKey() {
        assertEquals(200, service.get("/healthz").status());
        Answer ready = service.get("/readyz");
        assertEquals(200, ready.status());
        assertEquals("ready", ready.text("status"));
        service.get("training_runs/usf-tiny-000000000000/timings");
        Answer metrics = service.get("/metrics");
        assertEquals(200, metrics.status());
        assertTrue(metrics.response().headers().firstValue("content-type").orElseThrow()
                .startsWith("text/plain; version=0.0.4"), metrics.response().headers()::toString);
        String page = text(metrics);
        assertTrue(page.contains("bios_http_requests_total{method=\"GET\","
                + "route=\"training_runs/*/timings\",status=\"404\"} "), page);
        assertFalse(page.contains("usf-tiny-000000000000"));
        for (String name : List.of("jvm_memory_used_bytes", "jvm_gc_collection_seconds",
                "process_resident_memory_bytes", "bios_ready{check=\"models\"} 1.0"))
            assertTrue(page.contains(name), name);
    }

    @Test void aServiceThatIsNotReadyReportsTheReason() {
        EngineDirectory before = service.directory.getAndSet(EngineDirectory.EMPTY);
        Answer ready = service.get("/readyz");
        service.directory.set(before);
        assertEquals(503, ready.status());
        assertEquals("not_ready", ready.text("status"));
        assertTrue(text(ready).contains("no engine that holds a base model is known"), text(ready));
        assertEquals(200, service.get("/healthz").status());
    }

    @Test void theHistoryOfARunEndsWithItsNewestEntry() {
        String run = service.run(90);
        Answer all = service.get("training_runs/" + run + "/history");
        assertEquals(2, all.json().get("history").size());
        var last = service.get("training_runs/" + run + "/history?limit=1").json().get("history");
        assertEquals(1, last.size());
        assertEquals(TestService.json("{'time': '1970-01-01T00:00:02Z', 'node': 'node-1',"
                + " 'kind': 'recovery_point', 'position': 7, 'seq_id': 9,"
                + " 'detail': {'bytes': 100, 'step': 3}, 'number': 2}"), last.get(0));
        assertEquals(400, service.get("training_runs/" + run + "/history?limit=0").status());
    }

    @Test void aPollOfAStalledRunReportsTheReason() {
        String run = service.run(91);
        Answer future = service.post("forward_backward", batch(run, 1));
        service.runs.stalled = Fault.server("blob_damaged", "blob a/b is damaged");
        Answer waiting = service.result(future);
        service.runs.stalled = null;
        assertEquals(408, waiting.status());
        assertEquals("paused_capacity", waiting.text("queue_state"));
        assertTrue(waiting.text("queue_state_reason").contains("blob a/b is damaged"));
    }

    @Test void longRecordsAreMadeWhileTheyAreRead() {
        try (var large = new TestService(Accounts.open(), "long-poll = 100 ms, archive-url-secret = s")) {
            for (int i = 0; i < 60; i++) large.run(i);
            List<RunUsage.Hour> hours = IntStream.range(0, 60).mapToObj(i ->
                    new RunUsage.Hour(i, 1 + i, 0, 0)).toList();
            large.runs.runs.values().iterator().next().usage = Optional.of(new RunUsage(0, 0, 0, 0, hours));
            String trace = large.get("sessions/" + SESSION + "/trace_export").text("url")
                    .replaceFirst(".*/api/v1/", "");
            Map<String, String> arrays = Map.of("billing/usage/events", "data", "usage", "runs", trace,
                    "traceEvents");
            arrays.forEach((path, items) -> {
                Answer answer = large.get(path);
                assertEquals(200, answer.status(), path);
                assertEquals(path.equals(trace) ? 60 + 60 * 2 * 4 : 60, answer.json().path(items).size(),
                        path);
                assertTrue(answer.response().headers().firstValue("Content-Length").isEmpty(), path);
            });
            while (large.memory.taken() != 0) Thread.onSpinWait();
        }
    }

    @Test void theRecordsOfAnAccountAreWhatExists() {
        String run = service.run(900);
        service.post("save_weights", "{'model_id': '" + run + "', 'seq_id': 1, 'path': 'kept'}");
        var all = service.get("audit").json().get("entries");
        var saved = service.get("audit?event_type=checkpoints&day=2023-11-14").json().get("entries");
        assertTrue(all.size() > saved.size());
        assertTrue(saved.findValuesAsText("tinker_path").contains("tinker://" + run + "/weights/kept"));
        assertEquals(0, service.get("audit?day=2020-01-01").json().get("entries").size());
        assertEquals(400, service.get("audit?day=soon").status());
        assertEquals(400, service.get("audit?event_type=some").status());
        assertEquals(0, service.get("billing/usage/events?starting_on=2026-01-01T00:00:00Z").json()
                .get("data").size());
        assertEquals("ready", service.get("sessions/" + SESSION + "/trace_export").text("status"));
    }
}
