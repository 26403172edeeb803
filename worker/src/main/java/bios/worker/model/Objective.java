package bios.worker.model;

/// What a lesson wants: told the log-probabilities of its targets, chunk by chunk and in order, it
/// answers with the gradient of its loss for each. A loss is a sum over positions, so no answer
/// depends on another chunk.
@FunctionalInterface
public interface Objective {
    /// @param from index, among the lesson's positions, of the first log-probability
    /// @param logprobs of `targets[from]` and those after it
    /// @return dLoss/dlogprob of each; not looked at when the lesson is only evaluated
    float[] gradient(int from, float[] logprobs);
}
