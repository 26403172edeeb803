package bios.worker.train;

import bios.protocol.Fault;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Operation.ForwardBackward;
import bios.protocol.run.OperationResult.Evaluated;
import bios.protocol.run.OperationResult.Stepped;
import bios.worker.adapter.TrainingState;
import bios.worker.model.BaseModel;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/// Executes training operations on one base model. The engine begins an [Evaluation] per operation, puts the
/// next micro-batches of several into one [#pass], and finishes those that are done:
///
/// ```java
/// try (Evaluation e = trainer.begin(state, operation)) {
///     while (!e.done()) trainer.pass(List.of(e));      // or with other runs' evaluations
///     return e.finish();
/// }
/// ```
/// Results and gradients have the same bits in any company. An operation is refused whole, with [Refused],
/// before anything is computed; whatever is thrown in a pass (out of memory) leaves all runs as they were
/// before their operations: close the evaluations of that pass.
public final class Trainer {
    /// More tokens in a micro-batch gain nothing.
    private static final int MICRO_BATCH_TOKENS = 4096;

    private final BaseModel model;
    private final int tokenBudget;

    /// With micro-batches for which the model keeps all that backward needs.
    public Trainer(BaseModel model) {
        this(model, Math.min(MICRO_BATCH_TOKENS, model.passTokens()));
    }

    /// With another size of micro-batches, for tests.
    Trainer(BaseModel model, int tokenBudget) {
        this.model = model;
        this.tokenBudget = tokenBudget;
    }

    /// The base model that it trains on.
    public BaseModel model() {
        return model;
    }

    /// Checks an operation and cuts it into micro-batches; computes nothing. [Refused] when its tokens,
    /// lengths or loss inputs do not fit the model.
    public Evaluation begin(TrainingState state, ForwardBackward operation) {
        return Evaluation.of(state, operation, model.spec(), tokenBudget);
    }

    /// The first evaluations for the next pass; at least one. All get through in as few passes as the memory
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

    /// Puts the next micro-batch of each evaluation through the model, in one pass over the frozen weights.
    /// No two of them may be of one run.
    public void pass(List<Evaluation> evaluations) {
        List<Evaluation.Share> shares = new ArrayList<>();
        for (Evaluation evaluation : evaluations) shares.add(evaluation.share());
        model.evaluate(shares.stream().map(Evaluation.Share::lesson).toList());
        shares.forEach(share -> share.taken().run());
    }

    /// One operation from beginning to end, alone.
    public Evaluated evaluate(TrainingState state, ForwardBackward operation) {
        try (Evaluation evaluation = begin(state, operation)) {
            while (!evaluation.done()) pass(List.of(evaluation));
            return evaluation.finish();
        }
    }

    /// Applies the gradient sum with AdamW and clears it. [Refused] with the code
    /// `no_gradient` when there is none.
    ///
    /// @param params become the run's settings; empty: those that it has
    public Stepped optimStep(TrainingState state, Optional<AdamParams> params) {
        if (state.accumulated() == 0)
            throw new Refused(Fault.user("no_gradient", "optim_step: no gradient has been accumulated"
                    + " since the last step; call forward_backward first"));
        AdamParams used = params.orElse(state.settings());
        double norm = state.step(used);
        return new Stepped(state.steps(),
                new TreeMap<>(Map.of("grad_norm", norm, "learning_rate", used.learningRate())));
    }
}
