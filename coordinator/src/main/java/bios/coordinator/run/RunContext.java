package bios.coordinator.run;

import bios.protocol.run.RunId;
import bios.protocol.run.RunNote;
import bios.protocol.wire.Message;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletionStage;
import java.util.function.BiFunction;
import java.util.function.Supplier;
import org.apache.pekko.actor.typed.javadsl.ActorContext;
import org.apache.pekko.actor.typed.javadsl.TimerScheduler;

/// What the parts of a run's entity share: whose they are, what lies around, and the actor's mailbox, timers
/// and log. Whatever takes time comes back as an [Internal]. Belongs to one actor.
///
/// @param node where the entity is
record RunContext(RunId id, RunWorld world, String node, RunMeter meter, ActorContext<Message> actor,
        TimerScheduler<Message> timers) {
    RunSettings settings() {
        return world.settings();
    }

    /// Epoch milliseconds.
    long now() {
        return world.clock().millis();
    }

    /// Tells the entity, behind what is in its mailbox. For the actor's own thread.
    void tell(Internal message) {
        actor.getSelf().tell(message);
    }

    /// Tells it after `time`, in place of what was to come under the same key.
    void after(Duration time, Object key, Internal message) {
        timers.startSingleTimer(key, message, time);
    }

    /// Takes back what was to come under `key`.
    void cancel(Object key) {
        timers.cancel(key);
    }

    /// Does what waits for files on another thread and tells the entity what came of it.
    ///
    /// @param told of the value, or of the failure
    <T> void later(Supplier<T> work, BiFunction<T, Throwable, Internal> told) {
        whenDone(world.later(work), told);
    }

    /// Tells the entity what comes of `stage`.
    <T> void whenDone(CompletionStage<T> stage, BiFunction<T, Throwable, Internal> told) {
        actor.pipeToSelf(stage, told::apply);
    }

    void warn(String message, Object... values) {
        actor.getLog().atWarn().addKeyValue("run", id).log(message, values);
    }

    /// Has something put into the history, as an event of its own: for rare things only.
    void note(RunNote.Kind kind, Optional<Long> position, Map<String, String> detail) {
        tell(new Internal.Note(List.of(noted(kind, position, detail))));
    }

    /// Such an entry, of now and here.
    RunNote noted(RunNote.Kind kind, Optional<Long> position, Map<String, String> detail) {
        return new RunNote(now(), Optional.of(node), kind, position, Optional.empty(), detail);
    }
}
