package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.TestClient.Answer;
import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.sampling.DrawnTokens;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleResult.StopReason;
import com.fasterxml.jackson.databind.JsonNode;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/// The endpoints of OpenAI's clients, with an engine whose part the test plays.
class OpenAiTest {
    private static final String MODEL = "'model': 'ultrasafe/usf-tiny'";
    private static final String CHAT = "{" + MODEL + ", 'messages': [{'role': 'user', 'content': 'ab'}]}";
    private static final String PROMPT = "{" + MODEL + ", 'prompt': [1, 2], 'max_tokens': 5}";
    private static final String STREAMED = PROMPT.replace("'prompt'", "'stream': true, 'prompt'");
    private static final String TEMPLATE = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content"
            + " }}{% endfor %}{% if add_generation_prompt %}{{ x }}!{% endif %}";
    private static TestService service;

    @BeforeAll static void start() {
        service = new TestService(Accounts.fromLines("keys", List.of("alice tml-alice-key")),
                "long-poll = 2 s, max-samples = 8");
    }

    @AfterAll static void stop() {
        service.close();
    }

    @AfterEach void calm() {
        service.manualSampling = false;
        service.manual.clear();
        service.key = "tml-alice-key";
        service.tokenizerFiles = files("");
    }

    @BeforeEach void ready() {
        calm();
    }

    private static Map<String, byte[]> files(String template) {
        String config = "{\"bos_token\": {\"content\": \"B\"}, \"chat_template\": [{\"name\": \"other\","
                + " \"template\": \"no\"}, {\"name\": \"default\", \"template\": \"" + TEMPLATE + "\"}]}";
        return template.isEmpty() ? Map.of("tokenizer_config.json", config.getBytes(StandardCharsets.UTF_8))
                : Map.of("tokenizer_config.json", config.getBytes(StandardCharsets.UTF_8),
                        "chat_template.jinja", template.getBytes(StandardCharsets.UTF_8));
    }

    private static <T extends EngineCommand> T next(Class<T> kind) throws InterruptedException {
        EngineCommand command = service.manual.poll(20, TimeUnit.SECONDS);
        assertNotNull(command, () -> "no " + kind.getSimpleName());
        return kind.cast(command);
    }

    private static SampleResult result(StopReason reason, int[]... sequences) {
        return new SampleResult(Arrays.stream(sequences).map(tokens -> {
            float[] logprobs = new float[tokens.length];
            Arrays.fill(logprobs, -0.5f);
            return new SampleResult.Sequence(tokens, logprobs, reason);
        }).toList(), Optional.empty(), Optional.empty());
    }

    private static DrawnTokens drawn(int[] all, int from, Optional<StopReason> end) {
        float[] logprobs = new float[all.length - from];
        Arrays.fill(logprobs, -0.5f);
        return new DrawnTokens(from, DrawnTokens.digest(all, from), Arrays.copyOfRange(all, from, all.length),
                logprobs, end);
    }

    private static void draw(EngineCommand.FollowSample asked, int[]... all) {
        var drawn = new ArrayList<DrawnTokens>();
        for (int i = 0; i < all.length; i++)
            drawn.add(drawn(all[i], asked.received()[i], Optional.empty()));
        asked.replyTo().tell(new EngineReply.Drawn(asked.task(), drawn));
    }

    /// A request whose response is read event by event.
    private static final class Stream implements AutoCloseable {
        private final Socket socket;
        private final BufferedReader reader;
        final List<JsonNode> events = new ArrayList<>();
        final List<String> comments = new ArrayList<>();
        String head = "";

        Stream(String path, String body) throws IOException {
            socket = new Socket("127.0.0.1", service.port());
            byte[] bytes = body.replace('\'', '"').getBytes(StandardCharsets.UTF_8);
            socket.getOutputStream().write(("POST " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                    + "tml-alice-key\r\nContent-Type: application/json\r\nContent-Length: " + bytes.length
                    + "\r\n\r\n").getBytes(StandardCharsets.UTF_8));
            socket.getOutputStream().write(bytes);
            socket.setSoTimeout(20_000);
            reader = new BufferedReader(new InputStreamReader(socket.getInputStream(),
                    StandardCharsets.UTF_8));
        }

        /// Reads the next event; null after the last one.
        JsonNode event() throws IOException {
            while (true) {
                String line = reader.readLine();
                if (line == null || line.equals("0")) return null;
                if (line.startsWith("HTTP/") || line.contains("Content-Type: ")) head += line + "\n";
                if (line.startsWith(": ")) comments.add(line);
                if (line.equals("data: [DONE]")) return TestClient.MAPPER.valueToTree("[DONE]");
                if (!line.startsWith("data: ")) continue;
                events.add(TestClient.MAPPER.readTree(line.substring(6)));
                return events.getLast();
            }
        }

        /// Reads all events; the texts of one choice together.
        String rest(int choice) throws IOException {
            var text = new StringBuilder();
            for (JsonNode event = event(); event != null; event = event())
                for (JsonNode part : event.path("choices"))
                    if (part.path("index").asInt() == choice) text.append(text(part));
            return text.toString();
        }

        @Override public void close() throws IOException {
            socket.close();
        }
    }

    private static String text(JsonNode choice) {
        return choice.has("text") ? choice.path("text").asText()
                : choice.path("delta").path("content").asText("");
    }

    @Test void aCompletionIsAnsweredWhole() {
        Answer answer = service.post("/v1/completions", "{" + MODEL + ", 'prompt': ['ab', 'abc'], 'n': 2,"
                + " 'logprobs': 0, 'max_tokens': 2, 'seed': 7, 'user': 'me', 'echo': false, 'suffix': null}");
        assertEquals(200, answer.status(), () -> answer.json().toString());
        assertEquals("text_completion", answer.text("object"));
        assertEquals("ultrasafe/usf-tiny", answer.text("model"));
        assertEquals(4, answer.json().path("choices").size());
        JsonNode last = answer.json().path("choices").get(3);
        assertEquals("fg", last.path("text").asText());
        assertEquals(3, last.path("index").asInt());
        assertEquals("length", last.path("finish_reason").asText());
        assertEquals("[0,1]", last.path("logprobs").path("text_offset").toString());
        assertEquals(-1, last.path("logprobs").path("token_logprobs").get(1).asDouble());
        assertEquals(5, answer.json().path("usage").path("prompt_tokens").asInt());
        assertEquals(8, answer.json().path("usage").path("completion_tokens").asInt());
        var task = service.sampled.getLast().task();
        assertEquals(7, task.seed());
        assertEquals(2, task.numSamples());
        assertTrue(answer.text("id").startsWith("cmpl-"));
        assertEquals("abfg", service.post("/v1/completions", "{" + MODEL + ", 'prompt': 'ab', 'echo': true,"
                + " 'max_tokens': 2}").json().path("choices").get(0).path("text").asText());
    }

    @Test void theMostLikelyTokensOfACompletionAreNamed() {
        JsonNode logprobs = service.post("/v1/completions", PROMPT.replace("5", "5, 'logprobs': 2")).json()
                .at("/choices/0/logprobs");
        assertEquals("[{\"f\":-0.25,\"h\":-2.0},{\"g\":-1.0}]", logprobs.path("top_logprobs").toString());
        assertEquals("[\"f\",\"g\"]", logprobs.path("tokens").toString());
        var task = service.sampled.getLast().task();
        assertEquals(2, task.topkSampleLogprobs());
        assertEquals(200, service.post("/v1/completions", PROMPT.replace("5", "5, 'logprobs': 20")).status());
        assertEquals(0, task.topkPromptLogprobs());
        assertFalse(task.promptLogprobs());
        JsonNode plain = service.post("/v1/completions", PROMPT.replace("5", "5, 'logprobs': 0")).json();
        assertTrue(plain.at("/choices/0/logprobs/top_logprobs").isNull(), plain::toString);
    }

    @Test void anEchoedPromptHasItsLogprobs() {
        String asked = PROMPT.replace("5", "5, 'logprobs': 1, 'echo': true");
        for (String prompts : List.of("[1, 2]", "[[1, 2], [3, 4]]")) {
            JsonNode choices = service.post("/v1/completions", asked.replace("[1, 2]", prompts)).json()
                    .path("choices");
            assertEquals(prompts.contains("], [") ? 2 : 1, choices.size());
            for (JsonNode choice : choices) {
                JsonNode logprobs = choice.path("logprobs");
                assertEquals(choice.path("text").asText(), String.join("", logprobs.path("tokens")
                        .valueStream().map(JsonNode::asText).toList()), choice::toString);
                assertEquals("[null,-2.0,-0.25,-1.0]", logprobs.path("token_logprobs").toString());
                assertEquals("[0,1,2,3]", logprobs.path("text_offset").toString());
            }
        }
        JsonNode first = service.post("/v1/completions", asked).json().at("/choices/0");
        assertEquals("bcfg", first.path("text").asText());
        assertEquals("[null,{\"d\":-1.5,\"c\":-2.0},{\"f\":-0.25,\"h\":-2.0},{\"g\":-1.0}]",
                first.at("/logprobs/top_logprobs").toString());
        JsonNode score = service.post("/v1/completions", asked.replace("5", "0")).json();
        assertEquals("bc", score.at("/choices/0/text").asText(), score::toString);
        assertEquals("length", score.at("/choices/0/finish_reason").asText());
        assertEquals("[null,-2.0]", score.at("/choices/0/logprobs/token_logprobs").toString());
        assertEquals(0, score.at("/usage/completion_tokens").asInt());
        assertEquals(2, score.at("/usage/prompt_tokens").asInt());
        JsonNode twice = service.post("/v1/completions", asked.replace("5", "0, 'n': 3")).json();
        assertEquals(3, twice.path("choices").size(), twice::toString);
        for (JsonNode choice : twice.path("choices"))
            assertEquals(score.at("/choices/0/logprobs"), choice.path("logprobs"));
        assertEquals(1, service.sampled.getLast().task().numSamples(), "none is drawn to be thrown away");
        String text = PROMPT.replace("5", "0, 'echo': true").replace("[1, 2]", "'ab'");
        assertEquals("ab", service.post("/v1/completions", text).json().at("/choices/0/text").asText());
    }

    /// What was sent is what comes back, and offsets are into that: harnesses split the lists by them.
    @Test void anEchoedPromptIsTheTextThatWasSent() {
        String asked = PROMPT.replace("5", "5, 'logprobs': 1, 'echo': true");
        for (JsonNode choice : service.post("/v1/completions", asked.replace("[1, 2]", "['ab', 'cd']")).json()
                .path("choices")) {
            String sent = choice.path("index").asInt() == 0 ? "ab" : "cd";
            assertEquals(sent + "fg", choice.path("text").asText(), choice::toString);
            JsonNode logprobs = choice.path("logprobs");
            assertEquals("[0,0,1,2,3]", logprobs.path("text_offset").toString(),
                    "what the tokenizer adds has no part in the text");
            assertEquals("<end>", logprobs.path("tokens").get(0).asText());
            for (int i = 1; i < 5; i++) assertEquals(choice.path("text").asText().substring(i - 1, i),
                    logprobs.path("tokens").get(i).asText());
        }
        JsonNode ids = service.post("/v1/completions", asked.replace("[1, 2]", "[1, 99, 2]")).json()
                .at("/choices/0");
        assertEquals("b<end>cfg", ids.path("text").asText(), "a special token of the prompt is text");
        assertEquals("[0,1,6,7,8]", ids.at("/logprobs/text_offset").toString());
        assertEquals("text of 2, special ones toofg", service.post("/v1/completions",
                PROMPT.replace("5", "5, 'echo': true")).json().at("/choices/0/text").asText());
    }

    /// What evaluation harnesses leave out is the one token behind the prompt: it has to be there.
    @Test void theTokenThatEndsAnAnswerIsBehindItsPrompt() throws Exception {
        service.manualSampling = true;
        for (boolean streamed : List.of(false, true)) {
            String asked = PROMPT.replace("5", "5, 'logprobs': 3, 'echo': true, 'stream': " + streamed);
            var answer = CompletableFuture.supplyAsync(() -> service.post("/v1/completions", asked));
            var sample = next(EngineCommand.Sample.class);
            assertEquals(3, sample.task().topkPromptLogprobs());
            sample.replyTo().tell(new EngineReply.Sampled(sample.task().id(), new SampleResult(List.of(
                    new SampleResult.Sequence(new int[] {60, 60, 99}, new float[] {-3, -2, -1},
                            StopReason.STOP, Optional.empty(), Optional.of(List.of(top(60, 99, 86),
                                    top(60, 4, 30), top(99, 60, 1))))),
                    Optional.of(new float[] {Float.NaN, -2}),
                    Optional.of(List.of(List.of(), top(5, 28, 2))))));
            byte[] bytes = answer.get(20, TimeUnit.SECONDS).bytes();
            String body = new String(bytes, StandardCharsets.UTF_8);
            JsonNode choice = TestClient.MAPPER.readTree(streamed ? body.lines().filter(line ->
                    line.startsWith("data: {")).findFirst().orElseThrow().substring(6) : body)
                    .at("/choices/0");
            assertEquals("bcé", choice.path("text").asText(), choice::toString);
            assertEquals("stop", choice.path("finish_reason").asText());
            JsonNode logprobs = choice.path("logprobs");
            assertEquals("[\"b\",\"c\",\"\",\"é\",\"<end>\"]", logprobs.path("tokens").toString());
            assertEquals("[null,-2.0,-3.0,-2.0,-1.0]", logprobs.path("token_logprobs").toString());
            assertEquals("[0,1,2,2,3]", logprobs.path("text_offset").toString());
            // Each token has a name of its own: 28 is the letter of 2, 30 that of 4, 60 half of a character.
            assertEquals("[null,{\"f\":-1.0,\"token_id:28\":-2.0,\"c\":-3.0},"
                    + "{\"\":-1.0,\"<end>\":-2.0,\"i\":-3.0},{\"é\":-1.0,\"e\":-2.0,\"token_id:30\":-3.0},"
                    + "{\"<end>\":-1.0,\"token_id:60\":-2.0,\"b\":-3.0}]",
                    logprobs.path("top_logprobs").toString());
        }
    }

    /// Harnesses take the lists of an empty answer apart, and leave the last token of an echo out.
    @Test void theTokensOfAStopStringAreListed() throws Exception {
        service.manualSampling = true;
        for (boolean echo : List.of(false, true)) {
            String asked = PROMPT.replace("5", "5, 'logprobs': 0, 'stop': ['de'], 'echo': " + echo);
            var answer = CompletableFuture.supplyAsync(() -> service.post("/v1/completions", asked));
            var sample = next(EngineCommand.Sample.class);
            SampleResult drawn = result(StopReason.STOP, new int[] {3, 4});
            sample.replyTo().tell(new EngineReply.Sampled(sample.task().id(), new SampleResult(
                    drawn.sequences(), echo ? Optional.of(new float[] {Float.NaN, -2}) : Optional.empty(),
                    Optional.empty())));
            JsonNode choice = answer.get(20, TimeUnit.SECONDS).json().at("/choices/0");
            assertEquals(echo ? "bc" : "", choice.path("text").asText(), choice::toString);
            assertEquals(echo ? "[\"b\",\"c\",\"d\",\"e\"]" : "[\"d\",\"e\"]",
                    choice.at("/logprobs/tokens").toString());
            assertEquals(echo ? "[0,1,2,3]" : "[0,1]", choice.at("/logprobs/text_offset").toString());
        }
    }

    @Test void specialTokensAndStopTokensHaveTheirNames() throws Exception {
        service.manualSampling = true;
        var chat = CompletableFuture.supplyAsync(() -> service.post("/v1/chat/completions",
                CHAT.replace("'messages'", "'logprobs': true, 'top_logprobs': 2, 'messages'")));
        var sample = next(EngineCommand.Sample.class);
        sample.replyTo().tell(new EngineReply.Sampled(sample.task().id(), new SampleResult(List.of(
                new SampleResult.Sequence(new int[] {99, 1}, new float[] {-1, -1}, StopReason.LENGTH,
                        Optional.empty(), Optional.of(List.of(top(99, 2), top(1, 2))))),
                Optional.empty(), Optional.empty())));
        JsonNode special = chat.get(20, TimeUnit.SECONDS).json().at("/choices/0/logprobs/content/0");
        assertEquals("<end>", special.path("token").asText(), special::toString);
        assertEquals("[]", special.path("bytes").toString(), "the bytes together are the text");
        assertEquals("<end>", special.at("/top_logprobs/0/token").asText());
        // A stop token that has a text: it is no part of the answer's.
        var text = CompletableFuture.supplyAsync(() -> service.post("/v1/completions",
                PROMPT.replace("5", "5, 'logprobs': 0")));
        sample = next(EngineCommand.Sample.class);
        sample.replyTo().tell(new EngineReply.Sampled(sample.task().id(), result(StopReason.STOP,
                new int[] {1, 4})));
        JsonNode choice = text.get(20, TimeUnit.SECONDS).json().at("/choices/0");
        assertEquals("b", choice.path("text").asText());
        assertEquals("[\"b\",\"e\"]", choice.at("/logprobs/tokens").toString());
        assertEquals("[0,1]", choice.at("/logprobs/text_offset").toString());
    }

    @Test void anAnswerWithoutTextHasItsLogprobs() throws Exception {
        service.manualSampling = true;
        String chat = CHAT.replace("'messages'", "'logprobs': true, 'messages'");
        var answer = CompletableFuture.supplyAsync(() -> service.post("/v1/chat/completions", chat));
        var sample = next(EngineCommand.Sample.class);
        sample.replyTo().tell(new EngineReply.Sampled(sample.task().id(), result(StopReason.STOP,
                new int[] {99})));
        JsonNode choice = answer.get(20, TimeUnit.SECONDS).json().at("/choices/0");
        assertEquals("{\"content\":[],\"refusal\":null}", choice.path("logprobs").toString());
        assertEquals("", choice.at("/message/content").asText());
        try (var stream = new Stream("/v1/chat/completions", chat.replace("'messages'",
                "'stream': true, 'messages'"))) {
            var streamed = next(EngineCommand.Sample.class);
            streamed.replyTo().tell(new EngineReply.Sampled(streamed.task().id(), result(StopReason.STOP,
                    new int[] {99})));
            for (JsonNode event = stream.event(); !event.isTextual(); event = stream.event())
                assertTrue(event.at("/choices/0/logprobs").isNull(), event::toString);
        }
    }

    private static List<SampleResult.TokenLogprob> top(int... tokens) {
        var top = new ArrayList<SampleResult.TokenLogprob>();
        for (int token : tokens) top.add(new SampleResult.TokenLogprob(token, -top.size() - 1));
        return top;
    }

    @Test void theMostLikelyTokensOfAChatAreStreamed() throws Exception {
        service.manualSampling = true;
        String asked = CHAT.replace("'messages'", "'logprobs': true, 'top_logprobs': 2, 'messages'");
        try (var stream = new Stream("/v1/chat/completions",
                asked.replace("'messages'", "'stream': true, 'messages'"))) {
            var sample = next(EngineCommand.Sample.class);
            assertEquals(2, sample.task().topkSampleLogprobs());
            var follow = next(EngineCommand.FollowSample.class);
            follow.replyTo().tell(new EngineReply.Drawn(follow.task(), List.of(new DrawnTokens(0,
                    DrawnTokens.digest(new int[0], 0), new int[] {1, 60}, new float[] {-1, -3},
                    Optional.empty(), Optional.of(List.of(top(1, 99), top(60, 2)))))));
            stream.event();
            JsonNode first = stream.event().at("/choices/0/logprobs/content");
            assertEquals("[{\"token\":\"b\",\"logprob\":-1.0,\"bytes\":[98],\"top_logprobs\":["
                    + "{\"token\":\"b\",\"logprob\":-1.0,\"bytes\":[98]},"
                    + "{\"token\":\"<end>\",\"logprob\":-2.0,\"bytes\":[60,101,110,100,62]}]}]",
                    first.toString(), "half of a character is kept back");
            follow = next(EngineCommand.FollowSample.class);
            int[] before = {1, 60};
            follow.replyTo().tell(new EngineReply.Drawn(follow.task(), List.of(new DrawnTokens(2,
                    DrawnTokens.digest(before, 2), new int[] {60}, new float[1], Optional.empty(),
                    Optional.of(List.of(top(3, 60)))))));
            JsonNode rest = stream.event().at("/choices/0/logprobs/content");
            assertEquals(2, rest.size());
            assertEquals("[\"\",\"é\"]", "[" + rest.get(0).path("token") + "," + rest.get(1).path("token")
                    + "]");
            assertEquals("d", rest.at("/1/top_logprobs/0/token").asText());
            assertEquals("é", rest.at("/1/top_logprobs/1/token").asText(), "the token that was drawn");
            next(EngineCommand.FollowSample.class);
            sample.replyTo().tell(new EngineReply.Sampled(sample.task().id(), new SampleResult(List.of(
                    new SampleResult.Sequence(new int[] {1, 60, 60, 4, 99}, new float[5], StopReason.STOP,
                            Optional.empty(), Optional.of(List.of(top(1, 99), top(60, 2), top(3, 60),
                                    top(4, 5), top(99, 1))))), Optional.empty(), Optional.empty())));
            JsonNode last = stream.event().at("/choices/0/logprobs/content");
            assertEquals(1, last.size(), "the stop token is not among them");
            assertEquals("f", last.at("/0/top_logprobs/1/token").asText());
        }
        calm();
        JsonNode whole = service.post("/v1/chat/completions", asked).json()
                .at("/choices/0/logprobs/content");
        assertEquals("h", whole.at("/0/top_logprobs/1/token").asText(), whole::toString);
        assertEquals("[104]", whole.at("/0/top_logprobs/1/bytes").toString());
    }

    @Test void aChatIsRenderedWithTheTemplateOfTheModel() {
        Answer answer = service.post("/v1/chat/completions", "{" + MODEL + ", 'messages': [{'role':"
                + " 'developer', 'content': 'S'}, {'role': 'user', 'content': [{'type': 'text', 'text':"
                + " 'a'}, {'type': 'text', 'text': 'b'}], 'name': 'x'}], 'logprobs': true, 'temperature':"
                + " 0.5, 'max_completion_tokens': 3, 'chat_template_kwargs': {'x': [1, null, 0.5]},"
                + " 'tools': [], 'response_format': {'type': 'text'}, 'n': 1, 'stream': false}");
        assertEquals(200, answer.status(), () -> answer.json().toString());
        assertEquals("chat.completion", answer.text("object"));
        JsonNode choice = answer.json().path("choices").get(0);
        assertEquals("assistant", choice.path("message").path("role").asText());
        assertEquals("fg", choice.path("message").path("content").asText());
        JsonNode logprob = choice.path("logprobs").path("content").get(1);
        assertEquals("g", logprob.path("token").asText());
        assertEquals(-2, logprob.path("logprob").asDouble(), "of the model itself, not at this temperature");
        assertEquals("[103]", logprob.path("bytes").toString());
        int[] prompt = "B<system>S<user>a\nb[1, None, 0.5]!".chars().map(c -> c % 100).toArray();
        assertEquals(Arrays.toString(prompt), Arrays.toString(service.sampled.getLast().task().prompt()));
    }


    /// A chat goes on with the message of the answer as the package `openai` dumps it, with all it lacks.
    @Test void theMessageOfAnAnswerGoesBackAsItIs() {
        Answer answer = service.post("/v1/chat/completions", CHAT.replace("'ab'}", "'ab'}, {'role':"
                + " 'assistant', 'content': 'fg', 'refusal': null, 'annotations': null, 'audio': null,"
                + " 'function_call': null, 'tool_calls': null}, {'role': 'user', 'content': 'c'}"));
        assertEquals(200, answer.status(), () -> answer.json().toString());
    }

    @Test void tokensAreSentWhileTheyAreDrawn() throws Exception {
        service.manualSampling = true;
        try (var stream = new Stream("/v1/chat/completions", CHAT.replace("'messages'", "'stream': true,"
                + " 'stop': 'cd', 'stream_options': {'include_usage': true}, 'logprobs': true, 'n': 2,"
                + " 'messages'"))) {
            var sample = next(EngineCommand.Sample.class);
            draw(next(EngineCommand.FollowSample.class), new int[] {1, 2}, new int[] {});
            JsonNode role = stream.event();
            assertEquals("assistant", role.path("choices").get(0).path("delta").path("role").asText());
            assertTrue(role.path("usage").isNull());
            assertTrue(stream.head.contains("text/event-stream"), stream.head);
            var first = stream.event().path("choices").get(0);
            assertEquals("b", first.path("delta").path("content").asText(), "c may begin the stop string");
            assertEquals(1, first.path("logprobs").path("content").size());
            draw(next(EngineCommand.FollowSample.class), new int[] {1, 2, 60, 60}, new int[] {60});
            sample.replyTo().tell(new EngineReply.Sampled(sample.task().id(), result(StopReason.STOP,
                    new int[] {1, 2, 60, 60, 2, 3}, new int[] {60, 60, 99})));
            String rest = stream.rest(0);
            assertEquals("cé[DONE]", rest + "[DONE]");
            var texts = new StringBuilder();
            for (JsonNode event : stream.events) for (JsonNode choice : event.path("choices"))
                if (choice.path("index").asInt() == 1) texts.append(text(choice));
            assertEquals("é", texts.toString());
            List<String> reasons = stream.events.stream().flatMap(e -> e.path("choices").valueStream())
                    .map(c -> c.path("finish_reason").asText(null)).filter(r -> r != null).toList();
            assertEquals(List.of("stop", "stop"), reasons);
            JsonNode usage = stream.events.getLast();
            assertEquals(0, usage.path("choices").size());
            assertEquals(9, usage.path("usage").path("completion_tokens").asInt());
        }
    }

    @Test void aStreamGoesOnWhenItsRequestMovesToAnotherWorker() throws Exception {
        service.manualSampling = true;
        try (var stream = new Stream("/v1/completions", STREAMED)) {
            var sample = next(EngineCommand.Sample.class);
            draw(next(EngineCommand.FollowSample.class), new int[] {1, 2});
            assertEquals("bc", text(stream.event().path("choices").get(0)));
            next(EngineCommand.FollowSample.class);
            sample.replyTo().tell(new EngineReply.RequestFailed(Fault.server("queue_full", "it is full")));
            var again = next(EngineCommand.Sample.class);
            assertEquals(sample.task(), again.task());
            var asked = next(EngineCommand.FollowSample.class);
            assertEquals("[2]", Arrays.toString(asked.received()), "what was sent is not drawn again");
            draw(asked, new int[] {1, 2, 3});
            assertEquals("d", text(stream.event().path("choices").get(0)));
            asked = next(EngineCommand.FollowSample.class);
            draw(asked, new int[] {1, 9, 3, 4});
            JsonNode error = stream.event().path("error");
            assertEquals("sampling_failed", error.path("code").asText(), "another sample is not mixed in");
            assertNull(stream.event());
            next(EngineCommand.CancelSample.class);
        }
    }

    @Test void aClientThatLeavesEndsItsRequest() throws Exception {
        service.manualSampling = true;
        EngineCommand.Sample sample;
        try (var stream = new Stream("/v1/completions", STREAMED)) {
            sample = next(EngineCommand.Sample.class);
            draw(next(EngineCommand.FollowSample.class), new int[] {1, 2});
            stream.event();
        }
        EngineCommand command = next(EngineCommand.class);
        for (int i = 3; command instanceof EngineCommand.FollowSample asked; i++) {
            int[] all = new int[i];
            all[0] = 1;
            all[1] = 2;
            draw(asked, all); // the server finds out when it writes
            command = next(EngineCommand.class);
        }
        assertEquals(sample.task().id(), ((EngineCommand.CancelSample) command).task());
    }

    @Test void aRequestThatFailsAfterItsStreamBeganSaysSoInIt() throws Exception {
        service.manualSampling = true;
        try (var stream = new Stream("/v1/completions", STREAMED)) {
            var sample = next(EngineCommand.Sample.class);
            sample.replyTo().tell(new EngineReply.RequestFailed(Fault.user("non_finite", "it overflows")));
            assertEquals("non_finite", stream.event().path("error").path("code").asText());
            assertNull(stream.event());
        }
    }

    @Test void aWholeAnswerThatTakesLongKeepsItsConnection() throws Exception {
        service.manualSampling = true;
        var answer = CompletableFuture.supplyAsync(() -> service.post("/v1/completions", PROMPT));
        var sample = next(EngineCommand.Sample.class);
        TimeUnit.SECONDS.sleep(3); // longer than the wait after which the response begins
        sample.replyTo().tell(new EngineReply.Sampled(sample.task().id(), result(StopReason.LENGTH,
                new int[] {1, 2, 3})));
        assertEquals("bcd", answer.get(20, TimeUnit.SECONDS).json().path("choices").get(0).path("text")
                .asText());
    }

    /// A client that does not stream leaves before its answer begins: nothing is ever written to it.
    @Test void aClientThatLeavesBeforeItsAnswerBeginsEndsItsRequest() throws Exception {
        service.manualSampling = true;
        EngineCommand.Sample sample;
        try (var gone = new Stream("/v1/completions", PROMPT)) {
            sample = next(EngineCommand.Sample.class);
            assertTrue(gone.comments.isEmpty());
        }
        assertEquals(sample.task().id(), next(EngineCommand.CancelSample.class).task());
    }

    @Test void theTokensOfAnAnswerCountInTheMemoryOfRequests() throws Exception {
        try (var small = new TestService(Accounts.open(), "long-poll = 2 s, max-bytes-in-work = 1 MiB")) {
            small.tokenizerFiles = files("");
            String most = PROMPT.replace("5", "60, 'n': 1000");
            refuses(small.post("/v1/completions", most), 400, "max_tokens", "limit_reached");
            refuses(small.post("/v1/chat/completions", CHAT.replace("'messages'",
                    "'n': 1000, 'logprobs': true, 'top_logprobs': 1, 'messages'")), 400, "top_logprobs",
                    "limit_reached");
            refuses(small.post("/v1/completions", PROMPT.replace(", 'max_tokens': 5",
                    ", 'n': 1000, 'logprobs': 1")), 400, "logprobs", "limit_reached");
            String several = PROMPT.replace("5", "60, 'n': 100");
            assertEquals(200, small.post("/v1/completions", several).status());
            refuses(small.post("/v1/completions", several.replace("60", "60, 'logprobs': 5")), 400,
                    "max_tokens", "limit_reached");
            String few = PROMPT.replace("5", "5, 'n': 100, 'stream': true");
            Answer answer = small.post("/v1/completions", few);
            assertTrue(new String(answer.bytes(), StandardCharsets.UTF_8).endsWith("[DONE]\n\n"));
            untilAllIsGivenBack(small);
            RequestMemory.Share others = small.memory.new Share();
            others.take(7 << 17);
            RequestMemory.Share more = small.memory.new Share();
            more.take((1 << 17) - 4000);
            String busy = new String(small.post("/v1/completions", few).bytes(), StandardCharsets.UTF_8);
            assertTrue(busy.contains("\"code\":\"busy\""), busy);
            refuses(small.post("/v1/completions", few.replace("true", "false")), 429, "", "busy");
            others.release();
            more.release();
            untilAllIsGivenBack(small);
            assertEquals(100, small.post("/v1/completions", few.replace("true", "false")).json()
                    .path("choices").size());
            untilAllIsGivenBack(small);
        }
    }

    /// Clients send no limit and rely on the end of the context, which may be far away.
    @Test void aChatWithoutALimitGoesOnAsFarAsItsMemory() {
        try (var small = new TestService(Accounts.open(), "long-poll = 2 s, max-bytes-in-work = 1 MiB")) {
            small.tokenizerFiles = files("");
            String asked = CHAT.replace("'messages'",
                    "'n': 20, 'logprobs': true, 'top_logprobs': 20, 'messages'");
            Answer answer = small.post("/v1/chat/completions", asked);
            assertEquals(200, answer.status(), answer.json()::toString);
            // Of each sequence (40 + 20 * 40) * 20 + 21 * 640 bytes a token, and 12000 of names.
            assertEquals(Optional.of(34), small.sampled.getLast().task().params().maxTokens());
            assertEquals(200, small.post("/v1/chat/completions", CHAT).status());
            assertEquals(Optional.empty(), small.sampled.getLast().task().params().maxTokens());
        }
    }

    @Test void aStreamIsChargedForWhatItHolds() throws Exception {
        untilAllIsGivenBack(service);
        service.manualSampling = true;
        try (var stream = new Stream("/v1/chat/completions", CHAT.replace("'messages'",
                "'stream': true, 'logprobs': true, 'top_logprobs': 2, 'messages'"))) {
            next(EngineCommand.Sample.class);
            var taken = new ArrayList<Long>();
            int[] all = {1, 1, 1, 1, 1};
            for (int i = 0; i < all.length; i++) {
                var follow = next(EngineCommand.FollowSample.class);
                taken.add(service.memory.taken());
                follow.replyTo().tell(new EngineReply.Drawn(follow.task(), List.of(new DrawnTokens(i,
                        DrawnTokens.digest(all, i), new int[] {1}, new float[1], Optional.empty(),
                        Optional.of(List.of(top(1, 99)))))));
            }
            for (int i = 2; i < all.length; i++) assertEquals(40, taken.get(i) - taken.get(i - 1),
                    "a token that was sent is its number and its text");
            for (int i = 0; i <= all.length; i++) stream.event();
            assertEquals("<end>", stream.events.getLast()
                    .at("/choices/0/logprobs/content/0/top_logprobs/1/token").asText());
        }
    }

    /// An answer gives its memory back after its client has read the last of it.
    private static void untilAllIsGivenBack(TestService of) {
        while (of.memory.taken() != 0) Thread.onSpinWait();
    }

    @Test void anAnswerOfManyTokensIsWrittenWhileItIsRead() {
        try (var large = new TestService(Accounts.open(), "long-poll = 2 s, max-samples = 4000")) {
            large.tokenizerFiles = files("");
            refuses(large.post("/v1/chat/completions", CHAT.replace("'messages'",
                    "'logprobs': true, 'top_logprobs': 20, 'n': 4000, 'max_tokens': 54, 'messages'")), 400,
                    "top_logprobs", "limit_reached");
            for (String more : List.of("", ", 'logprobs': 0", ", 'logprobs': 3")) {
                JsonNode answer = large.post("/v1/completions", PROMPT.replace("5", "5, 'n': 3000" + more))
                        .json();
                assertEquals(3000, answer.path("choices").size());
                JsonNode last = answer.path("choices").get(2999);
                assertEquals("fg", last.path("text").asText());
                assertEquals(2999, last.path("index").asInt());
                assertEquals(more.isEmpty() ? 0 : 2, last.at("/logprobs/tokens").size());
                assertEquals(6000, answer.path("usage").path("completion_tokens").asInt());
                untilAllIsGivenBack(large);
            }
        }
    }

    @Test void modelsAreListed() {
        JsonNode list = service.get("/v1/models").json();
        assertEquals("list", list.path("object").asText());
        assertEquals("ultrasafe/usf-tiny", list.path("data").get(0).path("id").asText());
        assertEquals("model", service.get("/v1/models/ultrasafe/usf-tiny").text("object"));
        assertEquals("ultrasafe/usf-tiny", service.get("/v1/models/ultrasafe%2Fusf-tiny").text("id"));
        refuses(service.get("/v1/models/gpt-x"), 404, "model", "model_not_found");
    }

    @Test void theKeyIsABearerToken() {
        service.key = "";
        refuses(service.get("/v1/models"), 401, "", "invalid_api_key");
        refuses(service.get("/v1/models", "Authorization", "Bearer tml-other"), 401, "", "invalid_api_key");
        assertEquals(200, service.get("/v1/models", "Authorization", "Bearer tml-alice-key").status());
        assertEquals(200, service.get("training_runs", "Authorization", "bearer tml-alice-key").status());
    }

    private static void refuses(Answer answer, int status, String param, String code) {
        JsonNode error = answer.json().path("error");
        assertEquals(status, answer.status(), () -> answer.json().toString());
        assertEquals(param, error.path("param").asText("").replace("null", ""), error::toString);
        assertEquals(code, error.path("code").asText(), error::toString);
        assertEquals(status == 429 ? "rate_limit_error" : status < 500 ? "invalid_request_error"
                : "server_error", error.path("type").asText());
        assertTrue(error.path("message").asText().length() > 10, error::toString);
        assertFalse(answer.json().has("category"));
    }

    /// Each row: the field and the code of the answer, and what is put into a valid body.
    @Test void badRequestsAreRefusedByField() {
        String[][] chat = {{"messages", "invalid", "'messages': [{'role': 'user', 'content': 'ab'}]", ""},
            {"messages", "invalid", "[{'role': 'user', 'content': 'ab'}]", "[]"},
            {"messages[0].role", "invalid", "'role': 'user', ", ""},
            {"messages[0].content", "invalid", "'ab'", "7"},
            {"messages[0].content", "invalid", "'ab'", "null"},
            {"messages[0].content[0].type", "unsupported", "'ab'", "[{'type': 'image_url'}]"},
            {"messages[0].content[0].text", "invalid", "'ab'", "[{'type': 'text'}]"},
            {"messages[0].tool_calls", "unsupported", "'ab'", "'ab', 'tool_calls': [{'id': 'x'}]"},
            {"messages[0].colour", "invalid", "'ab'", "'ab', 'colour': 1"},
            {"messages", "invalid", "[{'role': 'user', 'content': 'ab'}]", "'ab'"},
            {"top_logprobs", "invalid", "'messages'", "'logprobs': true, 'top_logprobs': 21, 'messages'"},
            {"top_logprobs", "invalid", "'messages'", "'top_logprobs': 2, 'messages'"},
            {"max_tokens", "invalid", "'messages'", "'max_tokens': 0, 'messages'"},
            {"logprobs", "invalid", "'messages'", "'logprobs': 3, 'messages'"},
            {"chat_template_kwargs", "invalid", "'messages'", "'chat_template_kwargs': 3, 'messages'"},
            {"max_completion_tokens", "context_length_exceeded", "'messages'",
                "'max_completion_tokens': 64, 'messages'"}};
        for (String[] row : chat) bad("/v1/chat/completions", CHAT, row);
        for (String name : List.of("tools", "functions", "response_format", "logit_bias", "audio",
                "prediction", "web_search_options"))
            bad("/v1/chat/completions", CHAT, new String[] {name, "unsupported", "'messages'",
                "'" + name + "': {'type': 'json_object'}, 'messages'"});
        String[][] completion = {{"model", "invalid", "'model': 'ultrasafe/usf-tiny'", "'seed': 1"},
            {"model", "model_not_found", "ultrasafe/usf-tiny", "gpt-x"},
            {"model", "model_not_found", "ultrasafe/usf-tiny", "../usf tiny"},
            {"model", "invalid", "ultrasafe/usf-tiny", "bios://x"},
            {"prompt", "invalid", "[1, 2]", "[]"}, {"prompt", "invalid", "[1, 2]", "{}"},
            {"prompt[1]", "invalid", "[1, 2]", "[1, 100]"}, {"prompt[1]", "invalid", "[1, 2]", "[1, 'a']"},
            {"prompt[0][1]", "invalid", "[1, 2]", "[[1, -1]]"}, {"prompt", "invalid", "[1, 2]", "''"},
            {"prompt[1]", "invalid", "[1, 2]", "['a', 3]"}, {"prompt[1]", "invalid", "[1, 2]", "[[1], []]"},
            {"prompt[1]", "invalid", "[1, 2]", "['a', '']"},
            {"prompt[1]", "context_length_exceeded", "[1, 2]", "['a', '" + "b".repeat(65) + "']"},
            {"max_tokens", "invalid", "5", "0"}, {"max_tokens", "context_length_exceeded", "5", "63"},
            {"temperature", "invalid", "5", "5, 'temperature': -1"},
            {"top_p", "invalid", "5", "5, 'top_p': 0"},
            {"n", "invalid", "5", "5, 'n': 9"}, {"stop", "invalid", "5", "5, 'stop': ['']"},
            {"stop[0]", "invalid", "5", "5, 'stop': [3]"},
            {"logprobs", "invalid", "5", "5, 'logprobs': 21"},
            {"logprobs", "invalid", "5", "5, 'logprobs': -1"},
            {"logprobs", "invalid", "5", "5, 'logprobs': true"}, {"echo", "invalid", "5", "5, 'echo': 1"},
            {"best_of", "unsupported", "5", "5, 'best_of': 2"},
            {"suffix", "unsupported", "5", "5, 'suffix': 'x'"},
            {"presence_penalty", "unsupported", "5", "5, 'presence_penalty': 0.5"},
            {"logit_bias", "unsupported", "5", "5, 'logit_bias': {'3': 1}"},
            {"stream_options", "invalid", "5", "5, 'stream_options': {}"},
            {"colour", "invalid", "5", "5, 'colour': 'red'"}, {"seed", "invalid", "5", "5, 'seed': 'x'"}};
        for (String[] row : completion) bad("/v1/completions", PROMPT, row);
        refuses(service.post("/v1/completions", "{"), 400, "", "malformed_json");
        refuses(service.get("/v1/completions"), 405, "", "method_not_allowed");
        refuses(service.post("/v1/embeddings", "{}"), 404, "", "no_such_call");
        String many = PROMPT.replace("[1, 2]", "['a', 'b', 'c']").replace("5", "5, 'n': 3");
        refuses(service.post("/v1/completions", many), 400, "prompt", "invalid");
    }

    private static void bad(String path, String good, String[] row) {
        String body = good.replace(row[2], row[3]).replace(", }", "}").replace(", ,", ",");
        assertFalse(body.equals(good), row[2]);
        refuses(service.post(path, body), row[1].equals("model_not_found") ? 404 : 400, row[0], row[1]);
    }

    private static final String MESSAGE = "{" + MODEL
            + ", 'max_tokens': 5, 'messages': [{'role': 'user', 'content': 'ab'}]}";

    @Test void anthropicsMessagesAreAnswered() throws Exception {
        service.manualSampling = true;
        String asked = MESSAGE.replace("'messages'", "'stop_sequences': ['cd'], 'system': [{'type': 'text',"
                + " 'text': 'be'}], 'messages'");
        var answer = CompletableFuture.supplyAsync(() -> service.post("/v1/messages", asked));
        var sample = next(EngineCommand.Sample.class);
        assertEquals(List.of("cd"), sample.task().params().stopStrings());
        assertEquals(Optional.of(5), sample.task().params().maxTokens());
        sample.replyTo().tell(new EngineReply.Sampled(sample.task().id(), result(StopReason.STOP,
                new int[] {1, 2, 3})));
        JsonNode message = answer.get(20, TimeUnit.SECONDS).json();
        assertEquals("b", message.at("/content/0/text").asText(), message::toString);
        assertEquals("stop_sequence", message.path("stop_reason").asText(), message::toString);
        assertEquals("cd", message.path("stop_sequence").asText());
        assertEquals(3, message.at("/usage/output_tokens").asInt());
        try (var stream = new Stream("/v1/messages", MESSAGE.replace("'messages'", "'stream': true,"
                + " 'messages'"))) {
            sample = next(EngineCommand.Sample.class);
            draw(next(EngineCommand.FollowSample.class), new int[] {1, 2});
            var types = new ArrayList<String>();
            for (int i = 0; i < 3; i++) types.add(stream.event().path("type").asText());
            assertEquals("bc", stream.events.getLast().at("/delta/text").asText());
            next(EngineCommand.FollowSample.class);
            sample.replyTo().tell(new EngineReply.Sampled(sample.task().id(), result(StopReason.LENGTH,
                    new int[] {1, 2, 3})));
            for (int i = 0; i < 4; i++) types.add(stream.event().path("type").asText());
            assertEquals(List.of("message_start", "content_block_start", "content_block_delta",
                    "content_block_delta", "content_block_stop", "message_delta", "message_stop"), types);
            assertEquals("max_tokens", stream.events.get(5).at("/delta/stop_reason").asText());
            assertEquals(3, stream.events.get(5).at("/usage/output_tokens").asInt());
        }
    }

    @Test void badMessagesAreRefusedByField() {
        String[][] rows = {{"max_tokens", "'max_tokens': 5, ", ""}, {"max_tokens", "5", "0"},
            {"messages", "[{'role': 'user', 'content': 'ab'}]", "[]"},
            {"messages[0].role", "'user'", "'tool'"}, {"messages[0].role", "'user'", "'assistant'"},
            {"messages[0].content", "'ab'", "7"}, {"system", "'messages'", "'system': 7, 'messages'"},
            {"tools", "5", "5, 'tools': [{'name': 'x'}]"},
            {"stop_sequences", "5", "5, 'stop_sequences': ['']"},
            {"temperature", "5", "5, 'temperature': -1"},
            {"model", "ultrasafe/usf-tiny", "gpt-x"}, {"colour", "5", "5, 'colour': 1"}};
        for (String[] row : rows) {
            Answer refused = service.post("/v1/messages", MESSAGE.replace(row[1], row[2]));
            JsonNode error = refused.json().path("error");
            assertEquals(row[0].equals("model") ? 404 : 400, refused.status(), refused.json()::toString);
            assertEquals("error", refused.text("type"), refused.json()::toString);
            assertTrue(error.path("message").asText().contains(row[0]), error::toString);
        }
    }

    @Test void modelsWithoutAUsableTemplateSayWhatToDo() {
        try (var other = new TestService(Accounts.open(), "long-poll = 100 ms")) {
            refuses(other.post("/v1/chat/completions", CHAT), 400, "model", "no_chat_template");
            other.tokenizerFiles = files("{% frobnicate %}");
            refuses(other.post("/v1/chat/completions", CHAT), 400, "model", "no_chat_template");
            other.tokenizerFiles = files("{{ raise_exception('no ' ~ messages[0].role) }}");
            Answer refused = other.post("/v1/chat/completions", CHAT);
            refuses(refused, 400, "messages", "invalid");
            assertTrue(refused.json().path("error").path("message").asText().contains("no user"));
        }
    }
}
