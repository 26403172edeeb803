package bios.worker.kernel;

/// The gated unit of Llama's feed-forward layer (Shazeer 2020): y = silu(gate)·up, silu(z) = z·σ(z),
/// σ(z) = 1/(1 + exp(-z)).
public final class SwiGlu {
    private SwiGlu() {}

    /// y[0..n) ← silu(gate)·up.
    public static void forward(float[] y, float[] gate, float[] up, int n) {
        for (int i = 0; i < n; i++) y[i] = gate[i] / (1 + Exp.exp(-gate[i])) * up[i];
    }

    /// dgate ← dy·up·σ·(1 + gate·(1 - σ)), dup ← dy·gate·σ. dgate may be gate and dup may be up.
    public static void backward(float[] dgate, float[] dup, float[] dy, float[] gate, float[] up, int n) {
        for (int i = 0; i < n; i++) {
            float z = gate[i];
            float u = up[i];
            float sigmoid = 1 / (1 + Exp.exp(-z));
            dgate[i] = dy[i] * u * sigmoid * (1 + z * (1 - sigmoid));
            dup[i] = dy[i] * z * sigmoid;
        }
    }
}
