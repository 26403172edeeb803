package bios.client;

import bios.protocol.client.Answer;
import bios.protocol.client.ClientMessage;
import bios.protocol.client.ClientTransport;
import bios.protocol.client.Problem;
import bios.protocol.client.Request;
import bios.protocol.wire.ClientSerializer;
import com.typesafe.config.ConfigFactory;
import java.util.List;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.javadsl.Behaviors;

/// A gateway that a test writes: it opens sessions, answers pings, and passes requests on.
final class ScriptedGateway implements AutoCloseable {
    /// What a session does. One message at a time.
    interface Session {
        /// A request has come.
        void on(Caller caller, Request request);

        /// The client has asked whether the session is there.
        default void pinged() {}
    }

    /// Who waits for the answer to a request. Thread-safe.
    record Caller(ActorRef<ClientMessage> client, long id) {
        void answer(Answer answer) {
            answer(ClientSerializer.encode(answer));
        }

        void answer(byte[] encoded) {
            client.tell(new ClientMessage.Payload(id, encoded));
        }
    }

    private final ActorSystem<Object> system;

    /// @param minor version of the protocol
    ScriptedGateway(int minor, Session session) {
        this(gateway(minor, session));
    }

    /// A gateway that opens no session.
    static ScriptedGateway refusing(Problem why) {
        return new ScriptedGateway(Behaviors.receive(Object.class).onMessage(ClientMessage.Connect.class,
                opening -> {
                    opening.replyTo().tell(new ClientMessage.Refused(opening.attempt(), why));
                    return Behaviors.same();
                }).build());
    }

    private ScriptedGateway(Behavior<Object> gateway) {
        var transport = new ClientTransport("127.0.0.1", 0, Optional.empty(), Optional.empty(),
                List.of(ClientTransport.GATEWAY), "ERROR");
        system = ActorSystem.create(Behaviors.setup(context -> {
            context.spawn(gateway, "gateway");
            return Behaviors.empty();
        }), ClientTransport.SYSTEM, transport.over(ConfigFactory.load()));
    }

    private static Behavior<Object> gateway(int minor, Session session) {
        return Behaviors.setup(context -> Behaviors.receive(Object.class)
                .onMessage(ClientMessage.Connect.class, opening -> {
                    ActorRef<Object> opened = context.spawn(session(opening.replyTo(), session),
                            opening.attempt());
                    opening.replyTo().tell(new ClientMessage.Connected(ClientMessage.VERSION, minor,
                            opening.attempt(), 60_000, opened.narrow()));
                    return Behaviors.same();
                }).build());
    }

    private static Behavior<Object> session(ActorRef<ClientMessage> client, Session session) {
        return Behaviors.receive(Object.class).onMessage(ClientMessage.Payload.class, payload -> {
            session.on(new Caller(client, payload.id()),
                    (Request) ClientSerializer.decode(payload.bytes()));
            return Behaviors.same();
        }).onMessage(ClientMessage.Ping.class, _ -> {
            session.pinged();
            client.tell(new ClientMessage.Pong());
            return Behaviors.same();
        }).onAnyMessage(_ -> Behaviors.same()).build();
    }

    /// `HOST:PORT`.
    String address() {
        return system.address().hostPort().replaceFirst(".*@", "");
    }

    @Override public void close() {
        system.terminate();
    }
}
