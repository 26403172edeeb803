package bios.persistence.journal;

import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.stream.Collectors;

/// The embedded journal does not have everything that was acknowledged, or what it has cannot be read. The
/// process does not start; nothing was changed.
public final class JournalLoss extends IllegalStateException {
    private static final long serialVersionUID = 1;
    private static final int MAX_NAMED = 100;

    /// What an entity has lost.
    ///
    /// @param have its newest event in the journal; 0: none
    /// @param acknowledged its newest acknowledged event; 0: unknown
    public record Loss(String persistenceId, long have, long acknowledged) {
        /// Whether the entity is a run.
        public boolean run() {
            return JournalLoss.run(persistenceId).isPresent();
        }

        @Override public String toString() {
            return name(persistenceId) + ": " + (have == 0 ? "the journal has none of its events"
                    : "the journal has events up to " + have)
                    + (acknowledged == 0 ? "" : ", acknowledged up to " + acknowledged);
        }
    }

    /// @param data the data folder
    /// @param what what was found
    /// @param losses what each entity has lost, a line for each
    JournalLoss(Path data, String what, List<?> losses) {
        super(what + (losses.isEmpty() ? "" : ":\n" + losses.stream().limit(MAX_NAMED)
                .map(loss -> "  " + loss).collect(Collectors.joining("\n"))
                + (losses.size() > MAX_NAMED ? "\n  and " + (losses.size() - MAX_NAMED) + " more" : ""))
                + "\nNothing was changed. " + remedy(data));
    }

    /// How to go on with a damaged data folder.
    public static String remedy(Path data) {
        return "Put back a whole copy of " + data + " if there is one. Otherwise: 'bios fsck --data " + data
                + "' says what each run would lose; 'bios restore --data " + data + "' puts the damaged runs"
                + " back to their newest states that can be verified and keeps a copy of what it removes;"
                + " 'bios up --accept-loss' goes on with what is there. Both record in the histories of the"
                + " runs what was given up.";
    }

    /// An entity as messages name it: `run <id>`, `session <id>`, or the persistence id.
    public static String name(String persistenceId) {
        int bar = persistenceId.indexOf('|');
        if (bar < 0) return persistenceId;
        return run(persistenceId).map(run -> "run " + run).orElseGet(() ->
                persistenceId.startsWith("session|") ? "session " + persistenceId.substring(bar + 1)
                        : persistenceId);
    }

    /// The id of the run whose entity has this persistence id; empty: it is no run's.
    public static Optional<String> run(String persistenceId) {
        int bar = persistenceId.indexOf('|');
        return bar >= 0 && persistenceId.startsWith("run-") ? Optional.of(persistenceId.substring(bar + 1))
                : Optional.empty();
    }
}
