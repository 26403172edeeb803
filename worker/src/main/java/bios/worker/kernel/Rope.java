package bios.worker.kernel;

/// Rotary position embedding (Su et al. 2021) in the "half" layout of Hugging Face's Llama: the pair (i, i +
/// half) of a head is rotated by an angle, given by its cosine and sine.
public final class Rope {
    private Rope() {}

    /// y[at + i], y[at + half + i] ← the pair of x rotated by the angle of (cos[i], sin[i]), for i < half; y
    /// is not x.
    public static void forward(float[] y, float[] x, int at, int half, float[] cos, float[] sin) {
        int to = at + half;
        for (int i = 0; i < half; i++) y[at + i] = x[at + i] * cos[i] - x[to + i] * sin[i];
        for (int i = 0; i < half; i++) y[to + i] = x[to + i] * cos[i] + x[at + i] * sin[i];
    }

    /// The transposed rotation: the gradient of [#forward].
    public static void backward(float[] dx, float[] dy, int at, int half, float[] cos, float[] sin) {
        int to = at + half;
        for (int i = 0; i < half; i++) dx[at + i] = dy[at + i] * cos[i] + dy[to + i] * sin[i];
        for (int i = 0; i < half; i++) dx[to + i] = dy[to + i] * cos[i] - dy[at + i] * sin[i];
    }
}
