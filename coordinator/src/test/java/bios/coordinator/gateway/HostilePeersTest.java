package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.client.Batch;
import bios.client.BiosClient;
import bios.client.ClientSettings;
import bios.client.TrainingRun;
import bios.coordinator.Metrics;
import bios.protocol.client.Answer;
import bios.protocol.client.Request;
import bios.protocol.run.AdamParams;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import java.util.stream.LongStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Peers that do not speak the protocol, or too much of it, at the port of the actor protocol; and a network
/// that passes nothing on. `deploy/src/test/python/hostile_peers.py` does the same for longer.
class HostilePeersTest {
    private static final String MODEL = TestService.MODEL.name().value();
    private static final int MOST = 24;
    @TempDir private static Path folder;
    private static int port;
    private static HoldingProxy toGateway;
    private static RealService service;
    private static BiosClient client;

    @BeforeAll static void start() throws Exception {
        port = DoorsTest.freePort();
        // A name for the gateway by which a client reaches it through the proxy.
        toGateway = new HoldingProxy(new InetSocketAddress("127.0.0.3", port),
                new InetSocketAddress("127.0.0.1", port));
        service = new RealService(folder, Accounts.open(), "long-poll = 2 s, actors { enabled = on, host ="
                + " \"127.0.0.3\", bind-host = \"127.0.0.1\", port = " + port + ", max-connections = " + MOST
                + ", header-timeout = 500 ms }");
        client = BiosClient.connect(ClientSettings.of("127.0.0.3:" + port)
                .withSilence(Duration.ofSeconds(3)));
        get(client.models());
    }

    @AfterAll static void stop() {
        client.close();
        service.close();
        toGateway.close();
    }

    private static <T> T get(CompletionStage<T> stage) throws Exception {
        return stage.toCompletableFuture().get(60, TimeUnit.SECONDS);
    }

    private static Socket connect(byte[] first) throws IOException {
        var socket = new Socket("127.0.0.1", port);
        socket.setSoTimeout(20_000);
        socket.getOutputStream().write(first);
        socket.getOutputStream().flush();
        return socket;
    }

    private static byte[] text(String text) {
        return text.getBytes(StandardCharsets.ISO_8859_1);
    }

    private static byte[] frame(int length, byte[] content) {
        return ByteBuffer.allocate(9 + content.length).order(ByteOrder.LITTLE_ENDIAN).put(text("AKKA"))
                .put((byte) 2).putInt(length).put(content).array();
    }

    private static boolean isEnded(Socket socket) {
        try (socket) {
            return socket.getInputStream().read() < 0;
        } catch (IOException reset) {
            return !(reset instanceof java.net.SocketTimeoutException);
        }
    }

    private static double refused(String reason) {
        return Metrics.ACTOR_CONNECTIONS_REFUSED.labelValues(reason).get();
    }

    @Test void whoSaysNothingOrSomethingElseIsDisconnected() throws Exception {
        double before = refused("header");
        for (String said : List.of("", "AK", "GET / HTTP/1.1\r\n\r\n", "\u0016\u0003\u0001\u0002"))
            assertTrue(isEnded(connect(text(said))), said);
        assertEquals(4, refused("header") - before);
        assertEquals(1, get(client.models()).size());
    }

    @Test void aFrameThatIsTooLargeIsNotEvenReceived() throws Exception {
        double before = refused("frame");
        for (int length : new int[] {Integer.MAX_VALUE, -1, (1 << 19) + 1})
            assertTrue(isEnded(connect(frame(length, new byte[100]))));
        assertEquals(3, refused("frame") - before);
        assertEquals(1, get(client.models()).size());
    }

    @Test void framesOfGarbageHurtNobody() throws Exception {
        var random = new Random(3);
        for (int i = 0; i < 40; i++) {
            byte[] garbage = new byte[random.nextInt(5000)];
            random.nextBytes(garbage);
            try (Socket socket = connect(frame(garbage.length, garbage))) {
                assertTrue(socket.isConnected());
            } catch (IOException _) {
                // Cut off while it was still writing: too many of these are open.
            }
        }
        assertEquals(1, get(client.models()).size());
        try (var another = BiosClient.connect(ClientSettings.of("127.0.0.3:" + port))) {
            assertEquals(1, get(another.models()).size());
        }
    }

    @Test void moreConnectionsThanAllowedAreClosedAndClientsThatAreThereGoOn() throws Exception {
        double before = refused("connections");
        var sockets = new ArrayList<Socket>();
        for (int i = 0; i < 10 * MOST; i++) {
            try {
                sockets.add(connect(i % 2 == 0 ? text("AKKA\u0001") : new byte[0]));
            } catch (IOException closed) {
                // before it has said anything
            }
            assertTrue(Metrics.ACTOR_CONNECTIONS.get() <= MOST, () -> "" + Metrics.ACTOR_CONNECTIONS.get());
        }
        assertEquals(1, get(client.models()).size());
        for (int i = 0; i < 100 && refused("connections") - before < 5 * MOST; i++)
            Thread.sleep(50); // edge: until the port has seen them all
        assertTrue(refused("connections") - before >= 5 * MOST);
        for (Socket socket : sockets) socket.close();
        try (var another = BiosClient.connect(ClientSettings.of("127.0.0.3:" + port))) {
            assertEquals(1, get(another.models()).size());
        }
    }

    @Test void lengthsOfFramesAreFoundHoweverTheBytesAreCut() {
        var random = new Random(7);
        for (int round = 0; round < 200; round++) {
            var all = ByteBuffer.allocate(1 << 16).order(ByteOrder.LITTLE_ENDIAN).put((byte) 1);
            for (int i = 0; i < 20; i++) {
                int length = random.nextInt(1000);
                all.putInt(length).position(all.position() + length);
            }
            boolean wrong = random.nextBoolean();
            if (wrong) all.putInt(random.nextBoolean() ? 1001 : -random.nextInt(1000) - 1);
            byte[] bytes = all.array();
            var frames = new BoundedAcceptor.Frames(1000);
            boolean passed = true;
            for (int at = 0; at < all.position();) {
                int count = Math.min(1 + random.nextInt(700), all.position() - at);
                passed &= frames.pass(java.util.Arrays.copyOfRange(bytes, at, at + count), count);
                at += count;
            }
            assertEquals(!wrong, passed);
        }
    }

    @Test void aNetworkThatPassesNothingOnChangesNoResult() throws Exception {
        int own = DoorsTest.freePort();
        try (var toClient = new HoldingProxy(new InetSocketAddress("127.0.0.4", own),
                new InetSocketAddress("127.0.0.5", own));
                var cut = BiosClient.connect(ClientSettings.of("127.0.0.3:" + port)
                        .reachedAt("127.0.0.4", own).listeningOn("127.0.0.5")
                        .withSilence(Duration.ofSeconds(3)))) {
            TrainingRun run = get(cut.createRun(MODEL, Request.Adapter.ofRank(4)));
            var batch = Batch.ofTexts(List.of(new int[] {1, 2, 3}));
            List<CompletionStage<Answer.Stepped>> steps = new ArrayList<>();
            for (int i = 0; i < 30; i++) {
                run.forwardBackward(batch);
                steps.add(run.optimStep(AdamParams.DEFAULT));
                if (i == 10) {
                    toGateway.hold(true);
                    toClient.hold(true);
                }
            }
            // Others are served meanwhile, through the port itself.
            assertEquals(200, service.get("training_runs").status());
            Thread.sleep(4000); // edge: longer than the gateway may be silent
            assertFalse(steps.getLast().toCompletableFuture().isDone());
            toGateway.hold(false);
            toClient.hold(false);
            for (var step : steps) get(step);
            assertEquals(LongStream.rangeClosed(1, 60).boxed().toList(), get(run.metrics(100)).stream()
                    .map(Answer.OperationMetrics::seq).toList(), "none is missing, none was applied twice");
            assertEquals(60, service.get("training_runs/" + run.id() + "/timings").json().get("timings")
                    .size());
        }
    }

    @Test void aClientThatReadsNothingHoldsUpNobody() throws Exception {
        int own = DoorsTest.freePort();
        try (var toClient = new HoldingProxy(new InetSocketAddress("127.0.0.4", own),
                new InetSocketAddress("127.0.0.5", own));
                var deaf = BiosClient.connect(ClientSettings.of("127.0.0.3:" + port)
                        .reachedAt("127.0.0.4", own).listeningOn("127.0.0.5"))) {
            assertEquals(1, get(deaf.models()).size());
            toClient.hold(true);
            List<CompletionStage<?>> asked = new ArrayList<>();
            for (int i = 0; i < 3000; i++) asked.add(deaf.models());
            for (int i = 0; i < 20; i++) assertEquals(1, get(client.models()).size());
            assertFalse(asked.getLast().toCompletableFuture().isDone());
            toClient.hold(false);
            // What the transport has dropped is asked for again.
            for (CompletionStage<?> each : asked.subList(0, 100)) get(each);
        }
    }
}
