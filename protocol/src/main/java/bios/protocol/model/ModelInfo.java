package bios.protocol.model;

/// The description of a base model that a worker serves.
///
/// @param name the name it is served under
/// @param reference where a loader outside Bios finds the weights: the folder that they were read from;
///     written into archives
/// @param architecture `architectures[0]` of config.json
/// @param contextLength the maximum number of tokens of one sequence
/// @param vocabularySize rows of the embedding; token ids are 0 (inclusive) to this (exclusive)
/// @param hiddenSize width of the residual stream
/// @param layers number of decoder layers
/// @param dtype element type of the weights in the files: `bfloat16`, `float16` or `float32`
/// @param parameters number of weights
public record ModelInfo(ModelName name, String reference, String architecture, int contextLength,
        int vocabularySize, int hiddenSize, int layers, String dtype, long parameters) {}
