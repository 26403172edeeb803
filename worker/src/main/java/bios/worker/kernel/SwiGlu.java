package bios.worker.kernel;

/// The gated unit of Llama's feed-forward layer (Shazeer 2020): y = silu(gate)·up, silu(z) = z·σ(z),
/// σ(z) = 1/(1 + exp(-z)).
public final class SwiGlu {
    private SwiGlu() {}

    /// y[0..n) ← silu(gate)·up. y must be neither gate nor up.
    public static void forward(float[] y, float[] gate, float[] up, int n) {
        Exp.exp(y, gate, n, -1, 0);
        for (int i = 0; i < n; i++) y[i] = gate[i] / (1 + y[i]) * up[i];
    }

    /// dgate ← dy·up·σ·(1 + gate·(1 - σ)), dup ← dy·gate·σ. All five are different arrays.
    public static void backward(float[] dgate, float[] dup, float[] dy, float[] gate, float[] up, int n) {
        Exp.exp(dup, gate, n, -1, 0);
        for (int i = 0; i < n; i++) dup[i] = 1 / (1 + dup[i]);
        for (int i = 0; i < n; i++) dgate[i] = dy[i] * up[i] * dup[i] * (1 + gate[i] * (1 - dup[i]));
        for (int i = 0; i < n; i++) dup[i] = dy[i] * gate[i] * dup[i];
    }
}
