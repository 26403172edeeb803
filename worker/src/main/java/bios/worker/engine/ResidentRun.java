package bios.worker.engine;

import bios.worker.adapter.TrainingState;
import bios.worker.train.Evaluation;
import java.util.Optional;

/// The state of an open run on the device. Only the device's thread uses its fields, except the model.
final class ResidentRun implements AutoCloseable {
    final LoadedModel model;
    Optional<TrainingState> state = Optional.empty();
    Optional<Evaluation> evaluation = Optional.empty();
    /// Nanoseconds that the device has worked for the evaluation.
    long evaluationNanos;
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

    /// Drops an evaluation that is not finished.
    void dropEvaluation() {
        evaluation.ifPresent(Evaluation::close);
        evaluation = Optional.empty();
        evaluationNanos = 0;
    }

    /// Frees the run's memory.
    @Override public void close() {
        closed = true;
        dropEvaluation();
        state.ifPresent(TrainingState::close);
        state = Optional.empty();
    }
}
