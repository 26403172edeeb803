package bios.protocol.model;

import java.util.Optional;

/// The description of a base model that a worker serves.
///
/// @param name the name it is served under
/// @param architecture `architectures[0]` of config.json
/// @param contextLength the maximum number of tokens of one sequence
/// @param vocabularySize rows of the embedding; token ids are 0 (inclusive) to this (exclusive)
/// @param hiddenSize width of the residual stream
/// @param layers number of decoder layers
/// @param dtype element type of the weights in the files: `bfloat16`, `float16` or `float32`
/// @param parameters number of weights
/// @param fingerprint identifies configuration and weights by their content; two models of one name may
///     differ in it. Empty: not known
public record ModelInfo(ModelName name, String architecture, int contextLength,
        int vocabularySize, int hiddenSize, int layers, String dtype, long parameters,
        Optional<String> fingerprint) {
    /// A model without a fingerprint.
    public ModelInfo(ModelName name, String architecture, int contextLength,
            int vocabularySize, int hiddenSize, int layers, String dtype, long parameters) {
        this(name, architecture, contextLength, vocabularySize, hiddenSize, layers, dtype,
                parameters, Optional.empty());
    }
}
