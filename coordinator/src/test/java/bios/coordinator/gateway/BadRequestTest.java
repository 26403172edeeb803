package bios.coordinator.gateway;

import static bios.coordinator.gateway.TestService.SESSION;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.TestClient.Answer;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.net.Socket;
import java.net.http.HttpRequest;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/// Malformed requests, each with the status and the field that the response must contain.
class BadRequestTest {
    private static TestService service;
    private static String run;
    private static String sampler;

    @BeforeAll static void start() {
        service = new TestService(Accounts.open(),
                "long-poll = 100 ms, max-body-bytes = 65536, max-datums = 3, max-tokens-per-request = 100,"
                + " max-metadata-bytes = 200");
        run = service.run(1);
        service.post("save_weights", "{'model_id': '" + run + "', 'seq_id': 1000, 'path': 'a'}");
        sampler = service.post("create_sampling_session", "{'session_id': '" + SESSION
                + "', 'sampling_session_seq_id': 1," + " 'base_model': 'ultrasafe/usf-tiny'}")
                .text("sampling_session_id");
    }

    @AfterAll static void stop() {
        service.close();
    }

    private static void refuses(Answer answer, int status, String field, String what) {
        assertEquals(status, answer.status(),
                () -> what + " gave " + new String(answer.bytes(), StandardCharsets.UTF_8));
        assertEquals(field, answer.text("field") == null ? "" : answer.text("field"),
                () -> what + ": " + answer.text("message"));
        assertTrue(answer.text("message").length() > 10, what);
        assertEquals(answer.text("message"), answer.text("detail"), what);
        assertEquals(status < 500 ? "user" : "server", answer.text("category"), what);
        assertTrue(answer.json().hasNonNull("error") && answer.json().hasNonNull("request_id"), what);
    }

    /// Each row: status, field, and a replacement in a valid body.
    private static void table(String call, String good, List<String[]> rows) {
        for (String[] row : rows) {
            String bad = good.replace(row[2], row[3]);
            if (!row[2].isEmpty()) assertTrue(!bad.equals(good), () -> "'" + row[2] + "' is not in " + good);
            refuses(service.post(call, row[2].isEmpty() ? row[3] : bad), Integer.parseInt(row[0]), row[1],
                    call + " " + (row[2].isEmpty() ? row[3] : bad));
        }
    }

    private static String[] row(int status, String field, String part, String instead) {
        return new String[] {Integer.toString(status), field, part, instead};
    }

    @Test void anEmptyListOfStopsIsNoMistake() {
        String sample = "{'sampling_session_id': '" + sampler + "', 'seq_id': 900, 'prompt': {'chunks':"
                + " [{'tokens': [1]}]}, 'sampling_params': {'max_tokens': 2, 'stop': []}}";
        assertEquals(200, service.post("asample", sample).status());
        assertEquals(200, service.post("asample", sample.replace("900", "901").replace("[]}", "null}"))
                .status());
    }

    @Test void aFieldThatIsNullIsOneThatIsAbsent() {
        String good = "{'model_id': '" + service.run(77) + "', 'seq_id': 1,"
                + " 'forward_backward_input': {'data': [{'model_input': {'chunks': [{'tokens': [1, 2]}]},"
                + " 'loss_fn_inputs': {'target_tokens': {'dtype': 'int64', 'data': [2, 3]}, 'weights': null,"
                + " 'masks': null}, 'extra': null}], 'loss_fn': 'cross_entropy',"
                + " 'loss_fn_config': {'beta': null}}, 'surprise': null}";
        Answer answer = service.post("forward_backward", good);
        assertEquals(200, answer.status(), answer.text("message"));
    }

    @Test void batches() {
        String good = "{'model_id': '" + run
                + "', 'seq_id': 1, 'forward_backward_input': {'data': [{'model_input': {'chunks': [{'type':"
                + " 'encoded_text', 'tokens': [1, 2, 3]}]}, 'loss_fn_inputs': {'target_tokens': {'dtype':"
                + " 'int64', 'shape': [3], 'data': [2, 3, 4]},"
                + " 'weights': {'dtype': 'float32', 'shape': [3], 'data': [1, 0.5, 0]}}}], 'loss_fn':"
                + " 'cross_entropy', 'loss_fn_config': {}}}";
        String input = "forward_backward_input";
        String datum = input + ".data[0]";
        String target = datum + ".loss_fn_inputs.target_tokens";
        String weights = datum + ".loss_fn_inputs.weights";
        String chunk = datum + ".model_input.chunks[0]";
        var rows = new ArrayList<String[]>();
        rows.add(row(400, "model_id", "'model_id': '" + run + "', ", ""));
        rows.add(row(400, "model_id", "'model_id': '" + run + "'", "'model_id': 7"));
        rows.add(row(400, "model_id", "'model_id': '" + run + "'", "'model_id': null"));
        rows.add(row(404, "model_id", "'" + run + "'", "'nonsense'"));
        rows.add(row(404, "model_id", "'" + run + "'", "'usf-tiny-0123456789abcdef'"));
        rows.add(row(404, "model_id", "'" + run + "'", "'other-0123456789abcdef'"));
        rows.add(row(404, "model_id", "'" + run + "'", "'../../etc/passwd'"));
        rows.add(row(400, "seq_id", "'seq_id': 1,", ""));
        rows.add(row(400, "seq_id", "'seq_id': 1,", "'seq_id': 0,"));
        rows.add(row(400, "seq_id", "'seq_id': 1,", "'seq_id': -1,"));
        rows.add(row(400, "seq_id", "'seq_id': 1,", "'seq_id': 1.0,"));
        rows.add(row(400, "seq_id", "'seq_id': 1,", "'seq_id': 1e0,"));
        rows.add(row(400, "seq_id", "'seq_id': 1,", "'seq_id': '1',"));
        rows.add(row(400, "seq_id", "'seq_id': 1,", "'seq_id': true,"));
        rows.add(row(400, "seq_id", "'seq_id': 1,", "'seq_id': [1],"));
        rows.add(row(400, "seq_id", "'seq_id': 1,", "'seq_id': 9223372036854775808,"));
        rows.add(row(400, "seq_id", "'seq_id': 1,", "'seq_id': 1" + "0".repeat(300) + ","));
        rows.add(row(400, "seq_id", "'seq_id': 1,", "'seq_id': 1, 'seq_id': 1,"));
        rows.add(row(400, "surprise", "'seq_id': 1,", "'seq_id': 1, 'surprise': 1,"));
        rows.add(row(400, input, "'" + input + "': {", "'" + input + "': null, 'x': {"));
        rows.add(row(400, input, "", "{'model_id': '" + run + "', 'seq_id': 1, '" + input + "': []}"));
        rows.add(row(400, input, "", "{'model_id': '" + run + "', 'seq_id': 1, '" + input + "': 'x'}"));
        rows.add(row(400, input + ".loss_fn", "'loss_fn': 'cross_entropy', ", ""));
        rows.add(row(400, input + ".loss_fn", "'cross_entropy'", "'entropy'"));
        rows.add(row(400, input + ".loss_fn", "'cross_entropy'", "3"));
        rows.add(row(400, input + ".loss_fn_config.beta", "'loss_fn_config': {}",
                "'loss_fn_config': {'beta': 1}"));
        rows.add(row(400, input + ".loss_fn_config.beta", "'loss_fn_config': {}",
                "'loss_fn_config': {'beta': 'x'}"));
        rows.add(row(400, input + ".loss_fn_config", "'loss_fn_config': {}", "'loss_fn_config': 3"));
        rows.add(row(400, input + ".extra", "'loss_fn_config': {}", "'extra': {}"));
        rows.add(row(400, input + ".data", "",
                "{'model_id': '" + run + "', 'seq_id': 1, '" + input + "': {'data': [], 'loss_fn': 'ppo'}}"));
        rows.add(row(400, input + ".data", "",
                "{'model_id': '" + run + "', 'seq_id': 1, '" + input + "': {'data': {}, 'loss_fn': 'ppo'}}"));
        rows.add(row(400, input + ".data", "",
                "{'model_id': '" + run + "', 'seq_id': 1, '" + input + "': {'loss_fn': 'ppo'}}"));
        rows.add(row(400, input + ".data[0]", "", "{'model_id': '" + run + "', 'seq_id': 1, '" + input
                + "': {'data': [1], 'loss_fn': 'ppo'}}"));
        rows.add(row(400, input + ".data[0]", "", "{'model_id': '" + run + "', 'seq_id': 1, '" + input
                + "': {'data': [null], 'loss_fn': 'ppo'}}"));
        rows.add(row(400, input + ".data", "", "{'model_id': '" + run + "', 'seq_id': 1, '" + input
                + "': {'data': [{}, {}, {}, {}], 'loss_fn': 'ppo'}}"));
        rows.add(row(400, datum + ".model_input", "'model_input'", "'model_inputs'"));
        rows.add(row(400, datum + ".extra", "'loss_fn_inputs': {", "'extra': 1, 'loss_fn_inputs': {"));
        rows.add(row(400, datum + ".model_input", "[1, 2, 3]", "[]"));
        rows.add(row(400, datum + ".model_input", "[{'type': 'encoded_text', 'tokens': [1, 2, 3]}]", "[]"));
        rows.add(row(400, datum + ".model_input.chunks", "[{'type': 'encoded_text', 'tokens': [1, 2, 3]}]",
                "'abc'"));
        rows.add(row(400, datum + ".model_input.tokens",
                "'chunks': [{'type': 'encoded_text', 'tokens': [1, 2, 3]}]",
                "'chunks': [{'tokens': [1]}], 'tokens': [1]"));
        rows.add(row(400, datum + ".model_input", "[1, 2, 3]", "[1" + ", 1".repeat(64) + "]"));
        rows.add(row(400, chunk + ".type", "'encoded_text'", "'image'"));
        rows.add(row(400, chunk + ".type", "'encoded_text'", "'audio'"));
        rows.add(row(400, chunk + ".tokens", "[1, 2, 3]", "'1 2 3'"));
        rows.add(row(400, chunk + ".tokens", "[1, 2, 3]", "1"));
        rows.add(row(400, chunk + ".tokens[0]", "[1, 2, 3]", "['a', 2, 3]"));
        rows.add(row(400, chunk + ".tokens[1]", "[1, 2, 3]", "[1, 'a', 3]"));
        rows.add(row(400, chunk + ".tokens[1]", "[1, 2, 3]", "[1, null, 3]"));
        rows.add(row(400, chunk + ".tokens[1]", "[1, 2, 3]", "[1, 2.5, 3]"));
        rows.add(row(400, chunk + ".tokens[1]", "[1, 2, 3]", "[1, 100, 3]"));
        rows.add(row(400, chunk + ".tokens[2]", "[1, 2, 3]", "[1, 2, -1]"));
        rows.add(row(400, chunk + ".tokens[2]", "[1, 2, 3]", "[1, 2, 4294967297]"));
        rows.add(row(400, chunk + ".tokens[2]", "[1, 2, 3]", "[1, 2, 99999999999999999999]"));
        rows.add(row(400, chunk + ".token", "'tokens'", "'tokens': [1], 'token'"));
        rows.add(row(400, datum + ".model_input.tokens_base64",
                "{'chunks': [{'type': 'encoded_text', 'tokens': [1, 2, 3]}]}", "{'tokens_base64': '????'}"));
        rows.add(row(400, datum + ".model_input.tokens_base64",
                "{'chunks': [{'type': 'encoded_text', 'tokens': [1, 2, 3]}]}", "{'tokens_base64': 'AAA='}"));
        rows.add(row(400, datum + ".model_input.tokens_base64[0]",
                "{'chunks': [{'type': 'encoded_text', 'tokens': [1, 2, 3]}]}",
                "{'tokens_base64': '/////w=='}"));
        rows.add(row(400, datum + ".loss_fn_inputs", "'loss_fn_inputs': {",
                "'loss_fn_inputs': null, 'y': {"));
        rows.add(row(400, datum + ".loss_fn_inputs.masks", "'weights'", "'masks'"));
        rows.add(row(400, datum + ".loss_fn_inputs.mask[1]", "'weights'", "'mask'"));
        rows.add(row(400, target, "'target_tokens': {'dtype': 'int64', 'shape': [3], 'data': [2, 3, 4]}, ",
                ""));
        rows.add(row(400, target, "{'dtype': 'int64', 'shape': [3], 'data': [2, 3, 4]}", "[2, 3, 4]"));
        rows.add(row(400, target + ".dtype", "'dtype': 'int64', ", ""));
        rows.add(row(400, target + ".dtype", "'int64'", "'int32'"));
        rows.add(row(400, target, "'int64'", "'float32'"));
        rows.add(row(400, target + ".data", "'shape': [3], 'data': [2, 3, 4]",
                "'shape': [2], 'data': [2, 3, 4]"));
        rows.add(row(400, target, "'shape': [3], 'data': [2, 3, 4]", "'shape': [1, 3], 'data': [2, 3, 4]"));
        rows.add(row(400, target, "'shape': [3], 'data': [2, 3, 4]", "'shape': [3, 0], 'data': []"));
        rows.add(row(400, target, "'shape': [3], 'data': [2, 3, 4]",
                "'shape': [3, 1, 1], 'data': [2, 3, 4]"));
        rows.add(row(400, weights, "'shape': [3], 'data': [2, 3, 4]",
                "'shape': [3, 2], 'data': [2, 3, 4, 5, 6, 7]"));
        rows.add(row(400, target + "[4]", "'target_tokens': {'dtype': 'int64', 'shape': [3], 'data':"
                + " [2, 3, 4]}, 'weights': {'dtype': 'float32', 'shape': [3], 'data': [1, 0.5, 0]}",
                "'target_tokens': {'dtype': 'int64', 'shape': [3, 2], 'data': [2, 3, 4, 5, 100, 7]}"));
        rows.add(row(400, target, "'shape': [3], 'data': [2, 3, 4]", "'data': [2, 3]"));
        rows.add(row(400, target, "'shape': [3], 'data': [2, 3, 4]", "'shape': [3]"));
        rows.add(row(400, target + ".shape[0]", "'shape': [3], 'data': [2, 3, 4]",
                "'shape': [-3], 'data': [2, 3, 4]"));
        rows.add(row(400, target + ".shape", "'shape': [3], 'data': [2, 3, 4]",
                "'shape': 3, 'data': [2, 3, 4]"));
        rows.add(row(400, target + ".shape", "'shape': [3], 'data': [2, 3, 4]",
                "'shape': [1,1,1,1,1,1,1,1,3], 'data': [2, 3, 4]"));
        for (String end : List.of("", ", 0", ", 0, 2147483647")) rows.add(row(400, target + ".shape",
                "'shape': [3], 'data': [2, 3, 4]",
                "'shape': [2147483647, 2147483647, 2147483647" + end + "], 'data': []"));
        rows.add(row(400, target, "'target_tokens': {'dtype': 'int64', 'shape': [3], 'data': [2, 3, 4]},"
                + " 'weights': {'dtype': 'float32', 'shape': [3], 'data': [1, 0.5, 0]}",
                "'target_tokens': {'dtype': 'int64', 'shape': [3, 0], 'data': []}, 'mask': {'dtype':"
                + " 'float32', 'shape': [3, 0], 'data': []}"));
        rows.add(row(400, target + ".shape", "'shape': [3], 'data': [2, 3, 4]",
                "'data_base64': 'AAAAAAAAAAA='"));
        rows.add(row(400, target + ".data_base64", "'shape': [3], 'data': [2, 3, 4]",
                "'shape': [1], 'data_base64': 'AAAA'"));
        rows.add(row(400, target + ".data_base64", "'shape': [3], 'data': [2, 3, 4]",
                "'shape': [3], 'data_base64': 'not base64'"));
        rows.add(row(400, target, "'data': [2, 3, 4]", "'data': [2, 3, 4], 'data_base64': ''"));
        rows.add(row(400, target + ".data[1]", "[2, 3, 4]", "[2, 3.5, 4]"));
        rows.add(row(400, target + "[1]", "[2, 3, 4]", "[2, -100, 4]"));
        rows.add(row(400, target + "[2]", "[2, 3, 4]", "[2, 3, 100]"));
        rows.add(row(400, target + ".sparse_crow_indices", "'data': [2, 3, 4]",
                "'data': [2, 3, 4], 'sparse_crow_indices': [0]"));
        rows.add(row(400, weights + ".data[1]", "[1, 0.5, 0]", "[1, 1e39, 0]"));
        rows.add(row(400, weights + ".data[1]", "[1, 0.5, 0]", "[1, 1e999, 0]"));
        rows.add(row(400, weights + ".data[2]", "[1, 0.5, 0]", "[1, 0.5, {}]"));
        rows.add(row(400, "", "[1, 0.5, 0]", "[1, NaN, 0]"));
        rows.add(row(400, "", "[1, 0.5, 0]", "[1, Infinity, 0]"));
        rows.add(row(400, "", "[1, 0.5, 0]", "[1, -Infinity, 0]"));
        rows.add(row(400, weights, "'weights': {'dtype': 'float32', 'shape': [3], 'data': [1, 0.5, 0]}",
                "'weights': {'dtype': 'float32', 'shape': [3], 'data_base64': 'AADAfwAAAAAAAAAA'}"));
        table("forward_backward", good, rows);
        String second = good.replace("}}}], 'loss_fn'",
                "}}}, {'model_input': {'chunks': [{'tokens': [1]}]}, 'loss_fn_inputs': {'target_tokens':"
                + " {'dtype': 'int64', 'data': [1]}, 'weights': {'dtype': 'float32', 'data': [1, 2]}}}],"
                + " 'loss_fn'");
        refuses(service.post("forward_backward", second), 400, input + ".data[1].loss_fn_inputs.weights",
                "the second datum");
        String many = good.replace("[1, 2, 3]", "[1" + ", 1".repeat(59) + "]")
                .replace("'shape': [3], 'data': [2, 3, 4]", "'data': [1" + ", 1".repeat(59) + "]")
                .replace("'shape': [3], 'data': [1, 0.5, 0]", "'data': [1" + ", 1".repeat(59) + "]");
        String datumText = many.substring(many.indexOf("[{'model_input'") + 1, many.indexOf("], 'loss_fn'"));
        refuses(service.post("forward_backward", many.replace(datumText, datumText + ", " + datumText)), 400,
                input + ".data", "too many tokens");
        refuses(service.post("forward", good), 400, "forward_input", "the other call's input");
        refuses(service.post("forward_backward", good.replace("'cross_entropy'", "'ppo'")), 400, weights,
                "an input of another loss");
    }

    @Test void thresholdsOfPositions() {
        String good = "{'model_id': '" + run + "', 'seq_id': 9, 'forward_backward_input': {'data':"
                + " [{'model_input': {'chunks': [{'tokens': [1, 2]}]}, 'loss_fn_inputs': {'target_tokens':"
                + " {'dtype': 'int64', 'data': [2, 3]}, 'logprobs': {'dtype': 'float32', 'data': [-1, -1]},"
                + " 'advantages': {'dtype': 'float32', 'data': [1, 1]}, 'clip_low_threshold': {'dtype':"
                + " 'float32', 'data': [0.5, 0.25]}}}], 'loss_fn': 'ppo'}}";
        String inputs = "forward_backward_input.data[0].loss_fn_inputs.";
        table("forward_backward", good, List.of(
                row(400, inputs + "clip_low_threshold", "[0.5, 0.25]", "[0.5, 1.25]"),
                row(400, inputs + "clip_low_threshold", "[0.5, 0.25]", "[0.5]"),
                row(400, inputs + "clip_low_threshold", "'data': [0.5, 0.25]",
                        "'shape': [2], 'data_base64': 'AADAfwAAAAA='"),
                row(400, inputs + "clip_high_threshold", "'clip_low_threshold': {'dtype': 'float32', 'data':"
                        + " [0.5, 0.25]", "'clip_high_threshold': {'dtype': 'float32', 'data': [0.5, 0.25]"),
                row(400, inputs + "target_tokens", "'data': [2, 3]", "'shape': [2, 1], 'data': [2, 3]"),
                row(400, "forward_backward_input.loss_fn_config.clip_high_threshold", "'ppo'",
                        "'ppo', 'loss_fn_config': {'clip_high_threshold': 1e39}"),
                row(400, inputs + "clip_low_threshold", "'ppo'", "'dro'")));
        assertEquals(200, service.post("forward_backward", good).status());
    }

    @Test void optimizerSettings() {
        String good = "{'model_id': '" + run
                + "', 'seq_id': 2, 'adam_params': {'learning_rate': 0.1, 'beta1': 0.9, 'eps': 1e-8}}";
        table("optim_step", good, List.of(
                row(400, "adam_params", "{'learning_rate': 0.1, 'beta1': 0.9, 'eps': 1e-8}", "7"),
                row(400, "adam_params.learning_rate", "0.1", "-0.1"),
                row(400, "adam_params.learning_rate", "0.1", "'0.1'"),
                row(400, "adam_params.learning_rate", "0.1", "false"),
                row(400, "adam_params.learning_rate", "0.1", "1" + "0".repeat(399)),
                row(400, "adam_params.learning_rate", "0.1", "1e39"),
                row(400, "adam_params.eps", "1e-8", "1e300"),
                row(400, "adam_params.weight_decay", "'eps': 1e-8", "'weight_decay': 4e38"),
                row(400, "adam_params.grad_clip_norm", "'eps': 1e-8", "'grad_clip_norm': 1e39"),
                row(400, "adam_params.beta1", "0.9", "1"),
                row(400, "adam_params.beta1", "0.9", "1.5"),
                row(400, "adam_params.beta3", "'beta1'", "'beta3'"),
                row(400, "adam_params.eps", "1e-8", "-1"),
                row(400, "adam_params.eps", "1e-8", "1e-8, 'eps': 1"),
                row(400, "adam_params.grad_clip_norm", "'eps': 1e-8", "'grad_clip_norm': -1"),
                row(400, "adam_params.weight_decay", "'eps': 1e-8", "'weight_decay': []"),
                row(400, "", "0.1", "01"),
                row(400, "", "0.1", ".1"),
                row(400, "", "0.1", "+1")));
    }

    @Test void adapterShapes() {
        String good = "{'session_id': '" + SESSION
                + "', 'model_seq_id': 5, 'base_model': 'ultrasafe/usf-tiny', 'lora_config': {'rank': 8,"
                + " 'seed': 1}, 'user_metadata': {}}";
        table("create_model", good, List.of(row(400, "session_id", "'session_id'", "'session'"),
                row(404, "session_id", SESSION, "0a1b2c3d-0000-4000-8000-0000000000ff"),
                row(404, "session_id", SESSION, "no such session"),
                row(400, "model_seq_id", "5", "-1"), row(400, "model_seq_id", "'model_seq_id': 5, ", ""),
                row(404, "base_model", "ultrasafe/usf-tiny", "ultrasafe/usf-other"),
                row(404, "base_model", "ultrasafe/usf-tiny", "usf-tiny"), row(400, "base_model",
                        "ultrasafe/usf-tiny", "../../x"), row(400, "base_model", "ultrasafe/usf-tiny", ""),
                row(400, "lora_config", "{'rank': 8, 'seed': 1}", "[]"), row(400, "lora_config.rank",
                        "'rank': 8", "'rank': 0"), row(400, "lora_config.rank", "'rank': 8", "'rank': 257"),
                row(400, "lora_config.rank", "'rank': 8", "'rank': 8.0"),
                row(400, "lora_config.seed", "'seed': 1", "'seed': 18446744073709551616"),
                row(400, "lora_config.seed", "'seed': 1", "'seed': -9223372036854775809"),
                row(400, "lora_config.seed", "'seed': 1", "'seed': 'x'"),
                row(400, "lora_config.alpha", "'seed': 1", "'alpha': 0"),
                row(400, "lora_config.alpha", "'seed': 1", "'alpha': 1e39"),
                row(400, "lora_config.alpha", "'seed': 1", "'alpha': 1e-50"),
                row(400, "lora_config.alpha", "'seed': 1", "'alpha': '32'"),
                row(400, "lora_config.train_mlp", "'seed': 1", "'train_mlp': 1"),
                row(400, "lora_config", "'seed': 1", "'train_mlp': false, 'train_attn': false"),
                row(400, "lora_config.dropout", "'seed': 1", "'dropout': 0.1"),
                row(400, "lora_config.target_modules", "'seed': 1", "'target_modules': []"),
                row(400, "lora_config.target_modules", "'seed': 1", "'target_modules': 'q_proj'"),
                row(400, "lora_config.target_modules[1]", "'seed': 1", "'target_modules': ['q_proj', 'qkv']"),
                row(400, "lora_config.target_modules[1]", "'seed': 1",
                        "'target_modules': ['q_proj', 'q_proj']"),
                row(400, "lora_config.target_modules[0]", "'seed': 1", "'target_modules': [1]"),
                row(400, "user_metadata", "'user_metadata': {}", "'user_metadata': []"),
                row(400, "user_metadata", "'user_metadata': {}", "'user_metadata': 'x'"),
                row(400, "user_metadata", "'user_metadata': {}",
                        "'user_metadata': {'a': '" + "x".repeat(300) + "'}"),
                row(400, "user_metadata.a", "'user_metadata': {}", "'user_metadata': {'a': 1, 'a': 2}"),
                row(400, "user_metadata.a", "'user_metadata': {}", "'user_metadata': {'a': '\\ud800'}")));
        table("load_training_client", "{'session_id': '" + SESSION + "', 'model_seq_id': 6, 'path': 'bios://"
                + run + "/a'}", List.of(row(400, "path", "bios://" + run + "/a", run + "/a"),
                        row(400, "path", "bios://" + run + "/a", "bios://" + run),
                        row(400, "path", "/a'", "/a/b/c'"), row(400, "path", "/a'", "/weights'"),
                        row(400, "path", "/a'", "/..'"), row(400, "path", "bios://" + run, "file:///etc"),
                        row(404, "path", "/a'", "/b'"), row(404, "path", run, "usf-tiny-0123456789ab"),
                        row(404, "session_id", SESSION, "0a1b2c3d-0000-4000-8000-0000000000ff")));
    }

    @Test void saves() {
        table("save_weights", "{'model_id': '" + run + "', 'seq_id': 3, 'path': 'a', 'ttl_seconds': 5,"
                + " 'overwrite': true, 'metadata': {}}",
                List.of(row(400, "path", "'path': 'a', ", ""), row(400, "path", "'path': 'a'", "'path': ''"),
                        row(400, "path", "'path': 'a'", "'path': '../a'"), row(400, "path", "'path': 'a'",
                                "'path': 'a/b'"), row(400, "path", "'path': 'a'", "'path': 'weights'"),
                        row(400, "path", "'path': 'a'", "'path': 'sampler_weights'"),
                        row(400, "path", "'path': 'a'", "'path': '" + "a".repeat(129) + "'"),
                        row(400, "path", "'path': 'a'", "'path': ['a']"),
                        row(400, "ttl_seconds", "'ttl_seconds': 5", "'ttl_seconds': 0"),
                        row(400, "ttl_seconds", "'ttl_seconds': 5", "'ttl_seconds': -5"),
                        row(400, "ttl_seconds", "'ttl_seconds': 5", "'ttl_seconds': 9223372036854775807"),
                        row(400, "overwrite", "true", "'yes'"),
                        row(400, "metadata", "'metadata': {}", "'metadata': 1")));
        table("save_weights_for_sampler", "{'model_id': '" + run + "', 'seq_id': 4, 'path': 'a'}", List.of(
                row(400, "path", ", 'path': 'a'", ""),
                row(400, "path", "'path': 'a'", "'path': 'a', 'sampling_session_seq_id': 1"),
                row(400, "sampling_session_seq_id", "'path': 'a'", "'sampling_session_seq_id': -1"),
                row(400, "sampling_session_seq_id", "'path': 'a'",
                        "'sampling_session_seq_id': 1000000000000000000"),
                row(400, "metadata", "'path': 'a'", "'path': 'a', 'metadata': {}")));
        table("load_weights", "{'model_id': '" + run + "', 'seq_id': 5, 'path': 'bios://" + run
                + "/a', 'optimizer': true}", List.of(row(400, "path", "bios://" + run + "/a", "a"),
                        row(400, "optimizer", "true", "1"), row(400, "weights_access_token",
                                "'optimizer': true", "'weights_access_token': 7")));
        table("weights_info", "{'path': 'bios://" + run + "/a'}", List.of(
                row(400, "path", "", "{}"),
                row(400, "path", "'path'", "'tinker_path': 'x', 'path'"),
                row(400, "tinker_path", "{'path': 'bios", "{'tinker_path': 'ftp"),
                row(404, "path", "/a", "/c")));
    }

    @Test void samples() {
        String good = "{'sampling_session_id': '" + sampler
                + "', 'seq_id': 0, 'prompt': {'chunks': [{'type': 'encoded_text', 'tokens': [1, 2]}]},"
                + " 'num_samples': 1, 'sampling_params': {'max_tokens': 4, 'temperature': 1, 'top_k': -1,"
                + " 'top_p': 1, 'seed': 1, 'stop': ['x']},"
                + " 'prompt_logprobs': false, 'topk_prompt_logprobs': 0}";
        var rows = new ArrayList<>(List.of(row(400, "sampling_session_id", "'sampling_session_id'",
                "'sampler'"), row(404, "sampling_session_id", sampler, "nothing"),
                row(404, "sampling_session_id", sampler, SESSION + ":sample:99"),
                row(404, "sampling_session_id", sampler, "0a1b2c3d-0000-4000-8000-0000000000ff:sample:1"),
                row(400, "seq_id", "'seq_id': 0", "'seq_id': -1"),
                row(400, "seq_id", "'seq_id': 0", "'seq_id': 9223372036854775808"), row(400, "prompt",
                        "'prompt': {'chunks': [{'type': 'encoded_text', 'tokens': [1, 2]}]}, ", ""),
                row(400, "prompt", "{'chunks': [{'type': 'encoded_text', 'tokens': [1, 2]}]}", "'text'"),
                row(400, "prompt", "[1, 2]", "[]"), row(400, "prompt.chunks[0].tokens[1]", "[1, 2]",
                        "[1, 200]"), row(400, "prompt", "[1, 2]", "[1" + ", 1".repeat(70) + "]"),
                row(400, "num_samples", "'num_samples': 1", "'num_samples': 0"),
                row(400, "num_samples", "'num_samples': 1", "'num_samples': 1025"),
                row(400, "prompt_logprobs", "'prompt_logprobs': false", "'prompt_logprobs': 'no'"),
                row(400, "topk_prompt_logprobs", "'topk_prompt_logprobs': 0", "'topk_prompt_logprobs': -1"),
                row(400, "topk_prompt_logprobs", "'topk_prompt_logprobs': 0", "'topk_prompt_logprobs': 101"),
                row(400, "topk_sample_logprobs", "'num_samples': 1", "'topk_sample_logprobs': 101"),
                row(400, "topk_sample_logprobs", "'num_samples': 1", "'topk_sample_logprobs': -1"),
                row(400, "base_model", "'num_samples': 1", "'base_model': 'x'")));
        rows.addAll(List.of(row(400, "sampling_params",
                "{'max_tokens': 4, 'temperature': 1, 'top_k': -1, 'top_p': 1, 'seed': 1, 'stop': ['x']}",
                "3"), row(400, "sampling_params.max_tokens", "'max_tokens': 4", "'max_tokens': 0"),
                row(400, "sampling_params.max_tokens", "'max_tokens': 4", "'max_tokens': 63"),
                row(400, "sampling_params.max_tokens", "'max_tokens': 4", "'max_tokens': 2147483648"),
                row(400, "sampling_params.temperature", "'temperature': 1", "'temperature': -1"),
                row(400, "sampling_params.temperature", "'temperature': 1", "'temperature': 1e39"),
                row(400, "sampling_params.temperature", "'temperature': 1", "'temperature': 'hot'"),
                row(400, "sampling_params.top_k", "'top_k': -1", "'top_k': 0"),
                row(400, "sampling_params.top_k", "'top_k': -1", "'top_k': -2"),
                row(400, "sampling_params.top_p", "'top_p': 1", "'top_p': 0"),
                row(400, "sampling_params.top_p", "'top_p': 1", "'top_p': 1.1"),
                row(400, "sampling_params.seed", "'seed': 1", "'seed': 1.5"),
                row(400, "sampling_params.seed", "'seed': 1", "'seed': 36893488147419103232"),
                row(400, "sampling_params.stop", "['x']", "5"), row(400, "sampling_params.stop", "['x']",
                        "['']"), row(400, "sampling_params.stop[1]", "['x']", "['x', 1]"),
                row(400, "sampling_params.stop[1]", "['x']", "[1, 'x']"), row(400, "sampling_params.stop[0]",
                        "['x']", "[100]"), row(400, "sampling_params.stop[0]", "['x']", "[-1]"),
                row(400, "sampling_params.stop[0]", "['x']", "[1.5]"),
                row(400, "sampling_params.stop[0]", "['x']", "[null]"),
                row(400, "sampling_params.stop", "['x']", "['x'" + ", 'x'".repeat(64) + "]"),
                row(400, "sampling_params.min_p", "'top_p': 1", "'min_p': 1")));
        table("asample", good, rows);
        table("create_sampling_session", "{'session_id': '" + SESSION
                + "', 'sampling_session_seq_id': 2, 'base_model': 'ultrasafe/usf-tiny'}",
                List.of(row(400, "base_model", ", 'base_model': 'ultrasafe/usf-tiny'", ""),
                        row(400, "base_model", "'base_model'", "'model_path': 'bios://x/y', 'base_model'"),
                        row(404, "base_model", "usf-tiny", "usf-huge"),
                        row(400, "model_path", "'base_model': 'ultrasafe/usf-tiny'", "'model_path': 'x'"),
                        row(404, "model_path", "'base_model': 'ultrasafe/usf-tiny'",
                                "'model_path': 'bios://" + run
                                + "/none'"), row(400, "sampling_session_seq_id", ": 2", ": -2"),
                        row(404, "session_id", SESSION, "0a1b2c3d-0000-4000-8000-0000000000ff")));
    }

    @Test void searches() {
        String good = "{'limit': 3, 'checkpoint_type': 'sampler', 'user_metadata': {'a': 'b'}, 'owner': {"
                + "'type': 'user', 'owner_urns': ['x']}, 'project_ids': ['p'], 'base_models': [], 'cursor': "
                + "{'last_created_at': '2026-01-31T00:00:00Z', 'last_checkpoint_uuid': 'x'}}";
        table("search_checkpoints", good, List.of(row(400, "limit", "3,", "201,"),
                row(400, "limit", "3,", "0,"),
                row(400, "checkpoint_type", "'sampler'", "'external'"),
                row(400, "user_metadata.a", "'b'", "1"),
                row(400, "owner.type", "'user'", "'all'"),
                row(400, "owner.owner_urns", "['x']", "[]"),
                row(400, "owner.owner_urns", "['x']", "null"),
                row(400, "owner.who", "'owner_urns'", "'who'"),
                row(400, "cursor.last_created_at", "2026-01-31T00:00:00Z", "yesterday"),
                row(400, "cursor.last_checkpoint_uuid", "'x'}", "null}"),
                row(400, "project_ids[0]", "'p'", "1"),
                row(400, "base_models", "[]", "'m'")));
    }

    @Test void otherCalls() {
        table("create_session", "{'tags': ['a'], 'user_metadata': {}, 'sdk_version': '1'}", List.of(
                row(400, "tags", "['a']", "'a'"),
                row(400, "tags[0]", "['a']", "[1]"),
                row(400, "tags", "['a']", "['a'" + ", 'a'".repeat(64) + "]"),
                row(400, "user_metadata", "{},", "[],"),
                row(400, "session_id", "'tags': ['a']", "'session_id': 'mine'"),
                row(400, "session_id", "'tags': ['a']", "'session_id': 5"),
                row(400, "project", "'tags': ['a']", "'project': 'x'")));
        table("retrieve_future", "{'request_id': '" + run + ":1000'}", List.of(
                row(400, "request_id", "request_id", "requestid"),
                row(400, "request_id", "'" + run + ":1000'", "1000"),
                row(404, "request_id", run + ":1000", "nothing"),
                row(404, "request_id", ":1000", ":-1"),
                row(404, "request_id", ":1000", ":1000:more"),
                row(404, "request_id", ":1000", ":77"),
                row(404, "request_id", run, "usf-tiny-0123456789ab"),
                row(400, "allow_metadata_only", "{", "{'allow_metadata_only': 1, ")));
        table("tokenize", "{'base_model': 'ultrasafe/usf-tiny', 'text': 'a'}", List.of(
                row(400, "text", ", 'text': 'a'", ""),
                row(400, "text", "'a'", "['a']"),
                row(400, "add_special_tokens", "'text'", "'add_special_tokens': 'x', 'text'"),
                row(404, "base_model", "usf-tiny", "none")));
        table("detokenize", "{'base_model': 'ultrasafe/usf-tiny', 'tokens': [1]}",
                List.of(row(400, "tokens", "[1]", "'1'"), row(400, "tokens[0]", "[1]", "[100]"),
                        row(400, "tokens", ", 'tokens': [1]", "")));
        refuses(service.send("PUT", "training_runs/" + run + "/checkpoints/weights/a/ttl",
                "{\"ttl_seconds\": 0}".getBytes()), 400, "ttl_seconds", "ttl 0");
        for (String bad : List.of("limit=0", "limit=1001", "limit=x", "limit=99999999999"))
            refuses(service.get("training_runs?" + bad), 400, "limit", bad);
        refuses(service.get("checkpoints?offset=-1"), 400, "offset", "a negative offset");
    }

    @Test void bodiesThatAreNotJson() {
        for (String body : List.of("", "   ", "{", "{'a': 1", "{'a': 1}}", "{} {}", "{}x", "nonsense",
                "{'a': }", "{a: 1}", "{'a': 1,}", "[1,]",
                "{'a': 'x\ny'}", "// comment\n{}", "{'a': tru}", "{'a': '\\x'}", "\u0000{}"))
            refuses(service.post("session_heartbeat", body), 400, "", "'" + body + "'");
        refuses(service.post("session_heartbeat", "[".repeat(10_000)), 400, "", "deep nesting");
        refuses(service.post("session_heartbeat", "{'a':".repeat(1000) + "1" + "}".repeat(1000)), 400, "",
                "deep nesting");
        for (String body : List.of("[]", "3", "'x'", "null", "true"))
            refuses(service.post("session_heartbeat", body), 400, "body", body);
        refuses(service.send("POST", "session_heartbeat",
                new byte[] {'{', '"', (byte) 0xc3, '"', ':', '1', '}'}), 400, "", "broken UTF-8");
        refuses(service.send("POST", "session_heartbeat", new byte[] {'{', '"', (byte) 0xc0, (byte) 0x80,
                '"', ':', '1', '}'}), 400, "", "overlong UTF-8");
        refuses(service.send("POST", "session_heartbeat", "{}".getBytes(StandardCharsets.UTF_16LE)), 400, "",
                "UTF-16");
        refuses(service.send("POST", "session_heartbeat", "{}".getBytes(StandardCharsets.UTF_16)), 400, "",
                "UTF-16 with mark");
    }

    @Test void bodiesOfAnotherTypeOrSize() {
        for (String type : List.of("text/plain", "application/x-protobuf", "application/xml",
                "multipart/form-data; boundary=x"))
            refuses(service.send(HttpRequest.newBuilder(service.uri("session_heartbeat"))
                    .header("Content-Type", type).POST(HttpRequest.BodyPublishers.ofString("{}"))), 415, "",
                    type);
        refuses(service.send(HttpRequest.newBuilder(service.uri("session_heartbeat"))
                .POST(HttpRequest.BodyPublishers.noBody())), 415, "", "no body");
        refuses(service.post("session_heartbeat", " ".repeat(70_000)), 413, "", "a large body");
        refuses(service.send(HttpRequest.newBuilder(service.uri("session_heartbeat")).header("Content-Type",
                "application/json").POST(HttpRequest.BodyPublishers.ofInputStream(() ->
                        new ByteArrayInputStream(new byte[200_000])))), 413, "",
                "a large chunked body");
    }

    @Test void unknownPaths() throws IOException {
        for (String path : List.of("/api", "/api/v1", "/api/v1/", "/api/v2/healthz", "/api/v1/nothing",
                "/api/v1/healthz/x", "/favicon.ico", "/api/v1/training_runs/a/b", "/api/v1/../healthz"))
            refuses(service.get(path), 404, "", path);
        refuses(service.get("training_runs/nonsense"), 404, "", "a run that cannot be");
        refuses(service.get("training_runs/usf-tiny-0123456789abcdef"), 404, "", "a run that is not");
        refuses(service.get("training_runs/" + run + "/checkpoints/weights/none/archive"), 404, "",
                "no checkpoint");
        refuses(service.get("training_runs/" + run + "/checkpoints/other/a/archive"), 404, "", "no kind");
        refuses(service.get("archives/" + run + "/weights/a"), 404, "", "no token");
        refuses(service.get("archives/" + run + "/weights/a?token=x.1.y"), 404, "", "a wrong token");
        refuses(service.get("sessions/none"), 404, "", "no session");
        refuses(service.get("samplers/none"), 404, "sampler_id", "no sampler");
        for (String[] call : List.of(new String[] {"POST", "healthz"}, new String[] {"GET", "create_model"},
                new String[] {"DELETE", "asample"},
                new String[] {"PUT", "training_runs"}, new String[] {"PATCH", "checkpoints"})) {
            Answer answer = service.send(HttpRequest.newBuilder(service.uri(call[1])).method(call[0],
                    HttpRequest.BodyPublishers.ofString("{}")));
            refuses(answer, 405, "", call[0] + " " + call[1]);
        }
        assertEquals("GET",
                service.post("healthz", "{}").response().headers().firstValue("Allow").orElseThrow());
        for (String target : List.of("/api/v1/%zz", "/api/v1/training_runs/%", "/api/v1/a b",
                "/api/v1/training_runs/%ff"))
            assertTrue(raw("GET " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    .matches("(?s)HTTP/1.1 (40[04]|505).*\"error\":.*"), target);
        assertTrue(raw("BREW / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").contains("\"error\":"));
    }

    private static String raw(String request) throws IOException {
        try (var socket = new Socket("127.0.0.1", service.uri("").getPort())) {
            socket.getOutputStream().write(request.getBytes(StandardCharsets.US_ASCII));
            socket.getOutputStream().flush();
            return new String(socket.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        }
    }
}
