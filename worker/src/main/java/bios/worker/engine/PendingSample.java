package bios.worker.engine;

import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.sampling.SampleTask;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.pekko.actor.typed.ActorRef;

/// A sampling request that is not answered, and the actor that gets the answer.
///
/// @param followed whether the device's thread reports what it draws
/// @param cancelled whether the device's thread gives it up
record PendingSample(SampleTask task, ActorRef<EngineReply> replyTo, AtomicBoolean followed,
        AtomicBoolean cancelled) {
    PendingSample(SampleTask task, ActorRef<EngineReply> replyTo) {
        this(task, replyTo, new AtomicBoolean(), new AtomicBoolean());
    }

    /// The adapter that it needs.
    Optional<AdapterCache.Key> key() {
        return task.adapter().map(a -> new AdapterCache.Key(task.baseModel(), a.contentId(), a.lora()));
    }
}
