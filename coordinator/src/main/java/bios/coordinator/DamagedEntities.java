package bios.coordinator;

import bios.persistence.journal.JournalDamaged;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Consumer;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.actor.typed.BackoffSupervisorStrategy;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.Extension;
import org.apache.pekko.actor.typed.ExtensionId;
import org.apache.pekko.actor.typed.SupervisorStrategy;
import org.apache.pekko.actor.typed.javadsl.Behaviors;

/// The entities of this node whose stored events cannot be read. Reading them again at once does not help, so
/// a stand-in answers for each, and the entity is tried again after a wait that grows from a minute to half
/// an hour. Other entities are not affected.
public final class DamagedEntities implements Extension {
    private static final ExtensionId<DamagedEntities> ID = new ExtensionId<>() {
        @Override public DamagedEntities createExtension(ActorSystem<?> system) {
            return new DamagedEntities();
        }
    };
    private static final Duration FIRST_WAIT = Duration.ofMinutes(1);
    private static final Duration LONGEST_WAIT = Duration.ofMinutes(30);
    private static final int MAX_DOUBLINGS = 10;
    /// Stops an entity that is known to be damaged without another stack trace.
    private static final BackoffSupervisorStrategy QUIET = SupervisorStrategy.restartWithBackoff(
            FIRST_WAIT, LONGEST_WAIT, 0).withMaxRestarts(0).withLoggingEnabled(false);

    private final ConcurrentHashMap<String, Damage> damages = new ConcurrentHashMap<>();

    /// What is known of a damaged entity.
    ///
    /// @param what the damage, as its clients are told
    /// @param attempts how often its recovery has failed
    /// @param due whether the entity is tried again when it is started
    private record Damage(String what, int attempts, boolean due) {}

    private DamagedEntities() {}

    /// Those of the node of `system`.
    public static DamagedEntities get(ActorSystem<?> system) {
        return system.registerExtension(ID);
    }

    /// Handles a failed recovery.
    ///
    /// @param entity as clients know it, e.g. `run X`
    /// @param log told of the damage when it is found, once
    /// @return whether the stored data are the cause
    public boolean recoveryFailed(String persistenceId, String entity, Throwable failure,
            Consumer<String> log) {
        if (!JournalDamaged.isCause(failure)) return false;
        Damage before = damages.get(persistenceId);
        if (before != null && !before.due()) return true; // Pekko signals a failed replay twice
        String what = entity + " cannot be read from the journal: " + failure.getMessage()
                + ". 'bios fsck' says what it would lose, 'bios restore' puts it back to its newest state"
                + " that can be verified; other runs are not affected";
        damages.put(persistenceId, new Damage(what, before == null ? 1 : before.attempts() + 1, false));
        if (before == null) log.accept(what);
        return true;
    }

    /// The entity was read.
    public void recovered(String persistenceId) {
        damages.remove(persistenceId);
    }

    /// How often the recovery of an entity has failed.
    public int attempts(String persistenceId) {
        Damage damage = damages.get(persistenceId);
        return damage == null ? 0 : damage.attempts();
    }

    /// The supervision of the entity: null, the default, unless it is known to be damaged.
    public BackoffSupervisorStrategy supervision(String persistenceId) {
        return damages.containsKey(persistenceId) ? QUIET : null;
    }

    /// The stand-in to start in the place of an entity; empty: the entity itself.
    ///
    /// @param <C> the entity's commands
    public <C> Optional<Behavior<C>> standIn(String persistenceId, Class<C> commands, Refusal<C> refusal) {
        Damage damage = damages.get(persistenceId);
        if (damage == null || damage.due()) return Optional.empty();
        long wait = FIRST_WAIT.toMillis() << Math.min(damage.attempts() - 1, MAX_DOUBLINGS);
        Behavior<Object> behavior = Behaviors.withTimers(timers -> {
            timers.startSingleTimer(Retry.NOW,
                    Duration.ofMillis(Math.min(wait, LONGEST_WAIT.toMillis())));
            return Behaviors.receiveMessage(message -> {
                if (message != Retry.NOW) return refusal.refuse(commands.cast(message), damage.what())
                        ? Behaviors.same() : Behaviors.stopped();
                // Its shard starts the entity again.
                damages.replace(persistenceId, damage, new Damage(damage.what(), damage.attempts(), true));
                return Behaviors.stopped();
            });
        });
        return Optional.of(behavior.narrow());
    }

    private enum Retry { NOW }

    /// Refuses a command of an entity.
    @FunctionalInterface
    public interface Refusal<C> {
        /// Answers `command` with the damage.
        ///
        /// @return whether the stand-in goes on; false: the command stops it
        boolean refuse(C command, String what);
    }
}
