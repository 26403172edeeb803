package bios.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;

import bios.protocol.client.Answer;
import bios.protocol.client.ClientMessage;
import bios.protocol.client.ClientTransport;
import bios.protocol.client.Request;
import bios.protocol.run.RunId;
import bios.protocol.wire.ClientSerializer;
import com.typesafe.config.ConfigFactory;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.junit.jupiter.api.Test;

/// This build's client at a gateway of minor version 0, which answers with the bytes that one wrote.
class OlderGatewayTest {
    private static byte[] golden(String name) {
        try {
            return HexFormat.of().parseHex(Files.readString(Path.of("golden/client", name + ".1.hex"))
                    .strip());
        } catch (IOException unreadable) {
            throw new UncheckedIOException(unreadable);
        }
    }

    private static Behavior<Object> guardian() {
        return Behaviors.setup(context -> {
            context.spawn(gateway(), "gateway");
            return Behaviors.empty();
        });
    }

    private static Behavior<Object> gateway() {
        return Behaviors.setup(context -> Behaviors.receive(Object.class)
                .onMessage(ClientMessage.Connect.class, opening -> {
                    ActorRef<Object> session = context.spawn(session(opening.replyTo()), opening.attempt());
                    opening.replyTo().tell(new ClientMessage.Connected(ClientMessage.VERSION, 0,
                            opening.attempt(), 60_000, session.narrow()));
                    return Behaviors.same();
                }).build());
    }

    /// Answers as a build that ignores what it does not know, and refuses messages that it has not heard of.
    private static Behavior<Object> session(ActorRef<ClientMessage> client) {
        return Behaviors.receive(Object.class).onMessage(ClientMessage.Payload.class, payload -> {
            byte[] answer = switch (ClientSerializer.decode(payload.bytes())) {
                case Request.History _ -> golden("Answer.History");
                case Request.ListRuns _ -> golden("Answer.Runs");
                case Object _ -> golden("Answer.Refused");
            };
            client.tell(new ClientMessage.Payload(payload.id(), answer));
            return Behaviors.same();
        }).onMessage(ClientMessage.Ping.class, _ -> {
            client.tell(new ClientMessage.Pong());
            return Behaviors.same();
        }).onAnyMessage(_ -> Behaviors.same()).build();
    }

    private static <T> T get(CompletionStage<T> stage) throws Exception {
        return stage.toCompletableFuture().get(60, TimeUnit.SECONDS);
    }

    @Test void whatItHasWorksAndSubscriptionsSayThatItIsOlder() throws Exception {
        var transport = new ClientTransport("127.0.0.1", 0, Optional.empty(), Optional.empty(),
                List.of(ClientTransport.GATEWAY), "ERROR");
        ActorSystem<Object> system = ActorSystem.create(guardian(), ClientTransport.SYSTEM,
                transport.over(ConfigFactory.load()));
        String address = system.address().hostPort().replaceFirst(".*@", "");
        try (BiosClient client = BiosClient.connect(ClientSettings.of(address))) {
            TrainingRun run = client.run(new RunId("usf-tiny-0123456789ab"), 1);
            assertEquals(1, get(client.runs(0, 20)).total());
            Answer.HistoryEntry entry = get(run.history(10)).getFirst();
            assertEquals("opened", entry.kind());
            assertEquals(Optional.empty(), entry.number());
            try (Subscription subscription = run.onHistory(0, _ -> { })) {
                var failed = assertThrows(ExecutionException.class, () -> get(subscription.ended()));
                assertEquals("unsupported", assertInstanceOf(BiosException.Refused.class, failed.getCause())
                        .code());
            }
        }
        system.terminate();
    }
}
