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

    /// logits in place ← Σ d[k]·(onehot(targets[k]) - exp(logits - lse)): the gradient of Σ d[k]·logprob[k]
    /// over the row's targets, which may repeat. Terms of a logit are added in the order of the targets.
    public static void backward(float[] logits, int n, float lse, int[] targets, float[] d) {
        float all = sum(d);
        Exp.exp(logits, logits, n, 1, lse);
        for (int i = 0; i < n; i++) logits[i] *= -all;
        for (int k = 0; k < d.length; k++) logits[targets[k]] += d[k];
    }

    /// Σ d in their order, in double precision.
    public static float sum(float[] d) {
        double sum = d[0];
        for (int k = 1; k < d.length; k++) sum += d[k];
        return (float) sum;
    }
}
