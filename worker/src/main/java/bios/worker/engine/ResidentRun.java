package bios.worker.engine;

import bios.worker.adapter.TrainingState;
import bios.worker.train.Evaluation;
import java.util.Optional;

/// A run on the device. Only the device's thread looks inside.
final class ResidentRun implements AutoCloseable {
    final LoadedModel served;
    Optional<TrainingState> state = Optional.empty();
    Optional<Evaluation> evaluation = Optional.empty();
    /// A pass with others went wrong: until it is known whose fault that was, it goes alone.
    boolean alone;

    ResidentRun(LoadedModel served) {
        this.served = served;
    }

    /// Drops an evaluation that is not finished.
    void drop() {
        evaluation.ifPresent(Evaluation::close);
        evaluation = Optional.empty();
    }

    /// Frees the run's memory.
    @Override public void close() {
        drop();
        state.ifPresent(TrainingState::close);
        state = Optional.empty();
    }
}
