package bios.worker.kernel;

/// The logarithm of the softmax of a row: logprob[i] = logit[i] - lse, lse = max + log Σ exp(logit - max).
public final class LogSoftmax {
    private LogSoftmax() {}

    /// log Σ exp(logits[0..n)). `scratch` has at least n elements; its contents are overwritten.
    public static float logSumExp(float[] logits, int n, float[] scratch) {
        float max = Sums.max(logits, n);
        Exp.exp(scratch, logits, n, 1, max);
        return (float) (max + Math.log(Sums.sum(scratch, n)));
    }

    /// logits in place ← d·(onehot(target) - exp(logits - lse)): the gradient of logprob[target] times d.
    public static void backward(float[] logits, int n, float lse, int target, float d) {
        Exp.exp(logits, logits, n, 1, lse);
        for (int i = 0; i < n; i++) logits[i] *= -d;
        logits[target] += d;
    }
}
