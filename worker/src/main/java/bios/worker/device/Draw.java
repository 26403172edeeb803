package bios.worker.device;

/// One token to be drawn from a row of logits: divided by the temperature, then the `topK` largest, then the
/// smallest set of the most likely of these with probability of at least `topP` among them (Holtzman et al.
/// 2020). The random number is a function of (seed, sample, token) alone ([bios.worker.kernel.Sampling]).
///
/// @param row of the logits
/// @param temperature 0: the largest logit, whatever the rest says
/// @param topK -1 for all
/// @param topP above 0, at most 1
/// @param seed of the request
/// @param sample number of the sequence in the request
/// @param token number of the token in the sequence
public record Draw(int row, double temperature, int topK, double topP, long seed, int sample, int token) {}
