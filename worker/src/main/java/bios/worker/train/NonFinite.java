package bios.worker.train;

import bios.protocol.Fault;
import bios.worker.kernel.AdamW;
import java.util.Locale;

/// What an operation does whose numbers are not finite. In both cases no weight and no moment becomes
/// infinite or NaN.
public enum NonFinite {
    /// The operation succeeds and counts them in its metrics. The next optimizer step is skipped.
    SKIP,
    /// The operation fails and changes nothing.
    FAIL;

    /// The policy that a setting names; throws [IllegalArgumentException] if there is none.
    public static NonFinite of(String setting) {
        return valueOf(setting.toUpperCase(Locale.ROOT));
    }

    /// The failure of an operation.
    static Refused refused(String what) {
        return new Refused(Fault.user("non_finite", what));
    }

    /// The number itself, or the largest finite one of its sign if it is infinite, the largest for NaN:
    /// results are read as JSON, which has neither.
    static double reported(double value) {
        if (Double.isFinite(value)) return value;
        return value == Double.NEGATIVE_INFINITY ? -Double.MAX_VALUE : Double.MAX_VALUE;
    }

    /// A log-probability, or the lowest finite number if it is infinite or NaN.
    static float reported(float logprob) {
        return Float.isFinite(logprob) ? logprob : -Float.MAX_VALUE;
    }

    /// The part of an optimizer step that is not finite: the first of its causes.
    enum Part {
        GRADIENT("the gradient sum is not finite: the loss, a log-probability or the gradient of an operation"
                + " before it overflowed"),
        MOMENTS("Adam's moments would overflow: the gradient is too large; set grad_clip_norm or scale the"
                + " loss down"),
        WEIGHTS("the weights would overflow or be undefined: lower learning_rate and weight_decay, and keep"
                + " eps above 0");

        private final String why;

        Part(String why) {
            this.why = why;
        }

        /// @param bits of [AdamW], not 0
        static Part of(int bits) {
            if ((bits & AdamW.GRADIENT) != 0) return GRADIENT;
            return (bits & AdamW.MOMENTS) != 0 ? MOMENTS : WEIGHTS;
        }

        String why() {
            return why;
        }

        /// The metric that counts a skipped step of this cause.
        String metric() {
            return "skipped_" + name().toLowerCase(Locale.ROOT) + ":sum";
        }
    }
}
