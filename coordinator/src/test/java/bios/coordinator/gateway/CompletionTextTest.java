package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.sampling.DrawnTokens;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleResult.StopReason;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.function.Function;
import org.junit.jupiter.api.Test;

/// The text of a growing sequence: token `i` is the letter or letters of `LETTERS[i]`.
class CompletionTextTest {
    private static final String[] LETTERS = {"a", "b", "ab", "aab", "🙂", "", "b🙂", "END"};

    private static float[] logprobs(int[] tokens) {
        float[] logprobs = new float[tokens.length];
        for (int i = 0; i < tokens.length; i++) logprobs[i] = -i;
        return logprobs;
    }

    private static void decode(CompletionText text) {
        text.decoded(Arrays.stream(text.undecoded()).mapToObj(t -> LETTERS[t]).toList());
    }

    /// The parts of the text when tokens come in groups that end at `cuts`.
    private static List<CompletionText.Delta> parts(int[] tokens, StopReason reason, List<String> stops,
            List<Integer> cuts) {
        var text = new CompletionText(stops, new int[] {1, 2, 3, 4, 5, 6});
        var parts = new ArrayList<CompletionText.Delta>();
        int from = 0;
        for (int to : cuts) {
            int[] more = Arrays.copyOfRange(tokens, from, to);
            assertTrue(text.add(new DrawnTokens(from, DrawnTokens.digest(tokens, from), more,
                    Arrays.copyOfRange(logprobs(tokens), from, to), to == tokens.length
                    ? Optional.of(reason) : Optional.empty())));
            decode(text);
            parts.add(text.next());
            from = to;
        }
        return parts;
    }

    private static String joined(List<CompletionText.Delta> parts) {
        return String.join("", parts.stream().map(CompletionText.Delta::text).toList());
    }

    @Test void aStopStringAcrossTokensIsNoPartOfTheTextAndNothingOfItIsSent() {
        int[] tokens = {0, 1, 0, 0, 2, 7};
        for (var cuts : List.of(List.of(6), List.of(1, 2, 3, 4, 5, 6), List.of(3, 6))) {
            var parts = parts(tokens, StopReason.STOP, List.of("aabEND", "zz"), cuts);
            assertEquals("aba", joined(parts), cuts.toString());
            assertEquals(Optional.of(StopReason.STOP), parts.getLast().finishReason());
            assertEquals(List.of("a", "b", "a"), texts(parts, CompletionText.Delta::pieces), cuts.toString());
            assertEquals(List.of("a", "ab", "END"), texts(parts, CompletionText.Delta::ending),
                    "every drawn token is in one of the two");
        }
        // The same text without the stop: what was kept back is sent at the end.
        var parts = parts(tokens, StopReason.LENGTH, List.of("aabENDx"), List.of(3, 5, 6));
        assertEquals("abaaabEND", joined(parts));
        assertEquals("ab", parts.getFirst().text(), "a tail that may begin the stop string is kept back");
    }

    private static List<String> texts(List<CompletionText.Delta> parts,
            Function<CompletionText.Delta, List<CompletionText.Piece>> of) {
        return parts.stream().flatMap(p -> of.apply(p).stream()).map(CompletionText.Piece::text).toList();
    }

    @Test void aStopTokenIsNoPartOfTheText() {
        for (var cuts : List.of(List.of(3), List.of(1, 2, 3))) {
            var parts = parts(new int[] {0, 1, 7}, StopReason.STOP, List.of(), cuts);
            assertEquals("ab", joined(parts));
            assertEquals(List.of(""), texts(parts, CompletionText.Delta::ending));
        }
        assertEquals("abEND", joined(parts(new int[] {0, 1, 7}, StopReason.LENGTH, List.of(), List.of(3))));
    }

    /// Thousands of random sequences, stop strings and groups of tokens: the parts together are the text that
    /// comes in one piece, and no part ends inside a character.
    @Test void thePartsAreTheWholeHoweverTheTokensCome() {
        var chance = new Random(11);
        for (int round = 0; round < 5000; round++) {
            int[] tokens = chance.ints(1 + chance.nextInt(12), 0, LETTERS.length).toArray();
            StopReason reason = chance.nextBoolean() ? StopReason.STOP : StopReason.LENGTH;
            List<String> stops = List.of("aa", "b🙂", "ab🙂", "ENDa").subList(0, chance.nextInt(5));
            var cuts = new ArrayList<Integer>();
            for (int i = 1; i < tokens.length; i++) if (chance.nextBoolean()) cuts.add(i);
            cuts.add(tokens.length);
            var parts = parts(tokens, reason, stops, cuts);
            var whole = parts(tokens, reason, stops, List.of(tokens.length)).getFirst();
            String what = Arrays.toString(tokens) + reason + stops + cuts;
            assertEquals(whole.text(), joined(parts), what);
            assertEquals(whole.pieces(), parts.stream().flatMap(p -> p.pieces().stream()).toList(), what);
            assertEquals(whole.ending(), parts.stream().flatMap(p -> p.ending().stream()).toList(), what);
            assertEquals(tokens.length, whole.pieces().size() + whole.ending().size(), what);
            assertEquals(whole.finishReason(), parts.getLast().finishReason(), what);
            for (CompletionText.Delta part : parts)
                assertFalse(!part.text().isEmpty() && (Character.isLowSurrogate(part.text().charAt(0))
                        || Character.isHighSurrogate(part.text().charAt(part.text().length() - 1))), what);
        }
    }

    @Test void tokensOfAnotherSampleAreNotTaken() {
        var text = new CompletionText(List.of(), new int[] {1});
        assertTrue(text.add(new DrawnTokens(0, DrawnTokens.digest(new int[0], 0), new int[] {1, 2},
                new float[2], Optional.empty())));
        int[] other = {1, 3, 4};
        assertFalse(text.add(new DrawnTokens(2, DrawnTokens.digest(other, 2), new int[] {4}, new float[1],
                Optional.empty())));
        assertFalse(text.complete(new SampleResult.Sequence(other, new float[3], StopReason.STOP)));
        assertTrue(text.complete(new SampleResult.Sequence(new int[] {1, 2, 4}, new float[3],
                StopReason.STOP)));
    }
}
