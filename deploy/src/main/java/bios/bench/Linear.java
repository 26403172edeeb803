package bios.bench;

/// A frozen matrix of a model, `[out, in]`.
record Linear(int in, int out) {
    /// in · out.
    long weights() {
        return (long) in * out;
    }
}
