package bios.coordinator.gateway;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

/// The texts of single tokens, by which an answer names tokens that are not in its text: the most likely ones
/// of a position, and special ones. A token is asked for once.
final class TokenNames {
    private static final String BROKEN = "\uFFFD";

    private final Map<Integer, String> texts = new HashMap<>();

    /// Those of the tokens that have no name yet, each once.
    int[] missing(IntStream tokens) {
        return tokens.filter(token -> !texts.containsKey(token)).distinct().toArray();
    }

    /// @param given the text of each of the tokens for itself
    void add(int[] tokens, List<String> given) {
        for (int i = 0; i < tokens.length; i++) texts.put(tokens[i], given.get(i));
    }

    int size() {
        return texts.size();
    }

    /// Whether the token is whole characters.
    boolean isText(int token) {
        String text = texts.getOrDefault(token, "");
        return !text.isEmpty() && !text.contains(BROKEN);
    }

    /// The token's text, if it is whole characters, else its number.
    String of(int token) {
        return isText(token) ? texts.get(token) : number(token);
    }

    /// The name of a token whose text is no name.
    static String number(int token) {
        return "token_id:" + token;
    }
}
