package bios.worker.model;

import bios.worker.device.Device;
import bios.worker.device.Tensor;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;

/// The last norm and the output head. Rows go through it in chunks, so that the logits of a whole batch never
/// exist; chunks are cut within one lesson, so that no sum depends on who else is in the pass.
///
/// @param norm weights `[1, hidden]`
record Head(Tensor norm, Projection projection, float eps) {
    /// Logits of a chunk, and most and fewest rows of it: many rows share the reading of the head's weights.
    private static final int LOGITS = 1 << 25;
    private static final int MOST = 1024;
    private static final int FEWEST = 64;

    /// Logits `[rows, vocabulary]` of residual rows x.
    Tensor logits(Tensor x, List<Slot> slots, Device on, Device.Scope scope) {
        Tensor h = on.scratch(scope, x.rows(), x.columns());
        Tensor inverse = on.scratch(scope, x.rows(), 1);
        Tensor logits = on.scratch(scope, x.rows(), projection.w().out());
        on.rmsNorm(h, inverse, x, norm, eps);
        projection.forward(logits, h, Optional.empty(), projection.low(h, slots, on, scope), slots, on);
        return logits;
    }

    /// Tells the lesson its log-probabilities; where it trains, d (zeros) becomes the gradient for x.
    ///
    /// @param x the lesson's residual rows behind the last layer `[rows, hidden]`
    /// @param d of the same shape, empty for a lesson that is only evaluated
    void evaluate(Optional<Tensor> d, Tensor x, Lesson lesson, Device on) {
        int most = Math.clamp(LOGITS / projection.w().out(), FEWEST, MOST);
        int chunks = Math.ceilDiv(x.rows(), most);
        int size = Math.ceilDiv(x.rows(), chunks);
        for (int from = 0; from < x.rows(); from += size) {
            int at = from;
            int n = Math.min(size, x.rows() - from);
            chunk(d.map(whole -> whole.rows(at, n)), x.rows(at, n), at, lesson, on);
        }
    }

    private void chunk(Optional<Tensor> d, Tensor x, int from, Lesson lesson, Device on) {
        int n = x.rows();
        int[] targets = Arrays.copyOfRange(lesson.targets(), from, from + n);
        List<Slot> slots = lesson.adapter().map(a -> new Slot(0, n, a, lesson.gradient())).stream().toList();
        try (Device.Scope scope = on.scope()) {
            Tensor h = on.scratch(scope, n, x.columns());
            Tensor inverse = on.scratch(scope, n, 1);
            Tensor logits = on.scratch(scope, n, projection.w().out());
            Tensor logprobs = on.scratch(scope, n, 1);
            Tensor lse = on.scratch(scope, n, 1);
            on.rmsNorm(h, inverse, x, norm, eps);
            List<Optional<Tensor>> low = projection.low(h, slots, on, scope);
            projection.forward(logits, h, Optional.empty(), low, slots, on);
            on.logSoftmaxAt(logprobs, lse, logits, targets);
            float[] gradient = lesson.objective().gradient(from, on.read(logprobs));
            if (d.isEmpty() || allZero(gradient)) return;
            Tensor dlogprobs = on.scratch(scope, n, 1);
            on.write(dlogprobs, gradient);
            on.logSoftmaxBackward(logits, lse, targets, dlogprobs);
            Tensor dh = on.scratch(scope, n, x.columns());
            projection.backward(Optional.of(dh), false, logits, h, low, slots, on);
            on.rmsNormBackwardAdd(d.get(), dh, x, inverse, norm);
        }
    }

    /// Prompts have no weight; half of a typical batch need not pay for the product with the vocabulary.
    private static boolean allZero(float[] values) {
        for (float v : values) if (v != 0) return false;
        return true;
    }
}
