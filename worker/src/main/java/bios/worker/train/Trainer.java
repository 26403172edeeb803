package bios.worker.train;

import bios.protocol.Fault;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Operation.ForwardBackward;
import bios.protocol.run.OperationResult.Evaluated;
import bios.worker.adapter.TrainingState;
import bios.worker.model.BaseModel;
import bios.worker.model.RunBatch;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Executes training operations on one base model. The engine begins an [Evaluation] per operation, puts the
/// next micro-batches of several into one pass, and finishes those that are done:
///
/// ```java
/// try (Evaluation e = trainer.begin(state, operation)) {               // any thread
///     while (!e.done()) {
///         PreparedPass prepared = trainer.prepare(List.of(e));         // any thread; also with other runs'
///         LaunchedPass launched = prepared.launch();                   // device thread, does not wait
///         launched.complete();                                         // one thread at a time, waits
///     }
///     return e.finish();                                               // device thread, does not wait
/// }
/// ```
/// Before a pass is completed, the next of the same evaluation or of another of the run may be launched; the
/// results are taken in the order of the launches. An evaluation may also begin while the device works on an
/// optimizer step of its run: it sees the weights after the step.
/// Results and gradients are bitwise independent of the other runs in the passes. An invalid operation is
/// refused with [Refused] before anything is computed. If a pass throws (out of memory), all runs are as they
/// were before their operations; the caller closes the evaluations of that pass.
public final class Trainer {
    /// More tokens in a micro-batch gain nothing.
    private static final int MICRO_BATCH_TOKENS = 4096;

    private final BaseModel model;
    private final int tokenBudget;
    private final NonFinite nonFinite;

    /// With micro-batches for which the model saves all that backward needs.
    public Trainer(BaseModel model, NonFinite nonFinite) {
        this(model, Math.min(MICRO_BATCH_TOKENS, model.maxTokensFullySaved()), nonFinite);
    }

    /// Skips steps that are not finite.
    public Trainer(BaseModel model) {
        this(model, NonFinite.SKIP);
    }

    /// With another size of micro-batches, for tests.
    Trainer(BaseModel model, int tokenBudget) {
        this(model, tokenBudget, NonFinite.SKIP);
    }

    private Trainer(BaseModel model, int tokenBudget, NonFinite nonFinite) {
        this.model = model;
        this.tokenBudget = tokenBudget;
        this.nonFinite = nonFinite;
    }

    /// The base model that it trains on.
    public BaseModel model() {
        return model;
    }

    /// Checks an operation and cuts it into micro-batches; computes nothing. [Refused] when its tokens,
    /// lengths or loss inputs do not fit the model.
    public Evaluation begin(TrainingState state, ForwardBackward operation) {
        return Evaluation.of(state, operation, model.spec(), tokenBudget, nonFinite);
    }

    /// The first evaluations for the next pass; at least one. All take as few passes as the memory
    /// for what backward needs allows, of about equal size.
    ///
    /// @param most tokens of a pass, where memory allows more
    public List<Evaluation> fitting(List<Evaluation> evaluations, int most) {
        int budget = Math.min(tokenBudget, most);
        int all = evaluations.stream().mapToInt(Evaluation::nextTokens).sum();
        int share = Math.ceilDiv(all, Math.max(1, Math.ceilDiv(all, budget)));
        List<Evaluation> fitting = new ArrayList<>();
        int tokens = 0;
        for (Evaluation next : evaluations) {
            if (!fitting.isEmpty() && (tokens >= share || tokens + next.nextTokens() > budget)) break;
            tokens += next.nextTokens();
            fitting.add(next);
        }
        return fitting;
    }

    /// Lays out the next micro-batch of each evaluation for one pass. Pure work of the host, on any thread;
    /// a pass may be prepared while the passes before it are on the device. No two evaluations may be of one
    /// run.
    public PreparedPass prepare(List<Evaluation> evaluations) {
        List<RunBatch> batches = new ArrayList<>();
        for (Evaluation evaluation : evaluations) batches.add(evaluation.nextBatch());
        return new PreparedPass(evaluations, model.prepare(batches));
    }

    /// A pass from beginning to end, for tests and benchmarks.
    public void pass(List<Evaluation> evaluations) {
        prepare(evaluations).launch().complete();
    }

    /// One operation from beginning to end, alone, for tests and benchmarks.
    public Evaluated evaluate(TrainingState state, ForwardBackward operation) {
        try (Evaluation evaluation = begin(state, operation)) {
            while (!evaluation.done()) pass(List.of(evaluation));
            return evaluation.finish();
        }
    }

    /// Applies the gradient sum with AdamW; [LaunchedStep#complete] clears it. Called by the thread that
    /// calls the device's verbs.
    /// [Refused] with the code `no_gradient` when there is none.
    ///
    /// @param params become the run's settings; empty: those that it has
    public LaunchedStep optimStep(TrainingState state, Optional<AdamParams> params) {
        if (state.accumulatedOperations() == 0)
            throw new Refused(Fault.user("no_gradient", "optim_step: no gradient has been accumulated"
                    + " since the last step; call forward_backward first"));
        AdamParams used = params.orElse(state.optimizerSettings());
        return new LaunchedStep(state, state.step(used), nonFinite);
    }
}
