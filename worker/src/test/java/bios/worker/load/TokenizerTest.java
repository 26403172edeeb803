package bios.worker.load;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.text.Normalizer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class TokenizerTest {
    private static final Path MODEL = Path.of("../deploy/models/bios-tiny");

    @Test void textIsUnchangedAfterEncodingAndDecoding() {
        try (Tokenizer tokenizer = Tokenizer.open(MODEL).orElseThrow()) {
            String text = "Once upon a time, naïve 🙂 日本 <|user|> code();\n\n";
            int[] tokens = tokenizer.encode(text, false);
            assertEquals(text, tokenizer.decode(tokens, false));
            assertEquals(text.replace("<|user|>", ""), tokenizer.decode(tokens, true));
            assertArrayEquals(new int[0], tokenizer.encode("", false));
            assertEquals("", tokenizer.decode(new int[0], false));
            int[] longText = tokenizer.encode("word ".repeat(5000), true);
            assertTrue(longText.length >= 5000, "nothing is cut: " + longText.length);
        }
    }

    /// However a sequence is cut, the texts of its tokens are its text, and each is whole characters.
    @Test void aGrowingSequenceGivesWholeCharacters() {
        try (Tokenizer tokenizer = Tokenizer.open(MODEL).orElseThrow()) {
            int[] prompt = tokenizer.encode("Tell me:", false);
            String text = " naïve 🙂🏽 日本語 Ωmega <|user|>a\n\n  b\uFFFD é\u0301 end";
            int[] tokens = tokenizer.encode(text, false);
            String whole = tokenizer.decode(tokens, true);
            assertTrue(tokens.length > whole.codePointCount(0, whole.length()) / 2);
            for (int step = 1; step <= tokens.length; step++) {
                var texts = new ArrayList<String>();
                int[] known = prompt;
                for (int from = 0, to = 0; to < tokens.length;) {
                    to = Math.min(tokens.length, to + step);
                    List<String> more = tokenizer.decodeNext(known, Arrays.copyOfRange(tokens, from, to),
                            to == tokens.length);
                    texts.addAll(more);
                    from += more.size();
                    int[] all = Arrays.copyOf(prompt, prompt.length + from);
                    System.arraycopy(tokens, 0, all, prompt.length, from);
                    known = Arrays.copyOfRange(all, all.length - 4, all.length);
                }
                assertEquals(tokens.length, texts.size());
                assertEquals(whole, String.join("", texts), "steps of " + step);
                assertTrue(texts.contains("日") && texts.contains("🙂"), texts.toString());
            }
            int[] broken = Arrays.copyOf(tokenizer.encode("🙂", false), 2);
            assertEquals(List.of(), tokenizer.decodeNext(prompt, broken, false));
            assertEquals(List.of("", "\uFFFD"), tokenizer.decodeNext(prompt, broken, true));
        }
    }

    @Test void eachTokenHasATextOfItsOwn() {
        try (Tokenizer tokenizer = Tokenizer.open(MODEL).orElseThrow()) {
            String text = "Once upon  a time, time and 日";
            int[] tokens = tokenizer.encode(text, false);
            List<String> texts = tokenizer.decodeEach(tokens);
            String joined = String.join("", texts);
            assertEquals(text.substring(0, text.length() - 1), joined.substring(0, text.length() - 1));
            assertTrue(texts.getLast().contains("\uFFFD") || texts.getLast().equals("日"), texts.toString());
            assertEquals(List.of("<|user|>"), tokenizer.decodeEach(tokenizer.encode("<|user|>", false)));
        }
    }

    private static List<String> parts(Tokenizer.Aligned aligned) {
        var parts = new ArrayList<String>();
        int begin = 0;
        for (int end : aligned.ends()) {
            parts.add(aligned.text().substring(begin, end));
            begin = end;
        }
        return parts;
    }

    /// The parts are those of the text as it is given: the normalizer composes accents, and special tokens
    /// have no text where answers are decoded.
    @Test void theTokensOfAPromptAreThePartsOfItsText() {
        try (Tokenizer tokenizer = Tokenizer.open(MODEL).orElseThrow()) {
            String text = "<|user|>Hi e\u0301te\u0301 🙂🏽 日本<|assistant|>Yes,  a\n";
            Tokenizer.Aligned aligned = tokenizer.align(text);
            List<String> parts = parts(aligned);
            assertEquals(text, String.join("", parts));
            assertArrayEquals(tokenizer.encode(text, true), aligned.tokens());
            assertEquals("<|user|>", parts.getFirst());
            assertTrue(parts.containsAll(List.of("<|assistant|>", "日", "本")), parts.toString());
            assertTrue(parts.stream().noneMatch(part -> part.startsWith("\u0301")), parts.toString());
            Tokenizer.Aligned ids = tokenizer.align(aligned.tokens());
            assertEquals(tokenizer.decode(aligned.tokens(), false), ids.text());
            assertEquals(ids.text(), String.join("", parts(ids)));
            assertEquals(parts.stream().map(part -> Normalizer.normalize(part, Normalizer.Form.NFC)).toList(),
                    parts(ids), "the tokens of a text are aligned as the same tokens without it");
            assertEquals(0, tokenizer.align("").ends().length);
        }
    }

    private static void write(Path folder, String postProcessor) throws IOException {
        String file = Files.readString(MODEL.resolve("tokenizer.json"));
        Files.writeString(folder.resolve("tokenizer.json"),
                file.replace("\"post_processor\": null", postProcessor));
    }

    /// Many tokenizers leave the space in front of a word out of the place that they report.
    @Test void aSpaceBelongsToTheWordBehindIt(@TempDir Path folder) throws IOException {
        write(folder, "\"post_processor\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false,"
                + " \"trim_offsets\": true, \"use_regex\": false}");
        String text = "Once upon  a time\u00a0!  ";
        try (Tokenizer trims = Tokenizer.open(folder).orElseThrow();
                Tokenizer other = Tokenizer.open(MODEL).orElseThrow()) {
            assertEquals(parts(other.align(text)), parts(trims.align(text)));
            assertTrue(parts(trims.align(text)).contains(" a"), parts(trims.align(text)).toString());
        }
    }

    @Test void tokensThatTheTokenizerAddsHaveNoPartInThePrompt(@TempDir Path folder) throws IOException {
        String piece = "{\"%s\": {\"id\": \"%s\", \"type_id\": 0}}";
        String end = piece.formatted("SpecialToken", "<|endoftext|>");
        String added = "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [" + end + ", "
                + piece.formatted("Sequence", "A") + ", " + end + "], \"pair\": ["
                + piece.formatted("Sequence", "A") + ", " + piece.formatted("Sequence", "B")
                + "], \"special_tokens\": {\"<|endoftext|>\": {\"id\": \"<|endoftext|>\", \"ids\": [0],"
                + " \"tokens\": [\"<|endoftext|>\"]}}}";
        write(folder, added);
        try (Tokenizer tokenizer = Tokenizer.open(folder).orElseThrow()) {
            String text = "<|endoftext|>a🙂b";
            Tokenizer.Aligned aligned = tokenizer.align(text);
            List<String> parts = parts(aligned);
            assertEquals(0, aligned.tokens()[0]);
            assertEquals(List.of("", "<|endoftext|>"), parts.subList(0, 2), "the second one was sent");
            assertEquals(0, aligned.tokens()[parts.size() - 1]);
            assertEquals(List.of("b", ""), parts.subList(parts.size() - 2, parts.size()));
            assertEquals(text, String.join("", parts));
            assertArrayEquals(new int[] {0, 0}, tokenizer.align("").ends());
        }
    }

    @Test void tokenizerFilesAreThoseOfTheFolder() throws IOException {
        try (Tokenizer tokenizer = Tokenizer.open(MODEL).orElseThrow()) {
            assertArrayEquals(Files.readAllBytes(MODEL.resolve("tokenizer.json")),
                    tokenizer.files().get("tokenizer.json"));
            assertTrue(tokenizer.files().containsKey("tokenizer_config.json"));
            assertTrue(tokenizer.files().keySet().stream().noneMatch(name -> name.endsWith(".safetensors")));
        }
    }

    /// The ids are those that transformers 5 gives.
    @Test void tokensOfTheConfigurationAloneAreWholeTokens(@TempDir Path folder) throws IOException {
        Files.copy(MODEL.resolve("tokenizer.json"), folder.resolve("tokenizer.json"));
        int known;
        try (Tokenizer tokenizer = Tokenizer.open(folder).orElseThrow()) {
            known = tokenizer.encode("<|user|>", false)[0];
            assertTrue(tokenizer.encode("a<|extra|>b", false).length > 3);
        }
        Files.writeString(folder.resolve("tokenizer_config.json"), """
                {"added_tokens_decoder": {
                    "%d": {"content": "<|user|>", "special": true},
                    "1025": {"content": "<|second|>", "special": false},
                    "1024": {"content": "<|extra|>", "special": true}}}""".formatted(known));
        try (Tokenizer tokenizer = Tokenizer.open(folder).orElseThrow()) {
            int[] tokens = tokenizer.encode("a<|extra|>b<|user|><|second|>", false);
            assertArrayEquals(new int[] {67, 3072, 68, known, 3073}, tokens, Arrays.toString(tokens));
            assertEquals("ab<|second|>", tokenizer.decode(tokens, true));
            assertEquals(2, tokenizer.warnings(folder).size(), "the ids of the file are other ones");
        }
    }

    @Test void addedTokensOfAnotherTypeAreRefusedByName(@TempDir Path folder) throws IOException {
        Files.copy(MODEL.resolve("tokenizer.json"), folder.resolve("tokenizer.json"));
        Map<String, String> refused = Map.of("[1]", "added_tokens_decoder is [1]",
                "{'1024': {'content': '<|extra|>', 'special': 'yes'}}", "1024: special is \"yes\"",
                "{'1024': {'content': '<|extra|>', 'lstrip': 1}}", "1024: lstrip is 1");
        for (var decoder : refused.entrySet()) {
            Files.writeString(folder.resolve("tokenizer_config.json"),
                    "{'added_tokens_decoder': %s}".formatted(decoder.getKey()).replace('\'', '"'));
            String got = assertThrows(ModelRefused.class, () -> Tokenizer.open(folder)).getMessage();
            assertTrue(got.contains(decoder.getValue()) && got.contains("expected"), got);
        }
        Files.writeString(folder.resolve("tokenizer_config.json"), "{\"added_tokens_decoder\": null}");
        Tokenizer.open(folder).orElseThrow().close();
    }

    @Test void aMissingTokenizerIsEmptyAndAnInvalidOneIsRefused(@TempDir Path folder) throws IOException {
        assertTrue(Tokenizer.open(folder).isEmpty());
        Files.writeString(folder.resolve("tokenizer.json"), "{\"model\": 1}");
        var refused = assertThrows(ModelRefused.class, () -> Tokenizer.open(folder));
        assertTrue(refused.getMessage().contains("tokenizer.json"), refused.getMessage());
    }
}
