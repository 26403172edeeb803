package bios.worker.device;

/// The tolerated error of results of fp32 arithmetic, derived here for all tests.
///
/// **A sum of k terms.** Each of its k roundings is off by at most u = 2⁻²⁴ of the partial sum s_i, evenly
/// spread, so by u·|s_i|/√3 in the mean square. Test data have independent signs: s_i grows as σ·√i, where σ
/// is the root mean square of a term. The error's root mean square is then u·σ·√(Σi)/√3 = u·σ·k/√6 for a sum
/// taken term by term; lanes, blocks, pairs and fused multiply-adds only make it smaller. [#sum] allows
/// 4·u·σ·k, which is ten times that: the chance of an error beyond it is below 1e-20 per element, and a term
/// that is lost, doubled or rounded to bf16 (an error of up to 2⁻⁹ of a term, 2⁻⁷·σ) exceeds it for every k
/// of the tests. A sum in double precision has the error of its last rounding alone.
///
/// **A sum of k terms of one sign** has partial sums i·μ: a root mean square of u·√k/3 of the result.
/// [#sameSign] allows ten times that, relative to the result.
///
/// **Roundings of a result.** Each operation behind a sum adds a rounding: [#ROUNDING] of the value.
///
/// **bf16.** Weights of a file are compared as the file holds them, and activations as the path multiplies
/// them ([Activations#operand]): then products are exact in fp32 and nothing has to be allowed for bf16.
/// Compared with the original activation, a split one is off by 2⁻¹⁷, a rounded one by 2⁻⁹ ([#SPLIT],
/// [#ROUNDED]).
///
/// **exp.** The engine's exp is right to one unit in the last place: 2·u.
///
/// @param doubles whether the path sums in double precision, as the definitions in plain Java do
public record Tolerance(boolean doubles) {
    /// Half a unit in the last place of 1: one rounding to fp32.
    public static final double ROUNDING = 0x1p-24;
    /// Relative error of an activation split in two bf16 numbers.
    public static final double SPLIT = 0x1p-17;
    /// Relative error of a number rounded to bf16: half a unit in the last of its 8 bits.
    public static final double ROUNDED = 0x1p-9;
    /// Root mean square of an even distribution between -1 and 1.
    public static final double EVEN = 1 / Math.sqrt(3);

    private static final double FACTOR = 4;

    /// The tolerance of a path of the CPU backend.
    public static Tolerance of(String path) {
        return new Tolerance(path.equals("plain"));
    }

    /// The error of a sum of `terms` products of independent signs.
    ///
    /// @param left root mean square of one factor
    /// @param right of the other
    public double sum(int terms, double left, double right) {
        return FACTOR * ROUNDING * left * right * (doubles ? Math.sqrt(terms) : terms);
    }

    /// The same for factors evenly distributed between -1 and 1.
    public double sum(int terms) {
        return sum(terms, EVEN, EVEN);
    }

    /// The relative error of a sum of `terms` terms of one sign.
    public double sameSign(int terms) {
        return ROUNDING * (doubles ? 1 : 1 + 10 * Math.sqrt(terms) / 3);
    }

    /// The error of attention's output and of its log Σ exp: scores of `headDim` products times `scale` move
    /// each weight by their error and by that of exp, and the output is a mean of values below 1 with these
    /// weights over at most `keys` keys.
    public double attention(int headDim, double scale, int keys) {
        return 2 * scale * sum(headDim) + 8 * ROUNDING + sum(keys, EVEN / keys, 1) + sameSign(keys);
    }

    /// The error of the gradients of attention: a score's gradient p·(dp - δ) is off by the errors of two
    /// sums over the head and of p; dq is a mean of keys with such weights, dk and dv add those of up to
    /// `queries` queries, whose weights on one key add up to at most 1 + ln(queries) for each head that
    /// shares it.
    public double attentionGradient(int headDim, double scale, int queries, int heads) {
        double weights = heads * (1 + Math.log(queries));
        double score = 2 * sum(headDim) + 16 * ROUNDING * headDim + attention(headDim, scale,
                queries) * headDim;
        return weights * score + sum(queries * heads);
    }

    /// Fails unless each |actual - expected| is at most `absolute` + `relative`·|expected|.
    public static void assertClose(double[] expected, float[] actual, double absolute, double relative,
            String what) {
        if (expected.length != actual.length)
            throw new AssertionError("%s: %d values, not %d".formatted(what, actual.length, expected.length));
        for (int i = 0; i < expected.length; i++) {
            double allowed = absolute + relative * Math.abs(expected[i]);
            // negated, so that NaN fails; infinities are equal or not
            if (expected[i] != actual[i] && !(Math.abs(expected[i] - actual[i]) <= allowed))
                throw new AssertionError("%s[%d]: %s, not %s within %.3g".formatted(what, i, actual[i],
                        expected[i], allowed));
        }
    }
}
