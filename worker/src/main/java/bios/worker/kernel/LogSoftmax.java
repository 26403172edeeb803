package bios.worker.kernel;

/// The logarithm of the softmax of a row: logprob[i] = logit[i] - lse, lse = max + log Σ exp(logit - max).
public final class LogSoftmax {
    private LogSoftmax() {}

    /// log Σ exp(logits[0..n)). `room` is room for n values.
    public static float logSumExp(float[] logits, int n, float[] room) {
        float max = Sums.max(logits, n);
        Exp.exp(room, logits, n, 1, max);
        return (float) (max + Math.log(Sums.sum(room, n)));
    }

    /// logits in place ← d·(onehot(target) - exp(logits - lse)): the gradient of logprob[target] times d.
    public static void backward(float[] logits, int n, float lse, int target, float d) {
        Exp.exp(logits, logits, n, 1, lse);
        for (int i = 0; i < n; i++) logits[i] *= -d;
        logits[target] += d;
    }
}
