package bios.worker.model;

import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.LossTerms;
import bios.worker.device.Slots;
import bios.worker.device.Tensor;
import java.util.Optional;

/// The last norm and the output head. Rows go through it in chunks, so that the logits of a whole batch
/// never exist; chunks are cut within one run's rows, so that no sum depends on the other runs in the pass.
/// Logits and log-probabilities are fp32 for both types of activations.
///
/// @param norm weights `[1, hidden]`
/// @param activations type of the rows between norm and head
record Head(Tensor norm, Projection projection, float eps, DType activations) {
    /// Logits of a chunk, and most and fewest rows of it: many rows share the reading of the head's weights.
    private static final int LOGITS = 1 << 25;
    private static final int MOST = 1024;
    private static final int FEWEST = 64;

    /// Logits `[rows, vocabulary]` of residual rows x.
    ///
    /// @param slots of the rows of x
    Tensor logits(Tensor x, Slots slots, Device device, Device.Scope scope) {
        Tensor h = device.scratch(scope, activations, x.rows(), x.columns());
        Tensor inverse = device.scratch(scope, x.rows(), 1);
        Tensor logits = device.scratch(scope, x.rows(), projection.w().out());
        device.rmsNorm(h, inverse, x, norm, eps);
        projection.forward(logits, h, Optional.empty(), projection.low(h, slots, device, scope), slots,
                device);
        return logits;
    }

    /// One run's rows of a pass at the head, with K targets for each.
    ///
    /// @param batch that the rows belong to
    /// @param firstTarget number of the first row's first target in the batch
    /// @param slots of these rows
    /// @param x residual rows after the last layer `[rows, hidden]`
    /// @param targets `[rows, K]`
    /// @param logprobs of the targets, to be computed, `[rows, K]`
    /// @param loss present where the batch has one
    /// @param d of x's shape, zeros that become the gradient for x; present where the batch has a loss
    record Rows(RunBatch batch, int firstTarget, Slots slots, Tensor x, Tensor targets, Tensor logprobs,
            Optional<LossTerms> loss, Optional<Tensor> d) {
        private Rows part(int from, int count) {
            return new Rows(batch, firstTarget + from * targets.columns(), slots.rows(from, count),
                    x.rows(from, count), targets.rows(from, count), logprobs.rows(from, count),
                    loss.map(l -> l.rows(from, count)), d.map(whole -> whole.rows(from, count)));
        }

        /// Whether backward has something to compute.
        private boolean backward() {
            return batch.loss().filter(l ->
                    !l.zeroGradient(firstTarget, x.rows() * targets.columns())).isPresent();
        }
    }

    /// Computes the log-probabilities of one run's rows and, where it has a loss, the gradient for x.
    void forwardBackward(Rows rows, Device device) {
        int count = rows.x.rows();
        int most = Math.clamp(LOGITS / projection.w().out(), FEWEST, MOST);
        int chunks = Math.ceilDiv(count, most);
        int size = Math.ceilDiv(count, chunks);
        for (int from = 0; from < count; from += size) {
            Rows part = rows.part(from, Math.min(size, count - from));
            chunk(part, part.backward(), device);
        }
    }

    private void chunk(Rows rows, boolean backward, Device device) {
        Tensor x = rows.x;
        Slots slots = rows.slots;
        int n = x.rows();
        try (Device.Scope scope = device.scope()) {
            Tensor h = device.scratch(scope, activations, n, x.columns());
            Tensor inverse = device.scratch(scope, n, 1);
            Tensor logits = device.scratch(scope, n, projection.w().out());
            Tensor lse = device.scratch(scope, n, 1);
            device.rmsNorm(h, inverse, x, norm, eps);
            Optional<Tensor> low = projection.low(h, slots, device, scope);
            projection.forward(logits, h, Optional.empty(), low, slots, device);
            device.logSoftmaxAt(rows.logprobs, lse, logits, rows.targets);
            if (!backward) return;
            Tensor dlogprobs = device.scratch(scope, n, rows.targets.columns());
            device.lossGradient(dlogprobs, rows.logprobs, rows.loss.orElseThrow());
            device.logSoftmaxBackward(logits, lse, rows.targets, dlogprobs);
            Tensor dh = device.scratch(scope, activations, n, x.columns());
            projection.backward(Optional.of(dh), false, logits, h, low, slots, device);
            device.rmsNormBackwardAdd(rows.d.orElseThrow(), dh, x, inverse, norm);
        }
    }
}
