package bios.worker.device;

/// The sampling parameters of one token. Logits are divided by the temperature, then restricted to the `topK`
/// largest, then to the smallest set of the most likely of these with a total probability of at least `topP`
/// among them (Holtzman et al. 2020). The random number is a function of (seed, sample, token) alone
/// ([bios.worker.kernel.Sampling]).
///
/// @param row row of the logits
/// @param temperature 0: the largest logit; topK, topP and the random number are ignored
/// @param topK -1 for all
/// @param topP above 0, at most 1
/// @param seed seed of the request
/// @param sample index of the sequence in the request
/// @param token index of the token in the sequence
public record Draw(int row, double temperature, int topK, double topP, long seed, int sample, int token) {}
