package bios.protocol.client;

import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;

/// What a JVM client and the gateway send each other. A client sends [Connect] to the gateway's path and gets
/// the reference of a session of its own, to which it sends everything else; the session ends with [Close],
/// or when nothing was heard of the client for a while. Requests and answers travel as [Payload]s, those that
/// are larger than [#PART_BYTES] as parts: the sender offers one, the receiver fetches part after part.
public sealed interface ClientMessage {
    /// The version of the protocol. Both sides must have the same.
    int VERSION = 1;
    /// The minor version: raised with each addition, so that a client can tell what a gateway does not know.
    /// 1: history after a number, metrics of operations, usage, publication, filters of listings.
    /// 2: the number of the operation that is tried again or given up.
    int MINOR = 2;
    /// Largest payload of one message, and the size of a part.
    int PART_BYTES = 256 << 10;

    /// Opens a session. Reply: [Connected], or [Refused] and nothing else.
    ///
    /// @param key as in the header `X-API-Key`
    /// @param client names the program, for logs
    /// @param attempt random; the reply has the same
    record Connect(int version, int minor, Optional<String> key, String client, String attempt,
            ActorRef<ClientMessage> replyTo) implements ClientMessage {}

    /// The session is open.
    ///
    /// @param silenceMillis a session ends if it hears nothing for so long
    record Connected(int version, int minor, String attempt, long silenceMillis,
            ActorRef<ClientMessage> session) implements ClientMessage {}

    /// There is no session, for this reason.
    record Refused(String attempt, Problem why) implements ClientMessage {}

    /// Asks whether the session is there. Reply: [Pong].
    record Ping() implements ClientMessage {}

    /// The session is there.
    record Pong() implements ClientMessage {}

    /// Ends the session.
    record Close() implements ClientMessage {}

    /// A request, or its answer, encoded.
    ///
    /// @param id chosen by the client, unique in its lifetime; the answer has the same. A request that is
    ///     sent again with its id while it is being answered is answered once
    record Payload(long id, byte[] bytes) implements ClientMessage {}

    /// A payload that is larger than a message; the sender keeps it for a while.
    record Offer(long id, int bytes) implements ClientMessage {}

    /// Asks for a part, from 0. Reply: [Part], or nothing if the payload is not kept any more.
    record Fetch(long id, int index) implements ClientMessage {}

    /// A part of a payload: [#PART_BYTES], the last one less.
    record Part(long id, int index, byte[] bytes) implements ClientMessage {}

    /// All parts have arrived.
    record Fetched(long id) implements ClientMessage {}

    /// Bytes that are no message of this protocol. Never sent: the serializer makes it.
    record Unreadable(String why) implements ClientMessage {}
}
