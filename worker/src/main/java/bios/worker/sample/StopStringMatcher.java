package bios.worker.sample;

import java.util.Arrays;
import java.util.List;
import java.util.function.Function;

/// Looks for stop strings in the text of a growing sequence. Tokens are not characters: a string may begin
/// and end inside tokens, and a character may take several tokens. Text is therefore decoded after a few
/// known tokens, and a tail that ends in the middle of a character waits for the next token.
final class StopStringMatcher {
    /// Tokens before the sampled ones that are decoded with them, because a decoder may treat the first
    /// word of a text in its own way.
    private static final int CONTEXT = 4;
    private static final char BROKEN = '\uFFFD';

    private final List<String> stops;
    private final Function<int[], String> decoder;
    private final int longest;
    private int[] window;
    private int known;
    private String text = "";

    /// @param decoder gives the text of tokens; only called when there are stop strings
    StopStringMatcher(List<String> stops, Function<int[], String> decoder, int[] prompt) {
        this.stops = stops;
        this.decoder = decoder;
        this.longest = stops.stream().mapToInt(String::length).max().orElse(0);
        this.window = Arrays.copyOfRange(prompt, Math.max(0, prompt.length - CONTEXT), prompt.length);
        this.known = window.length;
    }

    /// Adds the next sampled token; true when the text of the sampled tokens now contains a stop string.
    boolean append(int token) {
        if (stops.isEmpty()) return false;
        window = Arrays.copyOf(window, window.length + 1);
        window[window.length - 1] = token;
        String before = decoder.apply(Arrays.copyOf(window, known));
        String now = decoder.apply(window);
        String fresh = now.substring(common(before, now));
        if (contains(text + fresh)) return true;
        boolean whole = !fresh.isEmpty() && fresh.charAt(fresh.length() - 1) != BROKEN;
        boolean noText = window.length - known > 4 * CONTEXT;   // no character is that long
        if (whole || noText) {
            text = tail(text + fresh);
            window = Arrays.copyOfRange(window, Math.max(0, window.length - CONTEXT), window.length);
            known = window.length;
        }
        return false;
    }

    private boolean contains(String candidate) {
        for (String stop : stops) if (candidate.contains(stop)) return true;
        return false;
    }

    private String tail(String whole) {
        return whole.substring(Math.max(0, whole.length() - (longest - 1)));
    }

    private static int common(String a, String b) {
        int n = 0;
        while (n < a.length() && n < b.length() && a.charAt(n) == b.charAt(n)) n++;
        return n;
    }
}
