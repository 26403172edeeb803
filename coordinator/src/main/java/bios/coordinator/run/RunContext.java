package bios.coordinator.run;

import bios.protocol.run.RunId;
import bios.protocol.wire.Message;
import java.time.Duration;
import java.util.concurrent.CompletionStage;
import java.util.function.BiFunction;
import java.util.function.Supplier;
import org.apache.pekko.actor.typed.javadsl.ActorContext;
import org.apache.pekko.actor.typed.javadsl.TimerScheduler;

/// What the parts of a run's entity share: the run's id, its environment, and the actor's mailbox, timers and
/// log. The outcome of asynchronous work arrives as a [SelfMessage]. Belongs to one actor.
///
/// @param node name of the entity's node
record RunContext(RunId id, RunEnvironment environment, String node, ActorContext<Message> actor,
        TimerScheduler<Message> timers) {
    RunSettings settings() {
        return environment.settings();
    }

    /// Epoch milliseconds.
    long now() {
        return environment.clock().millis();
    }

    /// Adds a message to the entity's mailbox. For the actor's own thread.
    void tell(SelfMessage message) {
        actor.getSelf().tell(message);
    }

    /// Adds it after `time`, in place of the message that was to come under the same key.
    void after(Duration time, Object key, SelfMessage message) {
        timers.startSingleTimer(key, message, time);
    }

    /// Cancels the message that was to come under `key`.
    void cancel(Object key) {
        timers.cancel(key);
    }

    /// Does blocking work on another thread and sends the entity its outcome.
    ///
    /// @param message made of the value, or of the failure
    <T> void later(Supplier<T> work, BiFunction<T, Throwable, SelfMessage> message) {
        whenDone(environment.later(work), message);
    }

    /// Sends the entity the outcome of `stage`.
    <T> void whenDone(CompletionStage<T> stage, BiFunction<T, Throwable, SelfMessage> message) {
        actor.pipeToSelf(stage, message::apply);
    }

    void warn(String message, Object... values) {
        actor.getLog().atWarn().addKeyValue("run", id).log(message, values);
    }
}
