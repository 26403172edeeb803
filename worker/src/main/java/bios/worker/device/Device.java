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

    // ---- the seam for a discrete device: replaces the verbs of the same purpose above ----

    /// Positions of one page of keys and values, and of one block of attention.
    int BLOCK = 64;

    /// A matrix of zeros of an element type, owned by the device until [#free].
    Tensor tensor(DType dtype, int rows, int columns);

    /// A matrix of an element type that lives until `scope` is closed; contents undefined.
    Tensor scratch(Scope scope, DType dtype, int rows, int columns);

    /// Brings arrays of the host to the device in one transfer; the tensors live as long as `scope`. The arrays
    /// may be changed when this returns.
    List<Tensor> upload(Scope scope, List<? extends HostArray> arrays);

    /// Begins to copy tensors to the host, behind the verbs before; does not wait.
    Readback readback(List<Tensor> tensors);

    /// Copies a tensor to the host, row-major, to `to[at]` and after; waits. Any thread, for a tensor that no
    /// verb uses meanwhile.
    void read(Tensor from, float[] to, int at);

    /// to ← from[at] and after, row-major; verbs called later see it. Any thread, for a tensor that no verb
    /// uses meanwhile.
    void write(Tensor to, float[] from, int at);

    /// Copies tensors as the verbs before leave them. [OutOfDeviceMemory] with nothing taken when there is no
    /// room. Does not wait.
    Snapshot snapshot(List<Tensor> tensors);

    /// Prepares a frozen matrix for [#embed]. `matrix` must stay mapped while the table lives.
    Table table(FrozenMatrix matrix);

    /// The adapters of a pass.
    Slots slots(Scope scope, List<Slot> slots);

    /// The sequences of a pass.
    Sequences sequences(Scope scope, List<Sequence> sequences);

    /// The draws of a pass.
    Draws draws(Scope scope, List<Draw> draws);

    /// An empty pool of at most `limit` pages.
    PagePool pagePool(PagePool.Shape shape, int limit);

    /// lows[i] ← s·x·A of every slot at sites[i], in one pass over x. lows[i] is `[T, slots.rank(sites[i])]`; a
    /// slot of a smaller rank r fills the first r columns of its rows, rows without adapter stay undefined.
    void lowRank(List<Tensor> lows, Tensor x, Slots slots, List<Integer> sites);

    /// y ← onto + bias + x·Wᵀ, and + low·B on the rows of each slot: a projection with its adapters and what
    /// follows, in one pass over y.
    ///
    /// @param bias `[1, out]`, may be absent
    /// @param onto of y's shape, not y; may be absent
    /// @param low what [#lowRank] gave for x at `site`; empty where no slot corrects it
    void project(Tensor y, Tensor x, Weight w, Optional<Tensor> bias, Optional<Tensor> onto, Slots slots,
            int site,
            Optional<Tensor> low);

    /// The gradients of [#project]: with dlow = s·dy·Bᵀ of each slot, dB += lowᵀ·dy, dA += xᵀ·dlow in the slot's
    /// gradient, and dx ← (or +=) dy·W + dlow·Aᵀ. Sums over rows are one slot's own, in the order of its rows.
    ///
    /// @param dx empty: only the adapters' gradients are wanted
    /// @param add whether dx is added to
    void projectBack(Optional<Tensor> dx, boolean add, Tensor dy, Tensor x, Weight w, Slots slots, int site,
            Optional<Tensor> low);

    /// y[i] ← table[ids[i]], in y's element type; ids `[n, 1]` of [DType#I32].
    void embed(Tensor y, Tensor ids, Table table);

    /// y[i] ← x[rows[i]]; rows `[n, 1]` of [DType#I32].
    void gather(Tensor y, Tensor x, Tensor rows);

    /// Rotates each head of x in place, see the older [#rope]; positions `[T, 1]` of [DType#I32].
    void rope(Tensor x, Tensor positions, int headDim, Tensor cos, Tensor sin);

    /// dx in place ← the gradient of [#rope] (the transposed rotation).
    void ropeBackward(Tensor dx, Tensor positions, int headDim, Tensor cos, Tensor sin);

    /// Writes the keys (rotated) and values of the rows of a pass to their pages, for the whole batch.
    void append(PagePool pool, int layer, Tensor keys, Tensor values, Sequences sequences);

    /// Page `to` ← page `from`, all layers.
    void copyPage(PagePool pool, int to, int from);

    /// Causal attention with a blocked, streaming softmax (Dao et al. 2022): out `[T, heads·headDim]`, lse
    /// `[T, heads]` ← log Σ exp of the scaled scores, q `[T, heads·headDim]`. Blocks of [#BLOCK] keys are walked in
    /// order from position 0 wherever they lie, so a query gives the same bits in training, prefill and decoding.
    void attention(Tensor out, Tensor lse, Tensor q, KeyValues source, Sequences sequences,
            AttentionShape shape);

    /// Gradients of [#attention] for whole packed sequences. dq, dk, dv ← (overwritten).
    void attentionBackward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q,
            KeyValues.Packed source, Sequences sequences, AttentionShape shape);

    /// logprobs[t] ← logits[t, targets[t]] - lse[t], lse[t] ← log Σ exp(logits[t]); both `[T, 1]`, targets `[T, 1]`
    /// of [DType#I32].
    void logSoftmaxAt(Tensor logprobs, Tensor lse, Tensor logits, Tensor targets);

    /// logits in place ← dlogprobs[t] · (onehot(targets[t]) - exp(logits[t] - lse[t])): the gradient of
    /// [#logSoftmaxAt]; dlogprobs `[T, 1]`.
    void logSoftmaxBackward(Tensor logits, Tensor lse, Tensor targets, Tensor dlogprobs);

    /// dlogprobs[t] ← dLoss/dlogprob[t], both `[T, 1]`; formulas in [bios.worker.kernel.Losses]. The loss itself
    /// is summed by the host from log-probabilities that are read once at the end of a pass.
    void lossGradient(Tensor dlogprobs, Tensor logprobs, LossTerms terms);

    /// tokens[i], logprobs[i] ← the i-th draw and its log-probability under the logits divided by the draw's
    /// temperature (as they are at temperature 0), before top-k and top-p; tokens `[n, 1]` of [DType#I32],
    /// logprobs `[n, 1]`. May overwrite logits.
    void sample(Tensor tokens, Tensor logprobs, Tensor logits, Draws draws);

    /// ids[t], logprobs[t] ← the k most likely tokens of row t, best first, of equal ones the lower id first; ids
    /// `[T, k]` of [DType#I32], logprobs `[T, k]`, lse from [#logSoftmaxAt].
    void top(Tensor ids, Tensor logprobs, Tensor logits, Tensor lse);

    /// y[i] += x[i], pairs of one shape.
    void add(List<Tensor> y, List<Tensor> x);

    /// sum ← Σ x² over all elements of all tensors, in a fixed order, in double precision; sum `[1, 1]` of
    /// [DType#F64].
    void sumOfSquares(Tensor sum, List<Tensor> x);

    /// One AdamW step (Loshchilov & Hutter 2019) on all tensors of an adapter, in lists of one shape, as
    /// torch.optim.AdamW computes it; the gradient is first multiplied by min(1, gradClipNorm / (√sumOfSquares +
    /// 1e-6)) if gradClipNorm > 0, as torch.nn.utils.clip_grad_norm_ does.
    void adamW(List<Tensor> w, List<Tensor> m, List<Tensor> v, List<Tensor> g, Tensor sumOfSquares,
            ClippedStep step);

    /// The scalars of a step.
    ///
    /// @param step number of this step, from 1
    /// @param gradClipNorm largest norm of the gradient; 0: not clipped
    record ClippedStep(double learningRate, double beta1, double beta2, double eps, double weightDecay,
            long step,
            double gradClipNorm) {}

    @Override void close();
}
