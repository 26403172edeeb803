package bios.worker.device;

import java.util.List;
import java.util.Optional;

/// The engine's instruction set: all that touches hardware. Matrices are fp32 `[tokens, features]`; base
/// weights stay in the dtype of their files.
/// The law of accumulation: **`…Add` accumulates into its first argument, all else overwrites it.** The
/// result comes first. A verb may be asynchronous; [#read] and [#close] wait.
/// Determinism: every sum has an order fixed by the shapes of its own operands, so a row of a product, of a
/// norm or of attention has the same bits whatever other rows share the call, and whatever the number of
/// cores. (A product with one row is computed as one of two, because libraries take another kernel for one.)
/// Verbs are called by one thread at a time; a device spreads work over its own threads.
public interface Device extends AutoCloseable {

    /// What it is, in words: kind, instruction set, threads.
    String description();

    // ---- memory ----

    /// Whether its memory is not the host's: what leaves it may still be kept in the host's.
    default boolean ownMemory() {
        return true;
    }

    /// Most bytes that it hands out; [OutOfDeviceMemory] beyond them.
    default long memoryLimit() {
        return Long.MAX_VALUE;
    }

    /// Bytes that it has handed out, weights and scratch that waits for its next use included.
    default long memoryInUse() {
        return 0;
    }

    /// Gives memory that nobody uses back to the system.
    default void trim() {}

    /// A matrix of zeros, owned by the device until [#close]. [OutOfDeviceMemory] when there is no room.
    Tensor tensor(int rows, int columns);

    /// A matrix that lives until `scope` is closed; contents undefined.
    Tensor scratch(Scope scope, int rows, int columns);

    /// Opens a scope of scratch memory, reused after its end: a step allocates nothing new once it has run.
    Scope scope();

    /// Frees a tensor made by [#tensor].
    void free(Tensor tensor);

    /// Prepares a frozen matrix for products. `matrix` must stay mapped while the weight lives.
    Weight weight(FrozenMatrix matrix);

    /// to ← from, row-major, rows·columns values.
    void write(Tensor to, float[] from);

    /// Waits for all verbs and copies out, row-major.
    float[] read(Tensor from);

    /// to ← from, same shape.
    void copy(Tensor to, Tensor from);

    /// Row i of head h of `rows` `[n, heads·headDim]` becomes row h·[Span#BLOCK] + at + i of `block`
    /// `[heads·BLOCK, headDim]`.
    void copyByHead(Tensor block, int at, Tensor rows);

    /// Every element ← value.
    void fill(Tensor to, float value);

    // ---- products ----

    /// y ← x·Wᵀ, y `[T, out]`, x `[T, in]`.
    void multiply(Tensor y, Tensor x, Weight w);

    /// dx += dy·W, dx `[T, in]`, dy `[T, out]`: the transposed product of [#multiply].
    void multiplyTransposedAdd(Tensor dx, Tensor dy, Weight w);

    /// y ← onto + bias + x·Wᵀ, and + low·factor on the rows of each correction, in ascending order without
    /// overlap: a projection with its adapters and what follows, in one pass over y.
    ///
    /// @param bias `[1, out]`, may be absent
    /// @param onto of y's shape, not y; may be absent
    void project(Tensor y, Tensor x, Weight w, Optional<Tensor> bias, Optional<Tensor> onto,
            List<LowRank> corrections);

    /// dx ← dy·W, and + low·factorᵀ on the rows of each correction: the transposed product of [#project].
    ///
    /// @param add whether dx is added to
    void projectBack(Tensor dx, Tensor dy, Weight w, boolean add, List<LowRank> corrections);

    /// y ← s·x·aᵀ, y `[T, r]`, x `[T, in]`, a `[r, in]`.
    void multiplyByTransposed(Tensor y, Tensor x, Tensor a, float s);

    /// y += s·x·aᵀ.
    void multiplyByTransposedAdd(Tensor y, Tensor x, Tensor a, float s);

    /// y ← s·x·b, y `[T, n]`, x `[T, k]`, b `[k, n]`.
    void multiplyBy(Tensor y, Tensor x, Tensor b, float s);

    /// Each y ← s·x·b of each group, in one pass over its x.
    void multiplyByEach(List<Group> groups);

    /// Products of one left factor: ys[i] ← s·x·bs[i].
    record Group(List<Tensor> ys, Tensor x, List<Tensor> bs, float s) {}

    /// y += s·x·b.
    void multiplyByAdd(Tensor y, Tensor x, Tensor b, float s);

    /// g += s·yᵀ·x, g `[m, n]`, y `[T, m]`, x `[T, n]`: a weight gradient; the sum
    /// over T has one fixed order.
    void outerAdd(Tensor g, Tensor y, Tensor x, float s);

    // ---- layers ----

    /// y[i] ← table[ids[i]], converted to fp32.
    void embed(Tensor y, int[] ids, FrozenMatrix table);

    /// y += x, same shape.
    void add(Tensor y, Tensor x);

    /// y += bias in every row, bias `[1, columns]`.
    void addBias(Tensor y, Tensor bias);

    /// y ← x · inverse · weight, inverse[t] ← 1/√(mean(x[t]²) + eps); inverse `[T, 1]`, weight `[1, columns]`
    /// (Zhang & Sennrich 2019). Per-head norms see `[T·heads, headDim]` by [Tensor#rowsOf].
    void rmsNorm(Tensor y, Tensor inverse, Tensor x, Tensor weight, float eps);

    /// dx += the gradient of [#rmsNorm] for dy.
    void rmsNormBackwardAdd(Tensor dx, Tensor dy, Tensor x, Tensor inverse, Tensor weight);

    /// Rotates each head of x in place: pairs (i, i + headDim/2), "half" layout as in Hugging
    /// Face's Llama (Su et al. 2021). cos and sin `[maximal position, headDim/2]`, already
    /// multiplied by any attention factor.
    void rope(Tensor x, int[] positions, int headDim, Tensor cos, Tensor sin);

    /// dx in place ← the gradient of [#rope] (the transposed rotation).
    void ropeBackward(Tensor dx, int[] positions, int headDim, Tensor cos, Tensor sin);

    /// Causal attention with a blocked, streaming softmax (Dao et al. 2022): out `[T, heads·headDim]`,
    /// lse `[T, heads]` ← log Σ exp of the scaled scores, q `[T, heads·headDim]`. Spans cover the rows of q.
    void attention(Tensor out, Tensor lse, Tensor q, List<Span> spans, AttentionShape shape);

    /// Gradients of [#attention] for whole sequences (every span at position 0). dq, dk, dv ← (overwritten);
    /// dk and dv are packed as k and v: row i of a span's keys is row `span.row() + i`.
    void attentionBackward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q,
            List<Span> spans, AttentionShape shape);

    /// y ← silu(gate) · up, silu(z) = z / (1 + exp(-z)).
    void swiglu(Tensor y, Tensor gate, Tensor up);

    /// dgate, dup ← the gradients of [#swiglu] for dy. dgate may be gate's and dup up's own memory.
    void swigluBackward(Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up);

    // ---- loss ----

    /// logprobs[t] ← logits[t, targets[t]] - lse[t], lse[t] ← log Σ exp(logits[t]); both `[T, 1]`.
    void logSoftmaxAt(Tensor logprobs, Tensor lse, Tensor logits, int[] targets);

    /// logits in place ← dlogprobs[t] · (onehot(targets[t]) - exp(logits[t] - lse[t])): the gradient of
    /// [#logSoftmaxAt]; dlogprobs `[T, 1]`.
    void logSoftmaxBackward(Tensor logits, Tensor lse, int[] targets, Tensor dlogprobs);

    /// Columns of a block of [#softmaxBlocks].
    int WORDS = 1024;

    /// For each block of [#WORDS] columns of logits: its greatest, and Σ exp(logit - greatest); both
    /// `[T, blocks]`. What drawing a token needs to know before it looks at single logits.
    void softmaxBlocks(Tensor maxima, Tensor sums, Tensor logits);

    // ---- optimizer ----

    /// Σ x², summed in a fixed order, in double precision. Waits.
    double sumOfSquares(Tensor x);

    /// One AdamW step (Loshchilov & Hutter 2019) on w, m, v of one shape, with gradient gradScale·g: w ← w·(1
    /// - lr·decay); m ← β1·m + (1-β1)·g; v ← β2·v + (1-β2)·g²; w ← w - lr/(1-β1^step) · m / (√(v/(1-β2^step))
    /// + eps), as torch.optim.AdamW computes it.
    void adamW(Tensor w, Tensor m, Tensor v, Tensor g, float gradScale, AdamStep step);

    /// The scalars of a step.
    ///
    /// @param step number of this step, from 1
    record AdamStep(double learningRate, double beta1, double beta2, double eps, double weightDecay,
            long step) {}

    /// Memory that is given back as a whole.
    interface Scope extends AutoCloseable {
        @Override void close();
    }

    @Override void close();
}
