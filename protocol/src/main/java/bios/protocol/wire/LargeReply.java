package bios.protocol.wire;

import org.apache.pekko.actor.typed.ActorRef;

/// Stands for a [Reply] that is larger than a frame: its bytes are fetched in parts from the process that
/// sent it, with [Outbox#fetch].
///
/// @param id of the reply in that process
/// @param bytes size of the encoded reply
/// @param from has its parts, for a limited time
public record LargeReply(long id, int bytes, ActorRef<Outbox.Command> from) implements Message {}
