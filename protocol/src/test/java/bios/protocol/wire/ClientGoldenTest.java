package bios.protocol.wire;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.Fault;
import bios.protocol.client.Answer;
import bios.protocol.client.ClientMessage;
import bios.protocol.client.Problem;
import bios.protocol.client.Request;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import bios.protocol.run.Operation;
import bios.protocol.run.RunCommand;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SamplingParams;
import bios.protocol.stored.Samples;
import com.esotericsoftware.kryo.io.Input;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.IntPredicate;
import org.apache.pekko.actor.ExtendedActorSystem;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.javadsl.Adapter;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;

/// The bytes of the client protocol: those in `golden/client` are read by every later build of version 1, and
/// bytes of strangers do no harm. With `-Dgolden.write=true` missing files are written.
class ClientGoldenTest {
    private static final ActorTestKit KIT = ActorTestKit.create("golden");
    private static final ClientSerializer CLIENT =
            new ClientSerializer((ExtendedActorSystem) Adapter.toClassic(KIT.system()));
    private static final Path GOLDEN = Path.of("golden/client");
    private static final String RUN = Samples.RUN.value();
    /// In the names of the files of submitted operations.
    private static final int FIRST_SUBMIT = 52;
    private static final Map<String, String> FILTER = Map.of("project_id", "p");
    private static final String SESSION = "0a1b2c3d-0000-4000-8000-00000000000a";

    @AfterAll static void stop() {
        KIT.shutdownTestKit();
    }

    private static ActorRef<ClientMessage> nobody() {
        return KIT.system().deadLetters().unsafeUpcast();
    }

    private static List<ClientMessage> messages() {
        return List.of(new ClientMessage.Connect(1, 0, Optional.of("tml-key"), "trainer", "attempt",
                        nobody()),
                new ClientMessage.Connected(1, 0, "attempt", 60_000, nobody()),
                new ClientMessage.Refused("attempt", problem()), new ClientMessage.Ping(),
                new ClientMessage.Pong(), new ClientMessage.Close(),
                new ClientMessage.Payload(7, new byte[] {1, 2}), new ClientMessage.Offer(7, 300_000),
                new ClientMessage.Fetch(7, 1), new ClientMessage.Part(7, 1, new byte[] {1, 2}),
                new ClientMessage.Fetched(7));
    }

    private static Problem problem() {
        return new Problem(Fault.Kind.SERVER, "busy", "retry later", Optional.of("data[1]"),
                Optional.of("id"), 1);
    }

    private static List<Request> requests() {
        var params = new SamplingParams(Optional.of(16), Optional.of(1L), List.of("."), List.of(2), 0.7, 40,
                0.9);
        List<Request> all = new ArrayList<>(List.<Request>of(
                new Request.OpenSession(SESSION, List.of("tag"), "{}", "program"),
                new Request.KeepSession(SESSION), new Request.ListModels(),
                new Request.Tokenize("m", "text", true), new Request.Detokenize("m", new int[] {1}, false),
                new Request.CreateRun(SESSION, 1, "m",
                        Optional.of(Request.Adapter.ofRank(8).withSeed(3)), "{}"),
                new Request.CreateRunFrom(SESSION, 2, "bios://" + RUN + "/a", "{}"),
                new Request.Snapshot(RUN, 6, 1), new Request.Retrieve(RUN + ":5"),
                new Request.OpenSampler(SESSION, 1, Optional.of("m"), Optional.empty()),
                new Request.Sample(SESSION + ":sample:1", 3, new int[] {1, 2}, params, 2, true, 4),
                new Request.ListRuns(0, 20, FILTER), new Request.DescribeRun(RUN),
                new Request.ListCheckpoints(Optional.of(RUN), 0, 20, FILTER),
                new Request.DeleteCheckpoint("bios://" + RUN + "/a"),
                new Request.SetExpiry("bios://" + RUN + "/a", Optional.of(60L)),
                new Request.History(RUN, 10, Optional.of(7L)), new Request.Unload(RUN),
                new Request.TryAgain(RUN, Optional.of(5L)), new Request.GiveUp(RUN, Optional.of(5L))));
        all.addAll(List.of(new Request.Publish("bios://" + RUN + "/a", true),
                new Request.Metrics(RUN, 10, Optional.of(7L)), new Request.Usage(Optional.of("o"), FILTER),
                new Request.HourlyUsage(Optional.empty(), Optional.of(1L), Optional.empty())));
        // Uploads come over HTTP.
        Samples.operations().values().stream().filter(each -> !(each instanceof Operation.LoadUpload))
                .forEach(operation -> all.add(new Request.Submit(RUN, 5, operation)));
        return all;
    }

    private static List<Answer> answers() {
        var likeliest = Optional.of(List.of(List.of(new SampleResult.TokenLogprob(1, -2))));
        var sampled = new SampleResult(List.of(new SampleResult.Sequence(new int[] {1}, new float[] {-1},
                SampleResult.StopReason.STOP, Optional.of(new float[] {-2}), likeliest)),
                Optional.of(new float[] {-3}), likeliest);
        var checkpoint = checkpoint(true);
        var used = new Answer.UsageLine(Optional.of(RUN), "m", Optional.of("p"), Optional.of("s"), 1, 2, 3, 4,
                5, 0.5, 6);
        var run = new Answer.Run(RUN, "m", 8, 32, List.of("q_proj"), 3, 7, List.of(checkpoint), true, "{}",
                Optional.of("bios://" + RUN + "/a"), Optional.of("NaN"), Optional.of(
                        new Answer.Waiting(5, "optim_step", true, "out_of_memory", "no room")));
        return List.of(new Answer.Refused(problem()), new Answer.Done(), new Answer.SessionOpened(SESSION),
                new Answer.Models(List.of(new ModelInfo(new ModelName("m"), "LlamaForCausalLM", 2048, 32000,
                        64, 2, "bfloat16", 1_000_000, Optional.of("ab-cd")))),
                new Answer.Tokens(new int[] {1}), new Answer.Text("text"),
                new Answer.Submitted(RUN + ":5", Optional.of(RUN)), new Answer.Pending("why", true),
                new Answer.Failed(problem()), new Answer.Created(RUN), new Answer.Unloaded(RUN),
                new Answer.Evaluated(List.of(new float[] {-1, Float.MIN_VALUE}), Map.of("loss:sum", 1.5),
                        List.of(2)),
                new Answer.Stepped(3, Map.of("grad_norm", 0.5)),
                new Answer.Saved(Optional.of("bios://" + RUN + "/a"), Optional.of("sampler"), 3, "{}"),
                new Answer.Loaded(RUN, "bios://" + RUN + "/a", 3), new Answer.SamplerOpened("sampler"),
                new Answer.Sampled(sampled), new Answer.Runs(List.of(run), 1), run,
                new Answer.Checkpoints(List.of(checkpoint), 1), history(Optional.of(9L)),
                new Answer.Metrics(List.of(new Answer.OperationMetrics(3, 5, "optim_step", 2,
                        Map.of("grad_norm", 0.5), Optional.of("invalid"), 7))),
                new Answer.Usage("o", used, List.of(used), List.of()), new Answer.HourlyUsage(List.of(
                        new Answer.UsageEvent(7, "m", Optional.of("s"), Optional.of("p"), "training", 9))));
    }

    private static Answer.Checkpoint checkpoint(boolean published) {
        return new Answer.Checkpoint("bios://" + RUN + "/a", true, 9, 3, 7, Optional.of(8L), "{}", published);
    }

    private static Answer.History history(Optional<Long> number) {
        return new Answer.History(List.of(new Answer.HistoryEntry(7, Optional.of("node"), "opened",
                Optional.of(1L), Optional.of(5L), Map.of("replay", "3"), number)));
    }

    private static Map<String, byte[]> encoded() {
        Map<String, byte[]> all = new TreeMap<>();
        messages().forEach(message -> all.put(name(message), CLIENT.toBinary(message)));
        answers().forEach(answer -> all.put(name(answer), ClientSerializer.encode(answer)));
        int submit = FIRST_SUBMIT;
        for (Request request : requests())
            all.put(request instanceof Request.Submit(_, _, var operation)
                    ? name(request) + "." + submit++ + "." + operation.getClass().getSimpleName()
                    : name(request), ClientSerializer.encode(request));
        return all;
    }

    private static String name(Object value) {
        return value.getClass().getName().replaceAll(".*\\.", "").replace('$', '.');
    }

    private static Object read(byte[] bytes) {
        return CLIENT.fromBinary(bytes, CLIENT.manifest(""));
    }

    @Test void bytesOfEarlierBuildsAreReadAndNothingIsLost() throws Exception {
        for (var entry : encoded().entrySet()) {
            byte[] now = entry.getValue();
            Path file = file(entry.getKey(), GROWN.getOrDefault(entry.getKey(), 0));
            if (Boolean.getBoolean("golden.write") && !Files.exists(file)) {
                Files.createDirectories(GOLDEN);
                Files.writeString(file, HexFormat.of().formatHex(now) + "\n");
            }
            byte[] old = HexFormat.of().parseHex(Files.readString(file).strip());
            Object back = read(old);
            assertEquals(entry.getKey().split("\\.")[1], back.getClass().getSimpleName(), () ->
                    file + ": " + back);
            assertEquals(letters(read(now)), letters(back), file::toString);
            byte[] again = back instanceof ClientMessage m ? CLIENT.toBinary(m)
                    : ClientSerializer.encode(back);
            assertEquals(old.length, again.length, () -> file + " is read, and loses something");
        }
    }

    /// What a value says in any order, because maps have none, and without the addresses of its arrays.
    private static List<Integer> letters(Object value) {
        return value.toString().replaceAll("@[0-9a-f]+", "").chars().sorted().boxed().toList();
    }

    @Test void everyMessageRequestAndAnswerHasAGoldenFile() {
        var shown = new HashSet<Class<?>>(Set.of(ClientMessage.Unreadable.class));
        messages().forEach(value -> shown.add(value.getClass()));
        requests().forEach(value -> shown.add(value.getClass()));
        answers().forEach(value -> shown.add(value.getClass()));
        for (Class<?> root : List.of(ClientMessage.class, Request.class, Answer.class))
            for (Class<?> permitted : root.getPermittedSubclasses())
                assertTrue(shown.contains(permitted), permitted::getName);
    }

    /// Messages to which a minor version has added components, with the last one that did. `NAME.1.M.hex`
    /// has their bytes of minor version M and the next ones, `NAME.1.hex` those of minor version 0; of other
    /// messages, `NAME.1.hex` has those of the minor version that brought them.
    private static final Map<String, Integer> GROWN = Map.of("Request.ListRuns", 1,
            "Request.ListCheckpoints", 1, "Request.History", 1, "Answer.History", 1, "Answer.Checkpoints", 1,
            "Answer.Sampled", 1, "Answer.Run", 2, "Answer.Runs", 2, "Request.TryAgain", 2, "Request.GiveUp",
            2);

    /// The grown records as minor version 1 had them.
    private static final class Minor1 {
        record TryAgain(String run) {}

        record GiveUp(String run) {}

        record Run(String run, String baseModel, int rank, double alpha, List<String> targets, long step,
                long lastRequestMillis, List<?> checkpoints, boolean closed, String userMetadata,
                Optional<String> parent, Optional<String> corrupted) {}

        private static final Map<Integer, Class<?>> OTHER = Map.of(120, TryAgain.class, 121, GiveUp.class,
                218, Run.class);

        /// A build of minor version 1: it reads and writes these records, and knows nothing of later ones.
        static KryoPool build() {
            return older(id -> id < 229, OTHER);
        }
    }

    /// A build that knows some ids, and has other classes for some of them.
    private static KryoPool older(IntPredicate known, Map<Integer, Class<?>> other) {
        return new KryoPool(() -> new ClientKryo(registry -> new ClientTypes().registerTo((id, type) -> {
            if (known.test(id)) registry.add(id, other.getOrDefault(id, type));
        }), _ -> "", _ -> null));
    }

    /// The grown records as minor version 0 had them, where minor version 1 had others.
    private static final class Minor0 {
        record ListRuns(int offset, int limit) {}

        record ListCheckpoints(Optional<String> run, int offset, int limit) {}

        record History(String run, int limit) {}

        record HistoryEntry(long timeMillis, Optional<String> node, String kind, Optional<Long> position,
                Optional<Long> seq, Map<String, String> detail) {}

        record Checkpoint(String path, boolean training, long bytes, long step, long createdAtMillis,
                Optional<Long> expiresAtMillis, String userMetadata) {}

        record Sequence(int[] tokens, float[] logprobs, SampleResult.StopReason stopReason,
                Optional<float[]> modelLogprobs) {}

        private static final Map<Integer, Class<?>> OTHER = new HashMap<>(Minor1.OTHER);

        static {
            OTHER.putAll(Map.of(55, Sequence.class, 113, ListRuns.class, 115, ListCheckpoints.class, 118,
                    History.class, 220, Checkpoint.class, 222, HistoryEntry.class));
        }

        /// A build of minor version 0: it reads and writes these records, and knows nothing of later ones.
        static KryoPool build() {
            return older(id -> id < 122 || id >= 200 && id < 223, OTHER);
        }
    }

    private static Path file(String name, int minor) {
        return GOLDEN.resolve(name + (minor == 0 ? ".1.hex" : ".1." + minor + ".hex"));
    }

    /// The bytes of a message in a minor version.
    private static byte[] bytes(String name, int minor) throws Exception {
        int newest = minor;
        while (newest > 0 && !Files.exists(file(name, newest))) newest--;
        return HexFormat.of().parseHex(Files.readString(file(name, newest)).strip());
    }

    private static byte[] minor0(String name) throws Exception {
        return bytes(name, 0);
    }

    @Test void aBuildOfTheMinorVersionBeforeIsUnderstood() throws Exception {
        assertEquals(new Request.ListRuns(0, 20, Map.of()),
                ClientSerializer.decode(minor0("Request.ListRuns")));
        assertEquals(new Request.ListCheckpoints(Optional.of(RUN), 0, 20, Map.of()),
                ClientSerializer.decode(minor0("Request.ListCheckpoints")));
        assertEquals(new Request.History(RUN, 10, Optional.empty()),
                ClientSerializer.decode(minor0("Request.History")));
        assertEquals(history(Optional.empty()), ClientSerializer.decode(minor0("Answer.History")));
        assertEquals(new Answer.Checkpoints(List.of(checkpoint(false)), 1),
                ClientSerializer.decode(minor0("Answer.Checkpoints")));
        assertEquals(new Request.TryAgain(RUN, Optional.empty()),
                ClientSerializer.decode(minor0("Request.TryAgain")));
        assertEquals(Optional.empty(), ((Answer.Run) ClientSerializer.decode(bytes("Answer.Run", 1)))
                .waiting());
        // These are the bytes that such a build writes.
        assertArrayEquals(minor0("Request.ListRuns"), Minor0.build().encode(new Minor0.ListRuns(0, 20)));
        assertArrayEquals(minor0("Request.GiveUp"), Minor1.build().encode(new Minor1.GiveUp(RUN)));
    }

    @Test void aBuildOfTheMinorVersionBeforeUnderstandsThisOne() throws Exception {
        KryoPool before = Minor0.build();
        for (Request request : requests()) read(before, name(request), ClientSerializer.encode(request));
        for (Answer answer : answers()) read(before, name(answer), ClientSerializer.encode(answer));
        readByMinor1();
        assertEquals(new Minor0.History(RUN, 10), before.read(new Input(ClientSerializer.encode(
                new Request.History(RUN, 10, Optional.of(7L))))));
        assertEquals(new Minor0.ListRuns(0, 20), before.read(new Input(ClientSerializer.encode(
                new Request.ListRuns(0, 20, FILTER)))));
    }

    private static void readByMinor1() throws Exception {
        KryoPool before = Minor1.build();
        for (Request request : requests()) read1(before, name(request), ClientSerializer.encode(request));
        for (Answer answer : answers()) read1(before, name(answer), ClientSerializer.encode(answer));
        assertEquals(new Minor1.TryAgain(RUN), before.read(new Input(ClientSerializer.encode(
                new Request.TryAgain(RUN, Optional.of(5L))))));
    }

    /// All is read, to the last component that minor version 1 knows.
    private static void read1(KryoPool before, String name, byte[] now) throws Exception {
        int wanted = GROWN.getOrDefault(name, 0) > 1 ? bytes(name, 1).length : now.length;
        assertEquals(wanted, before.encode(before.read(new Input(now))).length, name);
    }

    /// What is new is refused, and the gateway says so; all else is read, to the last known component.
    private static void read(KryoPool before, String name, byte[] now) throws Exception {
        if (NEW.contains(name)) {
            assertThrows(RuntimeException.class, () -> before.read(new Input(now)), name);
            return;
        }
        Object read = before.read(new Input(now));
        // Maps have no order.
        int wanted = GROWN.containsKey(name) ? minor0(name).length : now.length;
        assertEquals(wanted, before.encode(read).length, name);
    }

    /// Messages that minor version 1 has brought.
    private static final Set<String> NEW = Set.of("Request.Publish", "Request.Metrics", "Request.Usage",
            "Request.HourlyUsage", "Answer.Metrics", "Answer.Usage", "Answer.HourlyUsage");

    /// A record of one minor version, and of the next.
    record Old(long id, String text, Inner inner) {}

    record New(long id, String text, Inner inner, Optional<String> added, List<Inner> more) {}

    record Inner(int value) {}

    private static ClientKryo kryo(Class<?> version) {
        return new ClientKryo(registry -> {
            registry.add(20, version);
            registry.add(21, Inner.class);
        }, _ -> "", _ -> null);
    }

    @Test void anOlderBuildReadsPastWhatWasAddedAndANewerOneFindsItAbsent() {
        var old = new KryoPool(() -> kryo(Old.class));
        var now = new KryoPool(() -> kryo(New.class));
        var inner = new Inner(3);
        assertEquals(new Old(7, "text", inner), old.read(new Input(now.encode(
                new New(7, "text", inner, Optional.of("x"), List.of(new Inner(4)))))));
        assertEquals(new New(7, "text", inner, Optional.empty(), List.of()),
                now.read(new Input(old.encode(new Old(7, "text", inner)))));
    }

    @Test void lengthsThatTheBytesDoNotHoldAllocateNothing() {
        byte[] tokens = ClientSerializer.encode(new Answer.Tokens(new int[] {1, 2, 3}));
        int at = tokens.length - 16; // the length of the array
        assertEquals(3, tokens[at]);
        for (int claimed : new int[] {4, 1 << 29, Integer.MAX_VALUE, -1}) {
            for (int i = 0; i < 4; i++) tokens[at + i] = (byte) (claimed >>> 8 * i);
            assertThrows(RuntimeException.class, () -> ClientSerializer.decode(tokens));
        }
    }

    /// Kryo would allocate what the length of a name claims, before it looks at the name.
    @Test void aClassIsNotNamed() {
        byte[] named = {1, 0, -1, -1, -1, -1, 0x0f};
        assertInstanceOf(ClientMessage.Unreadable.class, read(named));
        assertThrows(RuntimeException.class, () -> ClientSerializer.decode(named));
    }

    @Test void whatElementsTakeOnTheHeapIsToldBeforeTheyAreRead() {
        List<?> empty = Collections.nCopies(1000, List.of());
        @SuppressWarnings("unchecked") // a stranger's bytes have no type parameters
        byte[] request = ClientSerializer.encode(new Request.OpenSession("s", (List<String>) empty, "{}",
                ""));
        var told = new AtomicLong();
        ClientSerializer.decode(request, told::addAndGet);
        assertTrue(told.get() >= 52_000, () -> told + " bytes");
        assertThrows(UnsupportedOperationException.class, () -> ClientSerializer.decode(request, _ -> {
            throw new UnsupportedOperationException();
        }));
    }

    @Test void deepNestingEndsBeforeTheStack() {
        // 10: the id of a list, as Kryo writes it; one element each
        byte[] nested = new byte[200_000];
        for (int i = 0; i < nested.length; i += 2) {
            nested[i] = 12;
            nested[i + 1] = 1;
        }
        assertInstanceOf(ClientMessage.Unreadable.class, read(nested));
    }

    @Test void damagedBytesAreRefusedAndThrowNothingElse() {
        var random = new Random(7);
        var all = List.copyOf(encoded().values());
        for (int i = 0; i < 20_000; i++) {
            byte[] bytes = all.get(random.nextInt(all.size())).clone();
            for (int k = random.nextInt(4); k >= 0; k--)
                bytes[random.nextInt(bytes.length)] = (byte) random.nextInt(256);
            read(bytes);
        }
    }

    @Test void aMessageOfTheClusterIsNoMessageHere() {
        var unload = new WireSerializer((ExtendedActorSystem) Adapter.toClassic(KIT.system()))
                .toBinary(new RunCommand.Unload("owner", KIT.system().deadLetters()
                        .unsafeUpcast()));
        Object read = read(unload);
        assertTrue(!(read instanceof ClientMessage) || read instanceof ClientMessage.Unreadable, () ->
                "" + read);
        assertThrows(IllegalArgumentException.class, () ->
                ClientSerializer.encode(new RunCommand.Leave()));
    }

    @Test void aPayloadHoldsNoReferenceToAnActor() {
        byte[] connect = CLIENT.toBinary(messages().getFirst());
        assertThrows(RuntimeException.class, () -> ClientSerializer.decode(connect));
    }
}
