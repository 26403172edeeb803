package bios.worker.sample;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;

/// Every token is one byte of UTF-8, the most difficult tokenizer for stop strings.
class StopStringMatcherTest {
    @Test void aStopStringIsFoundWhereItIsComplete() {
        assertEquals(7, stopsBehind("one STOP two", "prompt", "STOP"));
        assertEquals(3, stopsBehind("ab\n\ncd", "x", "\n\n"));
        assertEquals(-1, stopsBehind("STO", "", "STOP"));
    }

    @Test void multiByteCharactersAreMatchedAsAWhole() {
        String text = "naïve 🙂 日本";
        assertEquals(bytes(text) - 1, stopsBehind(text, "", "日本"));
        assertEquals(bytes("naïve 🙂") - 1, stopsBehind(text, "é", "🙂"));
        assertEquals(bytes("naï") - 1, stopsBehind(text, "", "ï"));
    }

    @Test void aStopStringThatBeginsInThePromptDoesNotCount() {
        assertEquals(-1, stopsBehind("OP and on", "ST", "STOP"));
    }

    @Test void aPromptMayEndInsideACharacter() {
        byte[] smile = "🙂".getBytes(StandardCharsets.UTF_8);
        var stop = new StopStringMatcher(List.of("end"), StopStringMatcherTest::text,
                new int[] {'a', smile[0] & 255, smile[1] & 255});
        boolean found = false;
        for (int token : new int[] {smile[2] & 255, smile[3] & 255, 'e', 'n'}) found |= stop.append(token);
        assertEquals(false, found);
        assertEquals(true, stop.append('d'));
    }

    @Test void invalidBytesDoNotHideALaterStopString() {
        var stop = new StopStringMatcher(List.of("end"), StopStringMatcherTest::text, new int[] {'a'});
        for (int i = 0; i < 1000; i++) assertEquals(false, stop.append(0xFF));
        assertEquals(false, stop.append('e') | stop.append('n'));
        assertEquals(true, stop.append('d'));
    }

    @Test void theFirstOfSeveralStringsWinsInAnyText() {
        var random = new Random(3);
        String alphabet = "abé🙂";
        for (int round = 0; round < 500; round++) {
            String text = word(random, alphabet, 40);
            String first = word(random, alphabet, 1 + random.nextInt(4));
            String second = word(random, alphabet, 1 + random.nextInt(4));
            assertEquals(expected(text, first, second), stopsBehind(text, word(random, alphabet, 5), first,
                    second), text + " " + first + " " + second);
        }
    }

    private static int expected(String text, String... stops) {
        int best = Integer.MAX_VALUE;
        for (String stop : stops) if (text.contains(stop))
            best = Math.min(best, bytes(text.substring(0, text.indexOf(stop) + stop.length())) - 1);
        return best == Integer.MAX_VALUE ? -1 : best;
    }

    private static String word(Random random, String alphabet, int length) {
        int[] points = alphabet.codePoints().toArray();
        var word = new StringBuilder();
        for (int i = 0; i < length; i++) word.appendCodePoint(points[random.nextInt(points.length)]);
        return word.toString();
    }

    /// Index of the token after which the text stops; -1: never.
    private static int stopsBehind(String text, String prompt, String... stops) {
        var stop = new StopStringMatcher(List.of(stops), StopStringMatcherTest::text, tokens(prompt));
        int[] tokens = tokens(text);
        for (int i = 0; i < tokens.length; i++) if (stop.append(tokens[i])) return i;
        return -1;
    }

    private static int bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8).length;
    }

    private static int[] tokens(String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        int[] tokens = new int[bytes.length];
        for (int i = 0; i < bytes.length; i++) tokens[i] = bytes[i] & 255;
        return tokens;
    }

    private static String text(int[] tokens) {
        byte[] bytes = new byte[tokens.length];
        for (int i = 0; i < bytes.length; i++) bytes[i] = (byte) tokens[i];
        return new String(bytes, StandardCharsets.UTF_8);
    }
}
