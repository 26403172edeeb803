package bios.coordinator.gateway;

/// A prompt as tokens.
///
/// @param at the field that it comes from, for messages
/// @param text what an answer that repeats it begins with; empty if none does
/// @param ends where the part of each token ends in the text, as in
///     [bios.protocol.engine.EngineCommand.EngineReply.Aligned]; empty if its log-probabilities are not
///     asked for
record EncodedPrompt(FieldPath at, int[] tokens, String text, int[] ends) {
    /// A prompt whose log-probabilities are not asked for.
    EncodedPrompt(FieldPath at, int[] tokens, String text) {
        this(at, tokens, text, new int[0]);
    }

    /// The part of a token in the text.
    String part(int token) {
        return text.substring(token == 0 ? 0 : ends[token - 1], ends[token]);
    }
}
