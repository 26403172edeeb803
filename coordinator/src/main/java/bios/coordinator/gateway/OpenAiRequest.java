package bios.coordinator.gateway;

import bios.protocol.model.ModelInfo;
import bios.protocol.sampling.SamplingParams;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// A request for a completion or a chat completion, as OpenAI's clients send it, before its model is known.
///
/// @param model the name of a base model or the path of a checkpoint
/// @param input the prompts or the messages
/// @param choices sequences for each prompt
/// @param maxTokens the limit that was asked for, and the field that asked
/// @param params of each sequence, without the limit
/// @param stream whether the answer is a stream of events
/// @param includeUsage whether a stream ends with the numbers of tokens
/// @param logprobs whether the answer has the log-probability of each token
/// @param tops how many of the most likely tokens it has at the place of each token
record OpenAiRequest(String model, Input input, int choices, Optional<MaxTokens> maxTokens,
        SamplingParams params, boolean stream, boolean includeUsage, boolean logprobs, int tops) {
    /// What is continued.
    sealed interface Input {
        /// @param templateArguments further variables of the chat template
        record Chat(List<Map<String, Object>> messages, Map<String, Object> templateArguments)
                implements Input {}

        /// @param echo whether the text of an answer begins with its prompt
        record Prompts(List<Prompt> prompts, boolean echo) implements Input {}
    }

    /// One prompt.
    sealed interface Prompt {
        /// @param at the field that has it, for messages
        record Text(FieldPath at, String text) implements Prompt {}

        /// @param at the field that has it, for messages
        /// @param ids are checked when the model is known
        record Tokens(FieldPath at, List<Json> ids) implements Prompt {
            int[] of(ModelInfo model) {
                int[] tokens = new int[ids.size()];
                for (int i = 0; i < tokens.length; i++) {
                    if (!(ids.get(i) instanceof Json.Num number) || !number.integral()
                            || number.literal().length() > 11)
                        throw at.item(i).invalid("is not a token id; expected an integer");
                    long id = Long.parseLong(number.literal());
                    ModelInputReader.checkToken(at, i, id, model);
                    tokens[i] = (int) id;
                }
                return tokens;
            }
        }
    }

    /// @param field the field that has the limit, for messages
    record MaxTokens(FieldPath field, int limit) {}

    boolean chat() {
        return input instanceof Input.Chat;
    }

    /// Whether an answer begins with its prompt.
    boolean echo() {
        return input instanceof Input.Prompts(_, var echo) && echo;
    }

    /// Whether an answer has the log-probabilities of its prompt.
    boolean scoresPrompt() {
        return echo() && logprobs;
    }

    /// Whether an answer is its prompt alone. One token is drawn all the same, for all choices together; it
    /// is no part of any.
    boolean promptOnly() {
        return maxTokens.filter(max -> max.limit() == 0).isPresent();
    }

    /// The field that asks for the most likely tokens, for messages about it.
    FieldPath topsField() {
        return FieldPath.BODY.field(chat() ? "top_logprobs" : "logprobs");
    }

    /// The prompts or messages, for messages about them.
    FieldPath inputField() {
        return FieldPath.BODY.field(chat() ? "messages" : "prompt");
    }
}
