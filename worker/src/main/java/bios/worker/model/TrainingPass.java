package bios.worker.model;

import static bios.protocol.Require.require;

import bios.protocol.run.LossFunction;
import bios.worker.adapter.Factors;
import bios.worker.device.FactorTable;
import bios.worker.device.HostArray;
import bios.worker.device.LossTerms;
import bios.worker.device.Readback;
import bios.worker.device.Sequence;
import bios.worker.device.Slot;
import bios.worker.device.Tensor;
import bios.worker.load.ModelSpec;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.stream.IntStream;

/// A training pass on the host: everything that the device needs for it, checked and laid out for one upload.
/// Batches with a loss come first, so that backward sees the first rows.
public final class TrainingPass {
    private final BaseModel model;
    private final int given;
    private final List<Integer> order;
    private final List<RunBatch> batches;
    private final int[] firstRows;
    private final int[] firstTargets;
    private final int rows;
    private final int backwardRows;
    private final int targets;
    private final int backwardTargets;
    private final List<HostArray> arrays = new ArrayList<>();

    TrainingPass(BaseModel model, List<RunBatch> given) {
        require(!given.isEmpty(), "a pass without rows");
        this.model = model;
        this.given = given.size();
        this.order = IntStream.concat(
                IntStream.range(0, given.size()).filter(i -> given.get(i).loss().isPresent()),
                IntStream.range(0, given.size()).filter(i -> given.get(i).loss().isEmpty())).boxed().toList();
        this.batches = order.stream().map(given::get).toList();
        this.firstRows = new int[given.size()];
        this.firstTargets = new int[given.size()];
        int row = 0;
        int target = 0;
        int backward = 0;
        int backwardTarget = 0;
        for (int i = 0; i < batches.size(); i++) {
            firstRows[i] = row;
            firstTargets[i] = target;
            row = Math.addExact(row, batches.get(i).rows());
            target = Math.addExact(target, batches.get(i).targets().length);
            if (batches.get(i).loss().isEmpty()) continue;
            backward = row;
            backwardTarget = target;
        }
        this.rows = row;
        this.backwardRows = backward;
        this.targets = target;
        this.backwardTargets = backwardTarget;
        check(model.spec());
        collect();
    }

    private void check(ModelSpec spec) {
        for (RunBatch batch : batches) {
            for (int[] sequence : batch.sequences()) {
                require(sequence.length >= 1 && sequence.length <= spec.contextLength(),
                        "a sequence of %d tokens", sequence.length);
                BaseModel.requireInVocabulary(sequence, spec);
            }
            BaseModel.requireInVocabulary(batch.targets(), spec);
        }
    }

    private void collect() {
        int[] tokens = new int[rows];
        int[] positions = new int[rows];
        int[] ids = new int[targets];
        float[] weights = new float[backwardTargets];
        float[] sampled = new float[backwardTargets];
        boolean bounded = batches.stream().flatMap(b -> b.loss().stream())
                .anyMatch(loss -> loss.bounds().isPresent());
        float[] lows = new float[bounded ? backwardTargets : 0];
        float[] highs = new float[lows.length];
        for (int b = 0; b < batches.size(); b++) {
            RunBatch batch = batches.get(b);
            int at = firstTargets[b];
            int count = batch.targets().length;
            System.arraycopy(batch.targets(), 0, ids, at, count);
            batch.loss().ifPresent(loss -> {
                System.arraycopy(loss.weights(), 0, weights, at, count);
                System.arraycopy(loss.sampled(), 0, sampled, at, count);
                loss.bounds().ifPresent(own -> {
                    System.arraycopy(own.low(), 0, lows, at, count);
                    System.arraycopy(own.high(), 0, highs, at, count);
                });
            });
            int row = firstRows[b];
            for (int[] sequence : batch.sequences()) {
                System.arraycopy(sequence, 0, tokens, row, sequence.length);
                for (int i = 0; i < sequence.length; i++) positions[row + i] = i;
                row += sequence.length;
            }
        }
        for (int[] column : List.of(tokens, positions)) arrays.add(HostArray.column(column));
        arrays.add(new HostArray.Ints(1, targets, ids));
        for (float[] each : List.of(weights, sampled, lows, highs))
            if (each.length > 0) arrays.add(new HostArray.Floats(1, each.length, each));
    }

    /// Starts the pass: uploads, forward, losses, and backward for the batches with a loss, whose dLoss/dA
    /// and dLoss/dB are added to their gradients. Waits for nothing. Called by the thread that calls the
    /// device's verbs. When this throws, gradients may have been added to in part.
    ///
    /// @param gradients one for each batch, present where it has a loss
    /// @return for [#logprobs] and [#gradientFinite]
    public Readback launch(List<Optional<Factors>> gradients) {
        return model.launch(this, gradients);
    }

    /// The log-probabilities of the targets of the i-th batch given. Waits for the pass.
    public float[] logprobs(Readback results, int i) {
        int at = order.indexOf(i);
        return Arrays.copyOfRange(results.floats(0), firstTargets[at],
                firstTargets[at] + batches.get(at).targets().length);
    }

    /// Whether the gradient of the i-th batch given is finite after the pass; true if it has no loss. Waits
    /// for the pass.
    public boolean gradientFinite(Readback results, int i) {
        int at = order.indexOf(i);
        return batches.get(at).loss().isEmpty() || Double.isFinite(results.doubles(1 + at)[0]);
    }

    /// Tokens of all batches.
    public int rows() {
        return rows;
    }

    /// The first rows, those of batches with a loss.
    int backwardRows() {
        return backwardRows;
    }

    /// In the order of their rows.
    List<RunBatch> batches() {
        return batches;
    }

    int firstRow(int batch) {
        return firstRows[batch];
    }

    int firstTarget(int batch) {
        return firstTargets[batch];
    }

    /// Targets of all batches.
    int targets() {
        return targets;
    }

    int longest() {
        return batches.stream().flatMap(b -> b.sequences().stream()).mapToInt(s -> s.length).max().orElse(0);
    }

    /// The arrays to upload, see [Inputs].
    List<HostArray> arrays() {
        return arrays;
    }

    /// The adapters with their gradients.
    List<Slot> slots(List<Optional<Factors>> gradients) {
        require(gradients.size() == given, "%d gradients for %d batches", gradients.size(), given);
        List<Slot> slots = new ArrayList<>();
        for (int i = 0; i < batches.size(); i++) {
            RunBatch batch = batches.get(i);
            Optional<FactorTable> gradient = gradients.get(order.get(i)).map(f -> f);
            require(gradient.isPresent() == batch.loss().isPresent(), "a loss and its gradient go together");
            int row = firstRows[i];
            batch.adapter().ifPresent(a ->
                    slots.add(new Slot(row, batch.rows(), a.scale(), a.weights(), gradient)));
        }
        return slots;
    }

    /// The gradients of the batches with a loss, in the order of their rows.
    List<Factors> inOrder(List<Optional<Factors>> gradients) {
        return order.stream().flatMap(i -> gradients.get(i).stream()).toList();
    }

    /// The sequences of the first `count` rows.
    List<Sequence> sequences(int count) {
        List<Sequence> sequences = new ArrayList<>();
        int row = 0;
        for (RunBatch batch : batches)
            for (int[] tokens : batch.sequences()) {
                if (row >= count) return sequences;
                sequences.add(Sequence.packed(row, tokens.length));
                row += tokens.length;
            }
        return sequences;
    }

    /// The uploaded arrays of a pass: columns `[rows, 1]`, and rows `[1, targets]` of what there is for each
    /// target.
    record Inputs(Tensor tokens, Tensor positions, Tensor targets, List<Tensor> ofLosses) {
        static Inputs of(List<Tensor> uploaded) {
            return new Inputs(uploaded.get(0), uploaded.get(1), uploaded.get(2),
                    uploaded.subList(3, uploaded.size()));
        }

        /// The terms of a batch's loss for `rows` positions with `each` targets, from target `from` on.
        LossTerms terms(RunBatch.LossInputs loss, int from, int rows, int each) {
            List<Tensor> own = ofLosses.stream().map(t -> t.matrix(from, rows, each)).toList();
            Optional<Tensor> q = loss.function() == LossFunction.CROSS_ENTROPY
                    ? Optional.empty() : Optional.of(own.get(1));
            return new LossTerms(loss.function(), own.get(0), q,
                    loss.bounds().map(_ -> new LossTerms.Bounds(own.get(2), own.get(3))), loss.low(),
                    loss.high(), loss.beta());
        }
    }
}
