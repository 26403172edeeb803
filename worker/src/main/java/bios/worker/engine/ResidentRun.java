package bios.worker.engine;

import bios.worker.adapter.TrainingState;
import bios.worker.train.Evaluation;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Optional;

/// The state of an open run on the device. Only the device's thread uses its fields, except the model.
final class ResidentRun implements AutoCloseable {
    final LoadedModel model;
    Optional<TrainingState> state = Optional.empty();
    /// Evaluations that have begun and are not finished, in the order of their operations. All before the
    /// last one are launched as a whole.
    private final Deque<Evaluating> evaluations = new ArrayDeque<>();
    /// Whether the run has passes of its own: its operation is executed alone, or a pass with other runs has
    /// failed and it is not known yet which run was at fault.
    boolean exclusive;
    /// Whether the state is being written without a copy: it must neither change nor be freed.
    boolean beingWritten;
    /// Whether the run is closed: it takes no new state.
    boolean closed;

    ResidentRun(LoadedModel model) {
        this.model = model;
    }

    /// An operation that is being evaluated.
    static final class Evaluating {
        final ResidentRun run;
        final QueuedOperation operation;
        final Evaluation evaluation;
        /// Nanoseconds that the device has worked for it.
        long nanos;

        private Evaluating(ResidentRun run, QueuedOperation operation, Evaluation evaluation) {
            this.run = run;
            this.operation = operation;
            this.evaluation = evaluation;
        }

        /// Whether its results are waited for: it is neither finished nor dropped.
        boolean live() {
            return run.evaluations.contains(this);
        }
    }

    /// The evaluation of an operation, if it has begun.
    Optional<Evaluating> evaluating(QueuedOperation operation) {
        return evaluations.stream().filter(e -> e.operation == operation).findFirst();
    }

    /// Adds the evaluation of an operation, behind those of earlier operations of the run.
    Evaluating begun(QueuedOperation operation, Evaluation evaluation) {
        var begun = new Evaluating(this, operation, evaluation);
        evaluations.add(begun);
        return begun;
    }

    /// Removes an evaluation that is finished.
    void finished(Evaluating evaluating) {
        evaluating.evaluation.close();
        evaluations.remove(evaluating);
    }

    /// Drops an evaluation and those behind it. The results of their passes are ignored.
    void drop(Evaluating first) {
        while (first.live()) evaluations.removeLast().evaluation.close();
    }

    /// Drops all evaluations.
    void dropEvaluations() {
        Optional.ofNullable(evaluations.peekFirst()).ifPresent(this::drop);
    }

    /// Most bytes of the gradients of operations under way beyond the one of which [TrainingState#mostBytes]
    /// knows.
    ///
    /// @param more operations that are to begin
    long bytesAhead(int more) {
        boolean sum = state.filter(s -> s.accumulatedOperations() > 0).isPresent();
        int ahead = evaluations.size() + more - (sum ? 1 : 2);
        return ahead <= 0 ? 0 : ahead * state.orElseThrow().gradientBytes();
    }

    /// Frees the run's memory.
    @Override public void close() {
        closed = true;
        dropEvaluations();
        state.ifPresent(TrainingState::close);
        state = Optional.empty();
    }
}
