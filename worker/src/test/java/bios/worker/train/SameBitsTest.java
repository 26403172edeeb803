package bios.worker.train;

import static bios.worker.device.TestDevices.read;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import bios.protocol.run.AdamParams;
import bios.protocol.run.Datum;
import bios.protocol.run.Operation.ForwardBackward;
import bios.protocol.run.OperationResult.Evaluated;
import bios.worker.adapter.Adapter;
import bios.worker.adapter.StateFiles;
import bios.worker.adapter.TrainingState;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.HostArray;
import bios.worker.device.Tensor;
import bios.worker.device.TestDevices;
import bios.worker.model.BaseModel;
import bios.worker.model.Golden;
import bios.worker.model.KeyValueCache;
import bios.worker.model.KeyValuePages;
import bios.worker.model.SequenceInput;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.params.Parameter;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/// The engine's guarantees of equal bits: a run's results do not depend on other runs, on threads, on an
/// interruption, or on whether tokens are scored or decoded; on every path of this process.
@ParameterizedClass @MethodSource("bios.worker.device.TestDevices#paths")
class SameBitsTest {
    @Parameter private String path;

    /// Limits of bytes for saved activations: all are saved, some in part, some not, none.
    private static final long[] BUDGETS =
            {1L << 30, 700_000, 400_000, 300_000, 200_000, 150_000, 100_000, 50_000, 0};

    @ParameterizedTest @ValueSource(strings = {"qwen3", "llama-bf16", "qwen2-sliding", "llama-fp16"})
    void aRunAloneAndInCompanyWithAnyThreadsAndCutsGivesTheSameBits(String name) {
        List<byte[]> states = new ArrayList<>();
        List<List<float[]>> logprobs = new ArrayList<>();
        for (int threads = 1; threads <= 3; threads += TestDevices.oneOf(3))
            for (int sharing = 0; sharing <= 2; sharing++)
                try (Device on = TestDevices.open(path, threads); BaseModel model = Golden.of(name).load(on);
                        TrainingState run = Examples.run(Examples.SMALL, model);
                        TrainingState other = Examples.run(Examples.LARGE, model)) {
                    // oneDNN starts new sums over tokens for each batch
                    boolean cutsMatter = !on.description().contains("own kernels");
                    Trainer trainer = new Trainer(model, cutsMatter ? 150 : 60 + 45 * threads);
                    long kept = BUDGETS[3 * (threads - 1) + sharing];
                    model.setActivationBudget(kept, kept);
                    for (int step = 0; step < 2; step++) {
                        logprobs.add(step == 0 ? new ArrayList<>() : logprobs.removeLast());
                        logprobs.getLast().addAll(together(trainer, run,
                                Examples.operation(model, 7 + step, 5, false), other, sharing).logprobs());
                        trainer.optimStep(run, Optional.of(new AdamParams(1e-2, 0.9, 0.95, 1e-8, 0.01, 1)))
                                .complete();
                    }
                    together(trainer, run, Examples.operation(model, 9, 3, false), other, sharing);
                    states.add(StateFiles.point(run));
                }
        for (byte[] state : states) assertArrayEquals(states.getFirst(), state);
        for (List<float[]> l : logprobs)
            for (int i = 0; i < l.size(); i++) assertArrayEquals(logprobs.getFirst().get(i), l.get(i));
    }

    /// `sharing` 0: alone; 1: passes shared with a following run; 2: passes shared with a preceding run,
    /// which is only evaluated.
    private static Evaluated together(Trainer trainer, TrainingState run, ForwardBackward operation,
            TrainingState other, int sharing) {
        try (Evaluation mine = trainer.begin(run, operation);
                Evaluation theirs = trainer.begin(other,
                        Examples.operation(trainer.model(), 100, 6, sharing == 2))) {
            while (!mine.done()) {
                if (sharing == 0 || theirs.done()) trainer.pass(List.of(mine));
                else trainer.pass(sharing == 1 ? List.of(mine, theirs) : List.of(theirs, mine));
            }
            return mine.finish();
        }
    }

    @ParameterizedTest @ValueSource(strings = {"qwen3", "llama-bf16", "qwen2-sliding", "mistral"})
    void decodingTokenByTokenGivesTheTrainersLogProbabilities(String name) {
        try (Device on = TestDevices.open(path, 2); BaseModel model = Golden.of(name).load(on);
                TrainingState run = Examples.run(Examples.SMALL, model);
                TrainingState other = Examples.run(Examples.LARGE, model);
                KeyValuePages pages = new KeyValuePages(model.spec(), on, 40, DType.F32)) {
            ForwardBackward operation = Examples.operation(model, 3, 3, true);
            List<float[]> trained = new Trainer(model).evaluate(run, operation).logprobs();
            for (int s = 0; s < operation.data().size(); s++) {
                Datum datum = operation.data().get(s);
                for (int prefill : new int[] {1, 2, Math.min(70, datum.tokens().length)})
                    assertArrayEquals(trained.get(s), decoded(model, pages, datum, run.adapter(),
                            other.adapter(), prefill), "sequence " + s + " prefilled " + prefill);
            }
            assertEquals(pages.limit(), pages.free());
        }
    }

    /// Log-probabilities of the datum's targets: `prefill` tokens at once, then one by one, beside another
    /// sequence of another adapter, on a cache that is forked at each step.
    private static float[] decoded(BaseModel model, KeyValuePages pages, Datum datum, Adapter adapter,
            Adapter other, int prefill) {
        Device on = model.device();
        int[] tokens = datum.tokens();
        float[] all = new float[tokens.length];
        KeyValueCache cache = pages.open();
        KeyValueCache branch = pages.open();
        try (KeyValueCache beside = pages.open()) {
            for (int at = 0; at < tokens.length; ) {
                int n = at == 0 ? Math.min(prefill, tokens.length) : 1;
                try (Device.Scope scope = on.scope()) {
                    List<SequenceInput> steps = new ArrayList<>();
                    SequenceInput neighbour = new SequenceInput(new int[] {at % 7, 5}, beside,
                            Optional.of(other));
                    if (at % 6 == 1) steps.add(neighbour);
                    int first = steps.isEmpty() ? 0 : 2;
                    steps.add(new SequenceInput(Arrays.copyOfRange(tokens, at, at + n), cache,
                            Optional.of(adapter)));
                    if (at % 6 == 4) steps.add(neighbour);
                    Tensor hidden = model.forwardCached(scope, steps).rows(first, n);
                    int[] targets = new int[n];
                    for (int i = 0; i < n; i++)
                        targets[i] = (int) datum.lossInputs().get("target_tokens").longs()[at + i];
                    Tensor logits = model.logits(scope, hidden,
                            model.slots(scope, Collections.nCopies(n, Optional.of(adapter))));
                    Tensor logprobs = on.scratch(scope, n, 1);
                    on.logSoftmaxAt(logprobs, on.scratch(scope, n, 1), logits,
                            on.upload(scope, List.of(HostArray.column(targets))).getFirst());
                    System.arraycopy(read(on, logprobs), 0, all, at, n);
                }
                at += n;
                try (Device.Scope scope = on.scope()) {     // the forked branch continues with other tokens
                    model.forwardCached(scope,
                            List.of(new SequenceInput(new int[] {3}, branch, Optional.of(adapter))));
                }
                KeyValueCache twin = cache.fork().orElseThrow();
                branch.close();
                branch = cache;
                cache = twin;
            }
        } finally {
            branch.close();
            cache.close();
        }
        return all;
    }

    @ParameterizedTest @ValueSource(strings = {"qwen3-lm-head", "llama-bf16"})
    void aRestoredStateGoesOnWithTheSameBits(String name) {
        try (Device on = TestDevices.open(path, 2); BaseModel model = Golden.of(name).load(on);
                TrainingState run = Examples.run(Examples.SMALL, model)) {
            Trainer trainer = new Trainer(model);
            trainer.evaluate(run, Examples.operation(model, 1, 2, false));
            trainer.optimStep(run, Optional.empty()).complete();
            trainer.evaluate(run, Examples.operation(model, 2, 2, false));
            byte[] point = StateFiles.point(run);
            try (TrainingState again = StateFiles.restore(point, model.spec(), on)) {
                assertArrayEquals(point, StateFiles.point(again));
                for (TrainingState state : List.of(run, again)) {
                    trainer.evaluate(state, Examples.operation(model, 3, 2, false));
                    trainer.optimStep(state, Optional.of(new AdamParams(1e-3, 0.8, 0.9, 1e-8, 0.1, 0.5)))
                            .complete();
                }
                assertArrayEquals(StateFiles.point(run), StateFiles.point(again));
            }
            try (TrainingState loaded = StateFiles.load(StateFiles.adapter(run),
                    Optional.of(StateFiles.optimizer(run)), run.steps(), run.optimizerSettings(), run.lora(),
                    model.spec(), on)) {
                assertArrayEquals(StateFiles.point(run), StateFiles.point(loaded));
            }
        }
    }
}
