package bios.coordinator.gateway;

import static bios.coordinator.gateway.TestService.SESSION;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.TestClient.Answer;
import bios.protocol.run.Operation;
import bios.protocol.run.RunId;
import bios.protocol.run.TensorData;
import com.fasterxml.jackson.databind.JsonNode;
import com.github.luben.zstd.Zstd;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.http.HttpRequest;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/// Requests and results in protobuf, and requests compressed with zstd, over a started server.
class ProtobufTest {
    private static final String PROTOBUF = "application/x-protobuf";
    /// A batch as the SDK 0.25.0 encodes it, without field 1, the run: the tokens 1, 2, 3 with the targets 2,
    /// 3, 4 and the weights 1, 0.5, 0 under seq_id 1.
    private static final String OF_SDK = "10011a640a100a0e0a0c01000000020000000300000012300a0d7461726765745f"
            + "746f6b656e73121f0a180200000000000000030000000000000004000000000000001802220103121e0a07"
            + "7765696768747312130a0c0000803f0000003f000000001801220103220d63726f73735f656e74726f7079";
    private static TestService service;

    @BeforeAll static void start() {
        service = new TestService(Accounts.open(), "long-poll = 100 ms, max-body-bytes = 1 MiB");
    }

    @AfterAll static void stop() {
        service.close();
    }

    private static byte[] ofRun(String run, byte[] rest) {
        var all = new ByteArrayOutputStream();
        all.writeBytes(new ProtoWriter().string(1, run).toBytes());
        all.writeBytes(rest);
        return all.toByteArray();
    }

    private static byte[] ofSdk(String run) {
        return ofRun(run, HexFormat.of().parseHex(OF_SDK));
    }

    private static Answer send(String path, byte[] body, String... headers) {
        HttpRequest.Builder request = HttpRequest.newBuilder(service.uri(path))
                .method("POST", HttpRequest.BodyPublishers.ofByteArray(body))
                .header("Content-Type", PROTOBUF);
        if (headers.length > 0) request.headers(headers);
        return service.send(request);
    }

    private static Operation.ForwardBackward operation(String run, long seq) {
        return (Operation.ForwardBackward) service.runs.runs.get(new RunId(run)).operations.get(seq);
    }

    private static ProtoWriter tensor(int dtype, byte[] dense, long... shape) {
        var tensor = new ProtoWriter().bytes(1, dense).varint(3, dtype);
        for (long n : shape) tensor.varint(4, n);
        return tensor;
    }

    private static ProtoWriter datum(int[] tokens, Object... inputs) {
        var datum = new ProtoWriter().message(1,
                new ProtoWriter().message(1, new ProtoWriter().ints(1, tokens)));
        for (int i = 0; i < inputs.length; i += 2) datum.message(2, new ProtoWriter()
                .string(1, (String) inputs[i]).message(2, (ProtoWriter) inputs[i + 1]));
        return datum;
    }

    private static byte[] longs(long... values) {
        return TensorData.of(values).data();
    }

    private static byte[] request(String run, int seq, String loss, ProtoWriter... data) {
        var request = new ProtoWriter().string(1, run).varint(2, seq).string(4, loss);
        for (ProtoWriter datum : data) request.message(3, datum);
        return request.toBytes();
    }

    @Test void theBatchOfTheSdkIsReadAsTheSameBatchInJson() {
        String run = service.run(1);
        Answer future = send("forward_backward", ofSdk(run));
        assertEquals(200, future.status(), future.json().toString());
        Operation.ForwardBackward read = operation(run, 1);
        assertFalse(read.forwardOnly());
        assertArrayEquals(new int[] {1, 2, 3}, read.data().getFirst().tokens());
        assertEquals(TensorData.of(2L, 3, 4), read.data().getFirst().lossInputs().get("target_tokens"));
        assertEquals(TensorData.of(1f, 0.5f, 0), read.data().getFirst().lossInputs().get("weights"));
        // The same operation in JSON has the same digest: a repetition.
        Answer repeated = service.post("forward_backward", "{'model_id': '" + run + "', 'seq_id': 1,"
                + " 'forward_backward_input': {'loss_fn': 'cross_entropy', 'data': [{'model_input':"
                + " {'chunks': [{'tokens': [1, 2, 3]}]}, 'loss_fn_inputs': {'target_tokens':"
                + " {'dtype': 'int64', 'data': [2, 3, 4]},"
                + " 'weights': {'dtype': 'float32', 'data': [1, 0.5, 0]}}}]}}");
        assertEquals(future.text("request_id"), repeated.text("request_id"));
    }

    @Test void aPassHasItsResultInProtobufAndErrorsInJson() {
        String run = service.run(2);
        Answer future = send("forward_backward", ofSdk(run));
        Answer result = service.result(future, "Accept", PROTOBUF);
        assertEquals(PROTOBUF, result.response().headers().firstValue("content-type").orElse(""));
        String tensor = "0a0c000000bf000000bf000000bf" + "1210" + "0000000000000000" + "0c00000000000000"
                + "1801";
        String field = "0a086c6f6770726f6273" + "12" + hex(tensor.length() / 2) + tensor;
        String record = "0a0a54656e736f7244696374" + "12" + hex(field.length() / 2) + field + "1801";
        String begin = "0a0a54656e736f7244696374" + "12" + hex(record.length() / 2) + record;
        assertTrue(HexFormat.of().formatHex(result.bytes()).startsWith(begin),
                HexFormat.of().formatHex(result.bytes()));
        var metrics = new ProtoReader(result.bytes());
        int count = 0;
        while (metrics.next()) {
            if (metrics.field() == 3) count++;
            metrics.skip();
        }
        assertEquals(3, count);
        assertEquals("forward_backward", service.result(future).text("type"));
        service.runs.slow = true;
        Answer pending = service.result(future, "Accept", PROTOBUF);
        service.runs.slow = false;
        assertEquals(408, pending.status());
        assertEquals("try_again", pending.text("type"));
    }

    /// Datums with equally many targets for a position are one record, and JSON has the same shapes.
    @Test void severalTargetsOfAPositionKeepTheirShape() {
        String run = service.run(12);
        ProtoWriter vector = datum(new int[] {1, 2}, "target_tokens", tensor(2, longs(3, 4)));
        ProtoWriter matrix = datum(new int[] {1, 2}, "target_tokens",
                tensor(2, longs(3, 4, 5, 6, 7, 8), 2, 3), "weights",
                tensor(1, TensorData.of(1f, 0, 0, 0, 2, 0).data(), 2, 3));
        Answer future = send("forward_backward", request(run, 1, "cross_entropy", matrix, matrix, vector));
        assertEquals(200, future.status(), future.json().toString());
        assertEquals(3, operation(run, 1).data().getFirst().targetsEach());
        var outputs = service.result(future).json().get("loss_fn_outputs");
        assertEquals("[2,3]", outputs.get(1).get("logprobs").get("shape").toString());
        assertEquals(6, outputs.get(1).get("logprobs").get("data").size());
        assertEquals("[2]", outputs.get(2).get("logprobs").get("shape").toString());
        var result = new ProtoReader(service.result(future, "Accept", PROTOBUF).bytes());
        List<String> records = new ArrayList<>();
        while (result.next()) {
            if (result.field() == 2) records.add(HexFormat.of().formatHex(result.bytes().copy()));
            else result.skip();
        }
        assertEquals(2, records.size());
        assertTrue(records.get(0).contains("1801" + "2003") && records.get(0).endsWith("1802"),
                records.get(0));
        assertFalse(records.get(1).contains("1801" + "20"), records.get(1));
        Answer alike = send("forward_backward", request(run, 2, "cross_entropy", matrix, matrix));
        try { // Tinker's client until 0.24.0 takes the shape of the first record for that of all
            for (String version : List.of("0.24.0", "0.25.0")) {
                service.agent = "AsyncTinker/Python " + version;
                assertEquals(version.equals("0.25.0"), isProtobuf(service.result(future, "Accept",
                        PROTOBUF + ", application/json")), version);
                assertTrue(isProtobuf(service.result(alike, "Accept", PROTOBUF)), version);
            }
        } finally {
            service.agent = "test";
        }
        ProtoWriter half = datum(new int[] {1, 2}, "target_tokens", tensor(2, longs(3, 4, 5, 6), 2, 2),
                "mask", tensor(2, longs(1, 0)));
        send("forward_backward", request(run, 3, "cross_entropy", half));
        assertArrayEquals(new float[] {1, 1, 0, 0}, operation(run, 3).data().getFirst().lossInputs()
                .get("weights").floats());
    }

    private static boolean isProtobuf(Answer answer) {
        return answer.response().headers().firstValue("content-type").orElse("").equals(PROTOBUF);
    }

    private static String hex(int small) {
        return String.format("%02x", small);
    }

    @Test void aSampleHasItsResultInProtobuf() {
        String sampler = service.post("create_sampling_session", "{'session_id': '" + SESSION
                + "', 'sampling_session_seq_id': 90, 'base_model': 'ultrasafe/usf-tiny'}")
                .text("sampling_session_id");
        Answer future = service.post("asample", "{'sampling_session_id': '" + sampler + "', 'seq_id': 1,"
                + " 'prompt': {'chunks': [{'tokens': [1, 2]}]}, 'num_samples': 1, 'topk_prompt_logprobs': 1,"
                + " 'sampling_params': {'max_tokens': 2}}");
        Answer result = service.result(future, "Accept", PROTOBUF);
        // 1: sequence {1: LENGTH, 2: 5 6, 3: -0.25 -1}, 2: NaN -2, 3: candidates
        assertEquals("0a16" + "0801" + "12080500000006000000" + "1a08000080be000080bf"
                + "12080000c07f000000c0" + "1a18" + "0a080000000003000000" + "1208804fc3c70000c0bf"
                + "18012002",
                HexFormat.of().formatHex(result.bytes()));
    }

    @Test void theLikeliestTokensOfDrawnPositionsAreFieldFourOfASequence() {
        String sampler = service.post("create_sampling_session", "{'session_id': '" + SESSION
                + "', 'sampling_session_seq_id': 91, 'base_model': 'ultrasafe/usf-tiny'}")
                .text("sampling_session_id");
        Answer future = service.post("asample", "{'sampling_session_id': '" + sampler + "', 'seq_id': 1,"
                + " 'prompt': {'chunks': [{'tokens': [1, 2]}]}, 'topk_sample_logprobs': 2,"
                + " 'sampling_params': {'max_tokens': 2}}");
        // 1: sequence {1: LENGTH, 2: 5 6, 3: -0.25 -1, 4: {1: 5 7 6 0, 2: logprobs, 3: k, 4: length}}
        assertEquals("0a40" + "0801" + "12080500000006000000" + "1a08000080be000080bf" + "2228"
                + "0a10" + "05000000" + "07000000" + "06000000" + "00000000"
                + "1210" + "000080be" + "000000c0" + "000080bf" + "804fc3c7" + "18022002",
                HexFormat.of().formatHex(service.result(future, "Accept", PROTOBUF).bytes()));
        Answer most = service.post("asample", "{'sampling_session_id': '" + sampler + "', 'seq_id': 2,"
                + " 'prompt': {'chunks': [{'tokens': [1, 2]}]}, 'topk_sample_logprobs': 100,"
                + " 'num_samples': 1024, 'sampling_params': {'max_tokens': 60}}");
        assertEquals("topk_sample_logprobs", most.text("field"));
        assertEquals("[[[5,-0.25],[7,-2.0]],[[6,-1.0]]]",
                service.result(future).json().at("/sequences/0/topk_logprobs").toString());
    }

    @Test void aForwardPassIsMarkedInTheMessage() {
        String run = service.run(3);
        byte[] forward = ofRun(run, HexFormat.of().parseHex(OF_SDK + "3001"));
        Answer future = send("forward_backward", forward);
        assertTrue(operation(run, 1).forwardOnly());
        assertEquals("forward", service.result(future).text("type"));
        byte[] other = request(run, 2, "cross_entropy",
                datum(new int[] {1}, "target_tokens", tensor(2, longs(1))));
        assertTrue(send("forward", other).text("request_id").endsWith(":forward"));
    }

    @Test void settingsAndSeveralChunksAreRead() {
        String run = service.run(4);
        ProtoWriter datum = new ProtoWriter()
                .message(1, new ProtoWriter().message(1, new ProtoWriter().ints(1, new int[] {7})))
                .message(1, new ProtoWriter().message(1, new ProtoWriter().ints(1, new int[] {8, 9})));
        for (String name : List.of("logprobs", "advantages"))
            datum.message(2, new ProtoWriter().string(1, name)
                    .message(2, tensor(1, TensorData.of(0.5f, 1, 2).data(), 3)));
        datum.message(2, new ProtoWriter().string(1, "target_tokens")
                .message(2, tensor(2, longs(1, 2, 3), 3)));
        byte[] body = new ProtoWriter().string(1, run).varint(2, 1).message(3, datum).string(4, "ppo")
                .message(5, new ProtoWriter().string(1, "clip_low_threshold").fixed64(2, 0.7))
                .varint(77, 5).toBytes();
        assertEquals(200, send("forward_backward", body).status());
        assertArrayEquals(new int[] {7, 8, 9}, operation(run, 1).data().getFirst().tokens());
        assertEquals(0.7, operation(run, 1).settings().get("clip_low_threshold"));
        assertEquals(1.2, operation(run, 1).settings().get("clip_high_threshold"));
    }

    @Test void settingsOfNewerClientsCountAndTextsAreRefused() {
        String run = service.run(14);
        byte[] body = request(run, 1, "ppo", datum(new int[] {1}, "target_tokens", tensor(2, longs(1)),
                "logprobs", tensor(1, TensorData.of(0f).data()), "advantages",
                tensor(1, TensorData.of(0f).data())));
        byte[] number = new ProtoWriter().message(5, new ProtoWriter().string(1, "clip_high_threshold")
                .fixed64(2, 1.4)).message(7, new ProtoWriter().string(1, "clip_high_threshold")
                .message(2, new ProtoWriter().fixed64(1, 1.5))).toBytes();
        assertEquals(200, send("forward_backward", joined(body, number)).status());
        assertEquals(1.5, operation(run, 1).settings().get("clip_high_threshold"));
        byte[] text = new ProtoWriter().message(7, new ProtoWriter().string(1, "clip_high_threshold")
                .message(2, new ProtoWriter().string(2, "token"))).toBytes();
        Answer refused = send("forward_backward", joined(body, text));
        assertEquals("forward_backward_input.loss_fn_config.clip_high_threshold", refused.text("field"));
    }

    private static byte[] joined(byte[] first, byte[] second) {
        byte[] both = Arrays.copyOf(first, first.length + second.length);
        System.arraycopy(second, 0, both, first.length, second.length);
        return both;
    }

    @Test void whatIsWrongIsNamedAsInJson() {
        String run = service.run(5);
        Answer text = send("forward_backward", request(run, 1, "cross_entropy", new ProtoWriter().message(1,
                new ProtoWriter().message(2, new ProtoWriter().bytes(1, new byte[] {1})))));
        assertEquals("unsupported", text.text("error"));
        assertEquals("forward_backward_input.data[0].model_input.chunks[0].type", text.text("field"));
        Answer vocabulary = send("forward_backward", request(run, 1, "cross_entropy",
                datum(new int[] {100}, "target_tokens", tensor(2, longs(1)))));
        assertEquals(400, vocabulary.status());
        assertTrue(vocabulary.text("message").contains("100 is not a token id"), vocabulary.text("message"));
        Answer dtype = send("forward_backward", request(run, 1, "cross_entropy",
                datum(new int[] {1}, "target_tokens", tensor(4, longs(1)))));
        assertTrue(dtype.text("message").contains("'bfloat16' is unknown"), dtype.text("message"));
        Answer odd = send("forward_backward", request(run, 1, "cross_entropy",
                datum(new int[] {1}, "target_tokens", tensor(2, new byte[7]))));
        assertTrue(odd.text("message").contains("holds 7 bytes"), odd.text("message"));
        Answer none = send("forward_backward", new ProtoWriter().string(1, run).toBytes());
        assertEquals("seq_id", none.text("field"));
        assertEquals(415, send("optim_step", ofSdk(run)).status());
        assertTrue(operation(run, 1) == null);
    }

    @Test void damagedMessagesAreRefusedAndNothingElse() {
        String run = service.run(6);
        byte[] whole = ofSdk(run);
        var random = new Random(5);
        for (int i = 0; i < 150; i++) {
            byte[] damaged = i < whole.length ? Arrays.copyOf(whole, i) : whole.clone();
            if (i >= whole.length)
                damaged[random.nextInt(whole.length)] ^= (byte) (1 << random.nextInt(8));
            Answer answer = send("forward_backward", damaged);
            assertTrue(List.of(200, 400, 404).contains(answer.status()),
                    answer.status() + " " + answer.json() + " for " + HexFormat.of().formatHex(damaged));
        }
        Answer group = send("forward_backward", new byte[] {0x0b});
        assertEquals("malformed_body", group.text("error"));
    }

    @Test void aCompressedBodyIsReadAndABombIsRefused() {
        String run = service.run(7);
        byte[] plain = ofSdk(run);
        assertEquals(200, send("forward_backward", Zstd.compress(plain), "Content-Encoding", "zstd")
                .status());
        assertEquals(TensorData.of(2L, 3, 4),
                operation(run, 1).data().getFirst().lossInputs().get("target_tokens"));
        byte[] json = ("{\"model_id\": \"" + run + "\", \"seq_id\": 2}").getBytes(StandardCharsets.UTF_8);
        assertEquals(200, service.send("POST", "optim_step", Zstd.compress(json),
                "Content-Encoding", "zstd").status());
        byte[] bomb = Zstd.compress(new byte[8 << 20]);
        assertTrue(bomb.length < 1 << 14, "a bomb of " + bomb.length + " bytes");
        Answer refused = send("forward_backward", bomb, "Content-Encoding", "zstd");
        assertEquals(413, refused.status());
        assertEquals("body_too_large", refused.text("error"));
        byte[] damaged = Zstd.compress(plain);
        damaged[1] ^= 5;
        assertEquals("malformed_body", send("forward_backward", damaged, "Content-Encoding", "zstd")
                .text("error"));
        byte[] cut = Arrays.copyOf(Zstd.compress(plain), 20);
        assertEquals("malformed_body", send("forward_backward", cut, "Content-Encoding", "zstd")
                .text("error"));
        assertEquals(415, send("forward_backward", plain, "Content-Encoding", "br").status());
        assertEquals("unsupported_encoding", send("forward_backward", plain, "Content-Encoding", "gzip")
                .text("error"));
    }

    @Test void aSparseTensorIsTheDenseOneAndIsChecked() {
        // Rows of a 3 x 4 matrix: (5 at 0), (), (7 at 3).
        byte[] crow = longs(0, 1, 1, 2);
        var sparse = new ProtoWriter().message(2, new ProtoWriter().bytes(1, longs(5, 7)).bytes(2, crow)
                .bytes(3, longs(0, 3))).varint(3, 2).varint(4, 3).varint(4, 4);
        Json tree = ProtoBatch.read(request("r", 1, "x", datum(new int[] {1, 2, 3}, "t", sparse)), _ -> { });
        Fields input = Fields.ofRequest(tree).object("forward_backward_input");
        Fields datum = Fields.of(FieldPath.BODY, input.array("data").getFirst());
        TensorData dense = TensorReader.read(FieldPath.BODY, datum.object("loss_fn_inputs").required("t"),
                _ -> { });
        assertArrayEquals(new int[] {3, 4}, dense.shape());
        assertArrayEquals(new long[] {5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}, dense.longs());
        String run = service.run(8);
        for (ProtoWriter wrong : List.of(
                new ProtoWriter().bytes(1, longs(5, 7)).bytes(2, longs(0, 1, 2)).bytes(3, longs(0, 3)),
                new ProtoWriter().bytes(1, longs(5, 7)).bytes(2, crow).bytes(3, longs(0, 4)),
                new ProtoWriter().bytes(1, longs(5, 7)).bytes(2, crow).bytes(3, longs(0)),
                new ProtoWriter().bytes(1, longs(5, 7)).bytes(2, longs(0, 9, 1, 2)).bytes(3, longs(0, 3)))) {
            var tensor = new ProtoWriter().message(2, wrong).varint(3, 2).varint(4, 3).varint(4, 4);
            Answer refused = send("forward_backward",
                    request(run, 1, "cross_entropy", datum(new int[] {1, 2, 3}, "target_tokens", tensor)));
            assertEquals(400, refused.status());
            assertTrue(refused.text("field").contains("target_tokens.sparse_c"), refused.text("field"));
        }
        var huge = new ProtoWriter().message(2, new ProtoWriter().bytes(2, longs(0, 0)))
                .varint(3, 2).varint(4, 1).varint(4, 1 << 30);
        assertEquals(413, send("forward_backward", request(run, 1, "cross_entropy",
                datum(new int[] {1}, "target_tokens", huge))).status());
    }

    /// `golden.py --csr` of the worker's tests has written them.
    @Test void sparseMatricesOfPyTorchAreTheirDenseOnes() throws IOException {
        JsonNode all = TestClient.MAPPER.readTree(
                ProtobufTest.class.getResourceAsStream("/csr.json"));
        for (JsonNode each : all) {
            JsonNode tensor = each.get("tensor");
            boolean ids = tensor.get("dtype").asText().equals("int64");
            Json tree = new JsonReader(20, 1 << 20).read(
                    tensor.toString().getBytes(StandardCharsets.UTF_8), _ -> { });
            check(each, ids, TensorReader.read(FieldPath.BODY, tree, _ -> { }));
            byte[] values = ids ? longs(longs(tensor.get("data"))) : floats(tensor.get("data"));
            var sparse = new ProtoWriter().message(2, new ProtoWriter().bytes(1, values)
                    .bytes(2, longs(longs(tensor.get("sparse_crow_indices"))))
                    .bytes(3, longs(longs(tensor.get("sparse_col_indices"))))).varint(3, ids ? 2 : 1)
                    .varint(4, tensor.get("shape").get(0).asLong())
                    .varint(4, tensor.get("shape").get(1).asLong());
            Json batch = ProtoBatch.read(request("r", 1, "x", datum(new int[] {1}, "t", sparse)), _ -> { });
            Fields datum = Fields.of(FieldPath.BODY, Fields.ofRequest(batch)
                    .object("forward_backward_input").array("data").getFirst());
            check(each, ids, TensorReader.read(FieldPath.BODY,
                    datum.object("loss_fn_inputs").required("t"), _ -> { }));
        }
    }

    private static void check(JsonNode each, boolean ids, TensorData read) {
        assertArrayEquals(new int[] {each.at("/tensor/shape/0").asInt(), each.at("/tensor/shape/1").asInt()},
                read.shape());
        if (ids) assertArrayEquals(longs(each.get("dense")), read.longs());
        else assertArrayEquals(floats(each.get("dense")), read.data());
    }

    private static long[] longs(JsonNode numbers) {
        long[] all = new long[numbers.size()];
        for (int i = 0; i < all.length; i++) all[i] = numbers.get(i).asLong();
        return all;
    }

    private static byte[] floats(JsonNode numbers) {
        float[] all = new float[numbers.size()];
        for (int i = 0; i < all.length; i++) all[i] = (float) numbers.get(i).asDouble();
        return TensorData.of(all).data();
    }

    @Test void aMaskIsAppliedToWeightsAndAdvantages() {
        String run = service.run(9);
        ProtoWriter mask = tensor(2, longs(1, 0, 1));
        ProtoWriter targets = tensor(2, longs(1, 2, 3));
        ProtoWriter floats = tensor(1, TensorData.of(0.5f, 2, 3).data());
        int[] tokens = {1, 2, 3};
        send("forward_backward", request(run, 1, "cross_entropy",
                datum(tokens, "target_tokens", targets, "mask", mask)));
        assertEquals(TensorData.of(1f, 0, 1),
                operation(run, 1).data().getFirst().lossInputs().get("weights"));
        send("forward_backward", request(run, 2, "importance_sampling", datum(tokens, "target_tokens",
                targets,
                "advantages", floats, "logprobs", floats, "mask", mask)));
        var inputs = operation(run, 2).data().getFirst().lossInputs();
        assertEquals(TensorData.of(0.5f, 0, 3), inputs.get("advantages"));
        assertEquals(3, inputs.size());
        for (ProtoWriter wrong : List.of(tensor(2, longs(1, 0)), tensor(2, longs(1, 2, 1))))
            assertEquals(400, send("forward_backward", request(run, 3, "cross_entropy",
                    datum(tokens, "target_tokens", targets, "mask", wrong))).status());
        Answer empty = send("forward_backward", request(run, 3, "cross_entropy", datum(tokens,
                "target_tokens", tensor(2, new byte[0], 3, 0), "mask", tensor(1, new byte[0], 3, 0))));
        assertEquals("forward_backward_input.data[0].loss_fn_inputs.target_tokens", empty.text("field"));
        long most = Integer.MAX_VALUE;
        Answer huge = send("forward_backward", request(run, 3, "cross_entropy", datum(tokens,
                "target_tokens", tensor(2, new byte[0], most, most, most, 0))));
        assertEquals("forward_backward_input.data[0].loss_fn_inputs.target_tokens.shape", huge.text("field"));
        assertEquals(400, send("forward_backward", request(run, 3, "dro", datum(tokens, "target_tokens",
                targets,
                "advantages", floats, "logprobs", floats, "mask", mask))).status());
    }
}
