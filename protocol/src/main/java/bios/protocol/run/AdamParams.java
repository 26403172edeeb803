package bios.protocol.run;

import bios.protocol.Invalid;

/// Settings of one AdamW step (Loshchilov & Hutter 2019): decoupled decay, gradient = sum since the last
/// step. Steps are computed in fp32: requests whose numbers are not finite in it are refused where they are
/// read; journals of earlier builds may have such steps.
///
/// @param gradClipNorm largest global gradient norm; 0 means no clipping
public record AdamParams(double learningRate, double beta1, double beta2, double eps, double weightDecay,
        double gradClipNorm) {
    /// The initial settings of a run.
    public static final AdamParams DEFAULT = new AdamParams(1e-4, 0.9, 0.95, 1e-12, 0, 0);

    public AdamParams {
        check("learning_rate", learningRate, 0, Double.MAX_VALUE);
        check("beta1", beta1, 0, Math.nextDown(1.0));
        check("beta2", beta2, 0, Math.nextDown(1.0));
        check("eps", eps, 0, Double.MAX_VALUE);
        check("weight_decay", weightDecay, 0, Double.MAX_VALUE);
        check("grad_clip_norm", gradClipNorm, 0, Double.MAX_VALUE);
    }

    private static void check(String field, double value, double low, double high) {
        if (!(value >= low && value <= high))
            throw new Invalid("adam_params." + field, value + " is out of range; expected "
                    + (high < 1 ? "0 (inclusive) to 1 (exclusive)" : "a finite number of at least 0"));
    }
}
