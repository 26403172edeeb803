package bios.worker.device;

import java.util.List;
import java.util.Optional;

/// The interface between the engine and the hardware: memory, and verbs (operations) on matrices `[tokens,
/// features]`. Activations are [DType#F32] or [DType#BF16]; base weights have the element type of their
/// files.
///
/// **Order.** One thread, the device thread, calls the verbs; a device executes them in the order of the
/// calls and distributes each over its own threads. A verb may return before it is executed. Results are the
/// first arguments. Closing a [Scope] and [#free] are ordered like verbs: memory is reused only after the
/// earlier verbs are executed.
///
/// **Blocking calls.** Verbs and [#upload] do not wait for results; [#readback] and [#snapshot] only start a
/// copy. Reading a value of a [Readback] or a block of a [Snapshot], [#read] and [#write] block until their
/// own data is copied. So a pass that must not block uploads its inputs once, calls its verbs, and starts one
/// readback.
///
/// **Threads.** Any thread may call [#tensor], [#free], [#read] and [#write] for tensors that no verb uses at
/// that time, use a [Readback] or a [Snapshot], and call [#memoryInUse]. Only the device thread may call the
/// other methods.
///
/// **Accumulation.** A verb whose name begins with `add` or ends in `Add` accumulates into its result;
/// [#projectBack] accumulates gradients of adapters, and its dx if `add` is set. All others overwrite.
///
/// **Determinism.** The order of every sum depends only on the shapes of its own operands, so a row of a
/// product, a norm or attention has the same bits for any other rows in the call and any number of threads.
/// Sums over rows (gradients of adapters) contain the rows of one slot only.
///
/// **Element types.** The result of a verb on [DType#BF16] operands is its result for the same numbers in
/// [DType#F32], or one closer to the exact result, rounded to nearest even. If all operands of [#attention]
/// or of its gradient are BF16, softmax weights and their gradients may be rounded to bf16 as well.
///
/// **Out of memory.** [OutOfDeviceMemory] is thrown by the call that allocates; then nothing is allocated,
/// and no result has changed except those that the verb overwrites.
///
/// **A lost device.** Any call may throw [DeviceLost]; no later call succeeds, and the worker process ends.
public interface Device extends AutoCloseable {
    /// Positions of one page of keys and values, and of one block of attention.
    int BLOCK = 64;

    /// A description for people: kind, instruction set, threads.
    String description();

    /// What the device's card does at the moment; empty for a device that is no card, or says nothing of it.
    /// Any thread.
    default Optional<CardState> card() {
        return Optional.empty();
    }

    /// The element type of activations that it computes with fastest, [DType#F32] or [DType#BF16]; both work.
    default DType activationType() {
        return DType.F32;
    }

    // ---- memory ----

    /// Whether its memory is separate from the host's; then evicted data may be kept in host memory.
    default boolean ownMemory() {
        return true;
    }

    /// The memory limit in bytes; allocations beyond it throw [OutOfDeviceMemory].
    default long memoryLimit() {
        return Long.MAX_VALUE;
    }

    /// Bytes allocated, including weights and idle scratch memory.
    default long memoryInUse() {
        return 0;
    }

    /// Returns unused memory to the system.
    default void trim() {}

    /// Also returns the memory that is kept for reuse only: called when nothing was executed for a while.
    default void releaseUnused() {
        trim();
    }

    /// A matrix of zeros of an element type, owned by the device until [#free].
    Tensor tensor(DType dtype, int rows, int columns);

    /// The same of [DType#F32].
    default Tensor tensor(int rows, int columns) {
        return tensor(DType.F32, rows, columns);
    }

    /// Frees a tensor made by [#tensor].
    void free(Tensor tensor);

    /// Opens a scope of scratch memory. Its memory is reused by later scopes: a repeated pass allocates
    /// nothing.
    Scope scope();

    /// Scratch memory that is freed together.
    interface Scope extends AutoCloseable {
        @Override void close();
    }

    /// A matrix of an element type that lives until `scope` is closed; contents undefined.
    Tensor scratch(Scope scope, DType dtype, int rows, int columns);

    /// The same of [DType#F32].
    default Tensor scratch(Scope scope, int rows, int columns) {
        return scratch(scope, DType.F32, rows, columns);
    }

    /// Prepares a frozen matrix for products. `matrix` must stay mapped as long as the weight is used.
    /// [NotFiniteWeight] if an element is infinite or NaN.
    Weight weight(FrozenMatrix matrix);

    /// Bytes that [#weight] allocates for a matrix.
    default long weightBytes(FrozenMatrix matrix) {
        return (long) matrix.rows() * matrix.columns() * matrix.dtype().bytes();
    }

    /// Prepares a frozen matrix for [#embed]. `matrix` must stay mapped as long as the table is used.
    /// [NotFiniteWeight] if an element is infinite or NaN.
    EmbeddingTable table(FrozenMatrix matrix);

    /// An empty pool of at most `limit` pages.
    PagePool pagePool(PagePool.Format format, int limit);

    // ---- transfers ----

    /// Copies arrays of the host to the device in one transfer; the tensors are valid until `scope` is
    /// closed. The arrays may be changed after this returns.
    List<Tensor> upload(Scope scope, List<? extends HostArray> arrays);

    /// Starts to copy tensors to the host, ordered after the earlier verbs; does not block.
    Readback readback(List<Tensor> tensors);

    /// Copies a tensor of [DType#F32] or [DType#BF16] to the host, row-major, to `to` from index `at`; blocks
    /// until it is copied.
    void read(Tensor from, float[] to, int at);

    /// to ← the elements of `from` from index `at`, row-major; visible to later verbs. Blocks until `from`
    /// may be changed.
    void write(Tensor to, float[] from, int at);

    /// Copies tensors with the results of the earlier verbs; does not block.
    Snapshot snapshot(List<Tensor> tensors);

    // ---- data of a pass ----

    /// The adapters of a pass.
    Slots slots(Scope scope, List<Slot> slots);

    /// The sequences of a pass, in the order of their rows, without gaps.
    Sequences sequences(Scope scope, List<Sequence> sequences);

    /// The draws of a pass.
    Draws draws(Scope scope, List<Draw> draws);

    /// Verbs of a pass that is repeated with other data: what they do depends on their operands' shapes and
    /// data only, and they call nothing else that the device executes.
    @FunctionalInterface
    interface Repeated {
        /// Calls the verbs.
        ///
        /// @param scope of all that they allocate
        /// @return the result, in the scope
        Tensor call(Scope scope, List<Tensor> inputs, Slots slots, Sequences sequences);
    }

    /// The result of verbs that are called again and again, as decoding does with all layers of a model: a
    /// device may record them and repeat the record, which computes the same bits.
    ///
    /// @param scope of the result
    /// @param what names the verbs and all their operands but the others
    /// @param inputs those with as many rows as the pass have one for each of its rows: a device may add rows
    ///     of zeros to the pass, whose results nobody sees
    /// @param pages of the sequences
    default Tensor repeat(Scope scope, Object what, List<Tensor> inputs, Slots slots, Sequences sequences,
            PagePool pages, Repeated verbs) {
        return verbs.call(scope, inputs, slots, sequences);
    }

    // ---- products ----

    /// lows[i] ← s·x·A of every slot at sites[i], in one pass over x. lows[i] is `[T, slots.rank(sites[i])]`;
    /// a slot of a smaller rank r fills the first r columns of its rows; rows without an adapter are
    /// undefined.
    void lowRank(List<Tensor> lows, Tensor x, Slots slots, List<Integer> sites);

    /// y ← onto + bias + x·Wᵀ, and + low·B on the rows of each slot: a projection with bias, residual and
    /// adapters, in one pass over y.
    ///
    /// @param bias `[1, out]`, may be empty
    /// @param onto the residual, of y's shape, not y itself; may be empty
    /// @param low the result of [#lowRank] for x at `site`; empty if no slot has an adapter there
    void project(Tensor y, Tensor x, Weight w, Optional<Tensor> bias, Optional<Tensor> onto, Slots slots,
            int site, Optional<Tensor> low);

    /// The gradients of [#project]: with dlow = s·dy·Bᵀ of each slot, dB += lowᵀ·dy, dA += xᵀ·dlow in the
    /// slot's gradient, and dx ← (or +=) dy·W + dlow·Aᵀ. Sums over rows contain one slot's rows, in their
    /// order. A BF16 dx may be rounded twice: what dy·W is added to, and the sum.
    ///
    /// @param dx empty if only the adapters' gradients are needed
    /// @param add whether dx is accumulated
    void projectBack(Optional<Tensor> dx, boolean add, Tensor dy, Tensor x, Weight w, Slots slots, int site,
            Optional<Tensor> low);

    // ---- layers ----

    /// Every element ← value.
    void fill(Tensor to, float value);

    /// to ← from, of the same shape; element types may differ.
    void copy(Tensor to, Tensor from);

    /// y[i] ← table[ids[i]], in y's element type; ids `[n, 1]` of [DType#I32].
    void embed(Tensor y, Tensor ids, EmbeddingTable table);

    /// y[i] ← x[rows[i]], of the same element type; rows `[n, 1]` of [DType#I32].
    void gather(Tensor y, Tensor x, Tensor rows);

    /// y ← x · inverse · weight, inverse[t] ← 1/√(mean(x[t]²) + eps); inverse `[T, 1]`, weight `[1, columns]`
    /// (Zhang & Sennrich 2019). Norms per head use the view `[T·heads, headDim]` of [Tensor#rowsOf].
    void rmsNorm(Tensor y, Tensor inverse, Tensor x, Tensor weight, float eps);

    /// dx += the gradient of [#rmsNorm] for dy.
    void rmsNormBackwardAdd(Tensor dx, Tensor dy, Tensor x, Tensor inverse, Tensor weight);

    /// Rotates each head of x in place: pairs (i, i + headDim/2), the "half" layout of Hugging Face's Llama
    /// (Su et al. 2021). positions `[T, 1]` of [DType#I32]; cos and sin `[maximal position, headDim/2]`,
    /// already multiplied by any attention factor.
    void rope(Tensor x, Tensor positions, int headDim, Tensor cos, Tensor sin);

    /// dx in place ← the gradient of [#rope] (the transposed rotation).
    void ropeBackward(Tensor dx, Tensor positions, int headDim, Tensor cos, Tensor sin);

    /// y ← silu(gate) · up, silu(z) = z / (1 + exp(-z)).
    void swiglu(Tensor y, Tensor gate, Tensor up);

    /// dgate, dup ← the gradients of [#swiglu] for dy. dgate may be gate's and dup up's own memory.
    void swigluBackward(Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up);

    // ---- attention ----

    /// Norms of the single heads of queries and keys where a layer has them, their rotation, and the pages of
    /// keys and values: the results of [#rmsNorm], [#rope] and [#append], which a device may compute at once.
    default void prepareHeads(HeadInputs inputs) {
        inputs.prepareSingly(this);
    }

    /// Writes the rotated keys and the values of all rows of a pass to their pages.
    void append(PagePool pool, int layer, Tensor keys, Tensor values, Sequences sequences);

    /// Page `to` ← page `from`, all layers.
    void copyPage(PagePool pool, int to, int from);

    /// Causal attention with a blocked, streaming softmax (Dao et al. 2022): out `[T, heads·headDim]`, lse
    /// `[T, heads]` ← log Σ exp of the scaled scores, q `[T, heads·headDim]`. Blocks of [#BLOCK] keys are
    /// processed in order from position 0, wherever they are stored, so a query gives the same bits in
    /// training, prefill and decoding.
    void attention(Tensor out, Tensor lse, Tensor q, KeyValues source, Sequences sequences,
            AttentionShape shape);

    /// Gradients of [#attention] for whole packed sequences. dq, dk, dv ← (overwritten).
    void attentionBackward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q,
            KeyValues.Packed source, Sequences sequences, AttentionShape shape);

    // ---- loss ----

    /// logprobs[t, k] ← logits[t, targets[t, k]] - lse[t], lse[t] ← log Σ exp(logits[t]); logprobs `[T, K]`,
    /// lse `[T, 1]`, targets `[T, K]` of [DType#I32]: K targets of each row, which may repeat.
    void logSoftmaxAt(Tensor logprobs, Tensor lse, Tensor logits, Tensor targets);

    /// logits in place ← Σₖ dlogprobs[t, k] · (onehot(targets[t, k]) - exp(logits[t] - lse[t])): the gradient
    /// of [#logSoftmaxAt]; dlogprobs `[T, K]`.
    void logSoftmaxBackward(Tensor logits, Tensor lse, Tensor targets, Tensor dlogprobs);

    /// dlogprobs ← dLoss/dlogprobs, of one shape, element by element; formulas in
    /// [bios.worker.kernel.Losses]. The host sums the loss itself from the log-probabilities, which it reads
    /// once at the end of a pass.
    void lossGradient(Tensor dlogprobs, Tensor logprobs, LossTerms terms);

    // ---- sampling ----

    /// tokens[i] ← the i-th draw ([bios.worker.kernel.Sampling]); logprobs[i] ← its log-probability in the
    /// distribution that it is drawn from: of the logits divided by the draw's temperature, among the tokens
    /// that top-k and top-p keep (at temperature 0: of the logits); own[i] ← its log-probability under the
    /// logits, [#logSoftmaxAt]. tokens `[n, 1]` of [DType#I32], logprobs and own `[n, 1]`. Several draws may
    /// share a row. own[i] is NaN if the row has a NaN or +∞.
    void sample(Tensor tokens, Tensor logprobs, Tensor own, Tensor logits, Draws draws);

    /// ids[t], logprobs[t] ← the k most likely tokens of row t, best first, of equal ones the lower id first;
    /// ids `[T, k]` of [DType#I32], logprobs `[T, k]`, lse from [#logSoftmaxAt]. If fewer than k logits are
    /// not NaN, the rest is -1 and NaN.
    void top(Tensor ids, Tensor logprobs, Tensor logits, Tensor lse);

    // ---- optimizer ----

    /// y[i] += x[i]; the shapes of each pair are equal.
    void add(List<Tensor> y, List<Tensor> x);

    /// sum ← Σ x² over all elements of all tensors, in a fixed order, in double precision; sum `[1, 1]` of
    /// [DType#F64].
    void sumOfSquares(Tensor sum, List<Tensor> x);

    /// One AdamW step (Loshchilov & Hutter 2019) on all tensors of an adapter, in lists of equal shapes, as
    /// torch.optim.AdamW computes it ([bios.worker.kernel.AdamW]); the gradient is first multiplied by min(1,
    /// gradClipNorm / (√sumOfSquares + 1e-6)) if gradClipNorm > 0, as torch.nn.utils.clip_grad_norm_ does.
    /// Applies the step to all tensors if every weight and moment after it is finite, else changes nothing.
    ///
    /// @param notFinite `[1, 1]` of [DType#I32] ← 0 if the step is applied, else what is not finite: bits
    ///     [bios.worker.kernel.AdamW#GRADIENT], MOMENTS and WEIGHTS; the lowest is the cause
    void adamW(Tensor notFinite, List<Tensor> w, List<Tensor> m, List<Tensor> v, List<Tensor> g,
            Tensor sumOfSquares, AdamStep step);

    /// The scalars of a step.
    ///
    /// @param step number of this step, from 1
    /// @param gradClipNorm largest norm of the gradient; 0: not clipped
    record AdamStep(double learningRate, double beta1, double beta2, double eps, double weightDecay,
            long step, double gradClipNorm) {}

    /// Frees all memory and stops all threads of the device, after the earlier verbs.
    @Override void close();
}
