package bios.worker.engine;

import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.sampling.SampleTask;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;

/// A sampling request that is not answered, and the actor that gets the answer.
record PendingSample(SampleTask task, ActorRef<EngineReply> replyTo) {
    /// The adapter that it needs.
    Optional<AdapterCache.Key> key() {
        return task.adapter().map(a -> new AdapterCache.Key(task.baseModel(), a.contentId(), a.lora()));
    }
}
