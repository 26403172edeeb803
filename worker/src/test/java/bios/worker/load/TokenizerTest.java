package bios.worker.load;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
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

    @Test void tokenizerFilesAreThoseOfTheFolder() throws IOException {
        try (Tokenizer tokenizer = Tokenizer.open(MODEL).orElseThrow()) {
            assertArrayEquals(Files.readAllBytes(MODEL.resolve("tokenizer.json")),
                    tokenizer.files().get("tokenizer.json"));
            assertTrue(tokenizer.files().containsKey("tokenizer_config.json"));
            assertTrue(tokenizer.files().keySet().stream().noneMatch(name -> name.endsWith(".safetensors")));
        }
    }

    @Test void aMissingTokenizerIsEmptyAndAnInvalidOneIsRefused(@TempDir Path folder) throws IOException {
        assertTrue(Tokenizer.open(folder).isEmpty());
        Files.writeString(folder.resolve("tokenizer.json"), "{\"model\": 1}");
        var refused = assertThrows(ModelRefused.class, () -> Tokenizer.open(folder));
        assertTrue(refused.getMessage().contains("tokenizer.json"), refused.getMessage());
    }
}
