package bios.worker.kernel;

/// Rotary position embedding (Su et al. 2021) in the "half" layout of Hugging Face's Llama: the pair (i, i + half) of
/// a head turns by an angle whose cosine and sine are given.
public final class Rope {
    private Rope() {}

    /// x[at + i], x[at + half + i] ← the pair turned by the angle of (cos[i], sin[i]), for i < half.
    public static void forward(float[] x, int at, int half, float[] cos, float[] sin) {
        for (int i = 0; i < half; i++) {
            float a = x[at + i];
            float b = x[at + half + i];
            x[at + i] = a * cos[i] - b * sin[i];
            x[at + half + i] = b * cos[i] + a * sin[i];
        }
    }

    /// The transposed rotation: the gradient of [#forward].
    public static void backward(float[] dx, int at, int half, float[] cos, float[] sin) {
        for (int i = 0; i < half; i++) {
            float a = dx[at + i];
            float b = dx[at + half + i];
            dx[at + i] = a * cos[i] + b * sin[i];
            dx[at + half + i] = b * cos[i] - a * sin[i];
        }
    }
}
