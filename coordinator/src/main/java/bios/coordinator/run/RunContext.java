package bios.coordinator.run;

import bios.protocol.run.RunId;
import bios.protocol.wire.Message;
import java.time.Duration;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import java.util.function.BiFunction;
import java.util.function.Supplier;
import org.apache.pekko.actor.typed.javadsl.ActorContext;
import org.apache.pekko.actor.typed.javadsl.TimerScheduler;

/// The parts that the components of a run's entity share: the run's id, its environment, and the actor's
/// mailbox, timers and log. The outcome of asynchronous work arrives as a [SelfMessage]. Belongs to one
/// actor.
///
/// @param node name of the entity's node
record RunContext(RunId id, RunEnvironment environment, String node, ActorContext<Message> actor,
        TimerScheduler<Message> timers) {
    RunSettings settings() {
        return environment.settings();
    }

    /// The time in epoch milliseconds.
    long now() {
        return environment.clock().millis();
    }

    /// Milliseconds of a clock that only runs forward, from any beginning: for how long something lasts.
    long elapsedMillis() {
        return TimeUnit.NANOSECONDS.toMillis(environment.nanos().getAsLong());
    }

    /// Adds a message to the entity's mailbox. Called on the actor's thread only.
    void tell(SelfMessage message) {
        actor.getSelf().tell(message);
    }

    /// Adds a message after `time`; replaces a message that is scheduled under the same key.
    void after(Duration time, Object key, SelfMessage message) {
        timers.startSingleTimer(key, message, time);
    }

    /// Cancels the message that is scheduled under `key`.
    void cancel(Object key) {
        timers.cancel(key);
    }

    /// Executes blocking work on another thread and sends the outcome to the entity.
    ///
    /// @param message builds the message from the value or the failure
    <T> void later(Supplier<T> work, BiFunction<T, Throwable, SelfMessage> message) {
        whenDone(environment.later(work), message);
    }

    /// Sends the outcome of `stage` to the entity.
    <T> void whenDone(CompletionStage<T> stage, BiFunction<T, Throwable, SelfMessage> message) {
        actor.pipeToSelf(stage, message::apply);
    }

    void warn(String message, Object... values) {
        actor.getLog().atWarn().addKeyValue("run", id).log(message, values);
    }
}
