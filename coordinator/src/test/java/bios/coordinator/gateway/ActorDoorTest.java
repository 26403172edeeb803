package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.client.BiosClient;
import bios.client.BiosException;
import bios.client.ClientSettings;
import bios.protocol.client.Answer;
import bios.protocol.client.ClientMessage;
import bios.protocol.client.ClientTransport;
import bios.protocol.client.Request;
import bios.protocol.client.TransportLogLimit;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunId;
import bios.protocol.wire.ClientSerializer;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.apache.pekko.actor.ActorSelection;
import org.apache.pekko.actor.PoisonPill;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.actor.testkit.typed.javadsl.TestProbe;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorRefResolver;
import org.apache.pekko.actor.typed.javadsl.Adapter;
import org.apache.pekko.serialization.SerializationExtension;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import scala.jdk.javaapi.CollectionConverters;

/// What the server of the actor protocol refuses, and that it goes on serving others.
class ActorDoorTest {
    private static final Duration NOTHING = Duration.ofMillis(700);
    private static final int UNREAD = 16 << 10;
    private static final int REQUESTS = 500;
    @TempDir private static Path folder;
    private static int port;
    private static RealService service;
    private static ActorTestKit stranger;
    private static ActorTestKit member;

    @BeforeAll static void start() throws Exception {
        port = DoorsTest.freePort();
        service = new RealService(folder, Accounts.fromLines("keys", List.of("alice tml-alice-key")),
                "long-poll = 2 s, max-body-bytes = 1 MiB, actors { enabled = on, max-sessions = 4,"
                        + " unread-bytes = 16 KiB, port = " + port + " }");
        stranger = ActorTestKit.create("stranger", new ClientTransport("127.0.0.1", 0, Optional.empty(),
                Optional.empty(), List.of(), "ERROR").over(ConfigFactory.load()));
        Config remote = ConfigFactory.parseString("""
                pekko.actor.provider = remote
                pekko.loglevel = ERROR
                pekko.actor.allow-java-serialization = on
                pekko.remote.warn-about-direct-use = off
                pekko.remote.artery.canonical { hostname = "127.0.0.1", port = 0 }
                """).withFallback(ConfigFactory.load());
        member = ActorTestKit.create("member", remote);
    }

    @AfterAll static void stop() {
        stranger.shutdownTestKit();
        member.shutdownTestKit();
        service.close();
    }

    private static String address(String path) {
        return "pekko://" + ClientTransport.SYSTEM + "@127.0.0.1:" + port + path;
    }

    private static ActorSelection selection(ActorTestKit from, String path) {
        return Adapter.toClassic(from.system()).actorSelection(address(path));
    }

    private static ClientMessage.Connect connect(int version, String key, ActorRef<ClientMessage> replyTo) {
        return new ClientMessage.Connect(version, 0, Optional.of(key), "test", "attempt-1", replyTo);
    }

    private static <T> T get(CompletionStage<T> stage) throws Exception {
        return stage.toCompletableFuture().get(60, TimeUnit.SECONDS);
    }

    private static ActorRef<ClientMessage> opened(TestProbe<ClientMessage> probe) {
        selection(stranger, ClientTransport.GATEWAY).tell(connect(ClientMessage.VERSION, "tml-alice-key",
                probe.ref()), org.apache.pekko.actor.ActorRef.noSender());
        var connected = probe.expectMessageClass(ClientMessage.Connected.class, Duration.ofSeconds(20));
        assertEquals("attempt-1", connected.attempt());
        return connected.session();
    }

    /// The server answers a client that it should admit.
    private static void assertOpen() {
        TestProbe<ClientMessage> probe = stranger.createTestProbe();
        ActorRef<ClientMessage> session = opened(probe);
        session.tell(new ClientMessage.Ping());
        probe.expectMessageClass(ClientMessage.Pong.class, Duration.ofSeconds(20));
        session.tell(new ClientMessage.Close());
    }

    @Test void aWrongKeyOrVersionIsRefusedWithAReason() {
        TestProbe<ClientMessage> probe = stranger.createTestProbe();
        for (var wrong : List.of(connect(ClientMessage.VERSION, "wrong-key", probe.ref()),
                connect(99, "tml-alice-key", probe.ref()))) {
            selection(stranger, ClientTransport.GATEWAY).tell(wrong,
                    org.apache.pekko.actor.ActorRef.noSender());
            var why = probe.expectMessageClass(ClientMessage.Refused.class, Duration.ofSeconds(20)).why();
            assertEquals(wrong.version() == 99 ? "unsupported" : "unauthenticated", why.code());
        }
        try (BiosClient client = BiosClient.connect(ClientSettings.of("127.0.0.1:" + port))) {
            var failed = assertThrows(ExecutionException.class, () -> get(client.models()));
            var refused = assertInstanceOf(BiosException.Refused.class, failed.getCause());
            assertEquals("unauthenticated", refused.code());
            assertTrue(refused.getMessage().contains("needs a key"), refused.getMessage());
        }
    }

    @Test void otherActorsCannotBeFoundAndTheRestOfTheSystemIgnoresStrangers() {
        TestProbe<ClientMessage> probe = stranger.createTestProbe();
        var connect = connect(ClientMessage.VERSION, "tml-alice-key", probe.ref());
        for (String path : List.of("/user", "/user/*", "/user/gateway/*", "/system/eventStreamUnsubscriber-1",
                "/", "/user/gateway/../gateway"))
            selection(stranger, path).tell(connect, org.apache.pekko.actor.ActorRef.noSender());
        var refs = ActorRefResolver.get(stranger.system());
        for (String path : List.of("/user", "/system", "/system/log1-Slf4jLogger"))
            refs.<ClientMessage>resolveActorRef(address(path)).tell(connect);
        selection(stranger, ClientTransport.GATEWAY).tell(PoisonPill.getInstance(),
                org.apache.pekko.actor.ActorRef.noSender());
        probe.expectNoMessage(NOTHING);
        assertOpen();
    }

    @Test void messagesOfTheClusterAndOtherClassesAreNotEvenRead() {
        TestProbe<RunCommand.RunReply> probe = member.createTestProbe();
        for (String path : List.of(ClientTransport.GATEWAY, "/user", "/system/sharding/run-usf-tiny")) {
            ActorSelection target = selection(member, path);
            for (Object message : List.of(new RunCommand.Describe("alice", probe.ref()),
                    new RunCommand.Unload("alice", probe.ref()), "text", 7L, PoisonPill.getInstance(),
                    new org.apache.pekko.actor.Identify(1)))
                target.tell(message, Adapter.toClassic(probe.ref()));
            ActorRefResolver.get(member.system()).<RunCommand>resolveActorRef(address(path))
                    .tell(new RunCommand.Describe("alice", probe.ref()));
        }
        probe.expectNoMessage(NOTHING);
        assertOpen();
    }

    @Test void theSystemOfTheDoorHasNoSerializerButItsOwn() {
        Config door = new ClientTransport("127.0.0.1", 0, Optional.empty(), Optional.empty(),
                List.of(ClientTransport.GATEWAY), "ERROR").over(ConfigFactory.load());
        assertEquals(false, door.getBoolean("pekko.actor.allow-java-serialization"));
        assertEquals(true, door.getBoolean("pekko.remote.artery.untrusted-mode"));
        // Java's disabled one, the container of selections, Artery's own, the client's; below 0 all refuse
        var ids = new TreeSet<Object>(CollectionConverters.asJava(SerializationExtension.get(
                stranger.system()).serializerByIdentity()).keySet());
        ids.remove(0); // null
        ids.removeIf(id -> (int) id < 0);
        assertEquals(new TreeSet<>(Set.<Object>of(1, 6, 17, 52_002)), ids);
    }

    @Test void aStrangerCannotFillTheLog() {
        var filter = new TransportLogLimit(null, Adapter.toClassic(stranger.system()).eventStream());
        long logged = IntStream.range(0, 1000).filter(_ -> filter.isErrorEnabled(String.class, "x")).count();
        assertTrue(logged >= 1 && logged <= 2, () -> logged + " messages");
        assertTrue(filter.isErrorEnabled(Integer.class, "x"));
        assertTrue(!filter.isWarningEnabled(Integer.class, "x"), "the level is ERROR");
    }

    @Test void anotherClientsSessionIsFoundByNobodyAndAnswersItsOwnerOnly() {
        TestProbe<ClientMessage> owner = stranger.createTestProbe();
        ActorRef<ClientMessage> session = opened(owner);
        assertTrue(session.path().name().matches("[0-9a-f]{32}"), session.path()::name);
        for (String name : List.of(session.path().name(), "*"))
            selection(stranger, "/user/gateway/" + name).tell(new ClientMessage.Ping(),
                    org.apache.pekko.actor.ActorRef.noSender());
        owner.expectNoMessage(NOTHING);
        session.tell(new ClientMessage.Close());
    }

    @Test void payloadsThatAreNoRequestsOrTooLargeAreRefused() {
        TestProbe<ClientMessage> probe = stranger.createTestProbe();
        ActorRef<ClientMessage> session = opened(probe);
        session.tell(new ClientMessage.Payload(1, new byte[] {77, 1, 2}));
        assertEquals("malformed_body", refusal(probe, 1));
        session.tell(new ClientMessage.Payload(2, ClientSerializer.encode(new Answer.Done())));
        assertEquals("malformed_body", refusal(probe, 2));
        session.tell(new ClientMessage.Offer(3, Integer.MAX_VALUE));
        assertEquals("body_too_large", refusal(probe, 3));
        session.tell(new ClientMessage.Offer(4, -1));
        session.tell(new ClientMessage.Part(5, 0, new byte[10]));
        session.tell(new ClientMessage.Fetch(6, 0));
        session.tell(new ClientMessage.Connected(1, 0, "x", 1, probe.ref()));
        session.tell(new ClientMessage.Payload(7, ClientSerializer.encode(new Request.ListModels())));
        var answer = probe.expectMessageClass(ClientMessage.Payload.class, Duration.ofSeconds(20));
        assertEquals(7, answer.id());
        assertInstanceOf(Answer.Models.class, ClientSerializer.decode(answer.bytes()));
        session.tell(new ClientMessage.Close());
    }

    private static String refusal(TestProbe<ClientMessage> probe, long id) {
        var payload = probe.expectMessageClass(ClientMessage.Payload.class, Duration.ofSeconds(20));
        assertEquals(id, payload.id());
        return ((Answer.Refused) ClientSerializer.decode(payload.bytes())).why().code();
    }

    @Test void aClientGetsNoMoreThanTheBoundUntilItHasReadWhatItGot() {
        TestProbe<ClientMessage> probe = stranger.createTestProbe();
        ActorRef<ClientMessage> session = opened(probe);
        byte[] request = ClientSerializer.encode(new Request.ListModels());
        for (int id = 1; id <= REQUESTS; id++) session.tell(new ClientMessage.Payload(id, request));
        var ids = new TreeSet<Long>();
        var offered = new ArrayList<Long>();
        int largest = 0;
        long bytes = 0;
        for (var message = next(probe); message.isPresent(); message = next(probe)) {
            if (message.get() instanceof ClientMessage.Offer(long id, int none)) {
                assertTrue(id < 0 && none == 0);
                offered.add(id);
            } else if (message.get() instanceof ClientMessage.Payload(long id, var answer)) {
                ids.add(id);
                bytes += answer.length;
                largest = Math.max(largest, answer.length);
            }
        }
        assertTrue(bytes >= UNREAD && bytes < UNREAD + largest, bytes + " bytes");
        session.tell(new ClientMessage.Fetched(-1)); // of no offer
        assertTrue(next(probe).filter(ClientMessage.Payload.class::isInstance).isEmpty());
        session.tell(new ClientMessage.Fetched(offered.getLast()));
        while (ids.size() < REQUESTS) {
            ClientMessage message = probe.receiveMessage(Duration.ofSeconds(20));
            if (message instanceof ClientMessage.Offer(long id, _))
                session.tell(new ClientMessage.Fetched(id));
            if (message instanceof ClientMessage.Payload(long id, _)) assertTrue(ids.add(id));
        }
        session.tell(new ClientMessage.Close());
    }

    /// The next message; empty if none comes for a while.
    private static Optional<ClientMessage> next(TestProbe<ClientMessage> probe) {
        try {
            return Optional.of(probe.receiveMessage(NOTHING));
        } catch (AssertionError none) {
            return Optional.empty();
        }
    }

    @Test void moreSessionsThanAllowedAreToldToWait() {
        TestProbe<ClientMessage> probe = stranger.createTestProbe();
        var sessions = IntStream.range(0, 4).mapToObj(_ -> opened(probe)).toList();
        selection(stranger, ClientTransport.GATEWAY).tell(connect(ClientMessage.VERSION, "tml-alice-key",
                probe.ref()), org.apache.pekko.actor.ActorRef.noSender());
        var why = probe.expectMessageClass(ClientMessage.Refused.class, Duration.ofSeconds(20)).why();
        assertEquals("busy", why.code());
        assertTrue(why.retryAfterSeconds() > 0);
        sessions.forEach(session -> session.tell(new ClientMessage.Close()));
        probe.expectNoMessage(NOTHING);
        assertOpen();
    }

    @Test void aSilentGatewayIsLeftForTheNextOneAndCallsFailWhenTheClientIsClosed() throws Exception {
        String nobody = "127.0.0.1:" + DoorsTest.freePort();
        var client = BiosClient.connect(ClientSettings.of(nobody, "127.0.0.1:" + port)
                .withKey("tml-alice-key").withSilence(Duration.ofSeconds(3)));
        assertEquals(1, get(client.models()).size());
        client.close();
        var failed = assertThrows(ExecutionException.class, () -> get(client.models()));
        assertEquals("client_closed", ((BiosException) failed.getCause()).code());
        get(client.closed());
        assertEquals("usf-tiny", new RunId("usf-tiny-0123456789ab").slug());
    }
}
