package bios.coordinator.run;

import bios.coordinator.run.Results.Kept;
import bios.persistence.index.RunSummary;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Writes what the index of runs shows of one run, one write at a time, and knows which saves wait to be
/// shown. Belongs to one actor.
final class IndexWriter {
    private record PendingSave(long version, Kept kept) {}

    private final RunContext context;
    private final List<PendingSave> pendingSaves = new ArrayList<>();
    private boolean writing;
    private boolean again;

    IndexWriter(RunContext context) {
        this.context = context;
    }

    /// Whether it writes.
    boolean writing() {
        return writing;
    }

    /// Whether saves wait to be shown.
    boolean savesWait() {
        return !pendingSaves.isEmpty();
    }

    /// A save is in the journal, and done once the index shows this version.
    ///
    /// @param version the number of its event
    void await(long version, Kept save) {
        pendingSaves.add(new PendingSave(version, save));
    }

    /// Writes the run as it is now, or, where a write is under way, asks for another behind it.
    /// [Internal.Indexed] says what came of it.
    ///
    /// @param step optimizer steps known to be applied
    /// @param version the number of the run's last event
    void write(TrainingRun run, long step, long version) {
        if (writing) {
            again = true;
            return;
        }
        writing = true;
        var summary = new RunSummary(run.config().orElseThrow(), run.lora().orElseThrow(),
                step, run.lastRequestMillis(), run.checkpoints().current(context.now()), run.closed());
        context.later(() -> {
            context.world().index().put(summary, version);
            return version;
        }, (_, failure) -> new Internal.Indexed(version,
                Optional.ofNullable(failure).map(Throwable::toString)));
    }

    /// A write is over.
    void written(Optional<String> failure) {
        writing = false;
        failure.ifPresent(why -> context.warn("the index does not show its last change: {}", why));
    }

    /// The saves that are done by a write, in their order: those that the index shows. An index that fails
    /// must not hold them up: then all.
    List<Kept> done(long version, boolean failed) {
        List<PendingSave> done = pendingSaves.stream()
                .filter(save -> failed || save.version() <= version).toList();
        pendingSaves.removeAll(done);
        return done.stream().map(PendingSave::kept).toList();
    }

    /// Whether the run has changed since the write that is over began; asked once.
    boolean again() {
        boolean was = again;
        again = false;
        return was;
    }
}
