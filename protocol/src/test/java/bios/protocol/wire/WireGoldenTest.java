package bios.protocol.wire;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.Fault;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import bios.protocol.model.UnservedModel;
import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationMetrics;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RequestId;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunUsage;
import bios.protocol.owner.OwnerCommand;
import bios.protocol.owner.OwnerCommand.OwnerReply;
import bios.protocol.run.DeathReport;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.StoredOperation;
import bios.protocol.run.WaitingOperation;
import bios.protocol.run.OperationTiming;
import bios.protocol.sampling.DrawnTokens;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingCommand;
import bios.protocol.sampling.SamplingCommand.SamplingReply;
import bios.protocol.sampling.SamplingParams;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import bios.protocol.stored.Samples;
import bios.protocol.stored.StoredOperations;
import java.io.NotSerializableException;
import java.nio.BufferOverflowException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import org.apache.pekko.actor.ExtendedActorSystem;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.javadsl.Adapter;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;

/// One message of every class is encoded and decoded with Kryo; the bytes of this wire version are in
/// `golden/wire`. A message that differs there needs a new [WireSerializer#VERSION]. With
/// `-Dgolden.write=true` missing files are written.
class WireGoldenTest {
    private static final ActorTestKit KIT = ActorTestKit.create("golden");
    private static final WireSerializer WIRE =
            new WireSerializer((ExtendedActorSystem) Adapter.toClassic(KIT.system()));
    private static final Path GOLDEN = Path.of("golden/wire");

    @AfterAll static void stop() {
        KIT.shutdownTestKit();
    }

    private static <T> ActorRef<T> nobody() {
        return KIT.system().deadLetters().unsafeUpcast();
    }

    private static List<Message> messages() {
        var all = new ArrayList<Message>();
        runMessages(all);
        engineMessages(all);
        sessionMessages(all);
        samplingMessages(all);
        ownerMessages(all);
        all.add(new LargeReply(7, 100, nobody()));
        all.add(new Outbox.FetchPart(7, 1, nobody()));
        all.add(new Outbox.Part(7, 1, new byte[] {1, 2}));
        return all;
    }

    private static void runMessages(List<Message> all) {
        var request = new RequestId(Samples.RUN, 5);
        var name = new CheckpointName("a");
        all.add(new RunCommand.Create(Samples.CONFIG, nobody()));
        var stored = StoredOperations.inline(Samples.operations().get("forward-backward"));
        all.add(new RunCommand.Submit("owner", 5, stored,
                StoredOperations.digest(stored.encoded()), 9, nobody()));
        all.add(new RunCommand.Submit("owner", 5, refused(OperationKind.FORWARD_BACKWARD), "ab", 9,
                nobody()));
        all.add(new RunCommand.Retrieve("owner", 5, 100, nobody()));
        all.add(new RunCommand.CheckOwner("owner", nobody()));
        all.add(new RunCommand.Describe("owner", nobody()));
        all.add(new RunCommand.Summarize("owner", nobody()));
        all.add(new RunCommand.Resolve("owner",
                CheckpointPath.parse("bios://usf-finance-9f2c4be01a77/weights/a"), nobody()));
        all.add(new RunCommand.KeepWeights("owner", Samples.BLOB.id(), true, nobody()));
        all.add(new RunCommand.DeleteCheckpoint("owner", CheckpointKind.SAMPLER, name, nobody()));
        all.add(new RunCommand.Publish("owner", CheckpointKind.SAMPLER, name, true, nobody()));
        all.add(new RunCommand.SetProject("owner", Optional.of("p"), nobody()));
        all.add(new RunCommand.SetExpiry("owner", CheckpointKind.SAMPLER, name, Optional.of(7L), nobody()));
        all.add(new RunCommand.ReleaseSnapshots("owner", "session-1", nobody()));
        all.add(new RunCommand.Unload("owner", nobody()));
        all.add(new RunCommand.Retry("owner", Optional.of(5L), nobody()));
        all.add(new RunCommand.GiveUp("owner", Optional.of(5L), nobody()));
        all.add(new RunCommand.ReportDeath(new DeathReport(Samples.RUN, "worker-1", 3, 1, 2, 2, "it died")));
        all.add(new RunReply.Accepted(request));
        for (OperationResult result : Samples.results()) all.add(new RunReply.Completed(request, result));
        all.add(new RunReply.Failed(request, Fault.user("weights_only", "holds no optimizer")));
        all.add(new RunReply.Pending(request, 3));
        all.add(new RunReply.Described(Samples.CONFIG, Samples.LORA, 12, 99,
                List.of(Samples.MANIFEST), true, Optional.of("tensor 'a' has NaN at [0, 1]"),
                Optional.of(RunUsage.NONE.plus(7, 5, 3, 1000, 7_200_000)), Optional.of(
                        new WaitingOperation(5, OperationKind.OPTIM_STEP, true,
                                Fault.server("worker_lost", "died")))));
        all.add(new RunReply.Summary(Samples.CONFIG, Samples.LORA, 12, true));
        all.add(new RunReply.Resolved(Samples.MANIFEST));
        all.add(new RunReply.Done());
        all.add(new RunCommand.GetTimings("owner", nobody()));
        all.add(new RunCommand.Leave());
        all.add(new RunReply.Timings(List.of(
                new OperationTiming(5, OperationKind.OPTIM_STEP, 200, 3000, 40_000, 9))));
        all.add(new RunReply.Stalled(request, Fault.server("blob_damaged", "blob a/b is damaged")));
        all.add(new RunCommand.GetHistory("owner", nobody()));
        all.add(new RunReply.History(List.of(new HistoryEntry(9, Optional.of("node-1"),
                HistoryEntry.Kind.OPENED,
                Optional.of(4L), Optional.empty(), Map.of("replay", "3")))));
        all.add(new RunCommand.GetMetrics("owner", 3, 1000, nobody()));
        all.add(new RunReply.Metrics(List.of(new OperationMetrics(4, 5, OperationKind.OPTIM_STEP, 2,
                Map.of("grad_norm", 0.5), Optional.of("invalid"), 9))));
        all.add(new RunReply.Refused(RunCommand.Reason.TOO_MANY, "wait"));
    }

    private static StoredOperation refused(OperationKind kind) {
        return new StoredOperation.Refused(kind, Fault.user("invalid_request", "no token"));
    }

    private static void engineMessages(List<Message> all) {
        all.add(new EngineCommand.OpenRun(Samples.CONFIG, Samples.LORA, Optional.of(Samples.BLOB),
                nobody(), 0));
        var stored = new StoredOperation.InBlob(OperationKind.LOAD_STATE,
                Samples.BLOB);
        all.add(new EngineCommand.Execute(Samples.RUN, 4, stored,
                Optional.of(Samples.MANIFEST), 9, true, nobody()));
        all.add(new EngineCommand.Execute(Samples.RUN, 5, refused(OperationKind.OPTIM_STEP),
                Optional.empty(), 9, false, nobody()));
        all.add(new EngineCommand.TakeRecoveryPoint(Samples.RUN, 4, nobody()));
        all.add(new EngineCommand.CloseRun(Samples.RUN));
        var params = new SamplingParams(Optional.of(16), Optional.of(1L), List.of("."),
                List.of(2), 0.7, 40, 0.9);
        all.add(new EngineCommand.Sample(new SampleTask("task", Samples.CONFIG.baseModel(),
                Optional.of(SampleTask.Adapter.of(Samples.MANIFEST)), new int[] {1, 2},
                params, 2, 3, true, 4, 5), nobody()));
        all.add(new EngineCommand.Describe(nobody()));
        all.add(new EngineCommand.Tokenize(new ModelName("m"), "text", true, nobody()));
        all.add(new EngineCommand.Detokenize(new ModelName("m"), new int[] {1}, true, nobody()));
        all.add(new EngineCommand.FetchTokenizerFiles(new ModelName("m"), nobody()));
        all.add(new EngineCommand.FollowSample("task", new int[] {3, 0}, nobody()));
        all.add(new EngineCommand.CancelSample("task"));
        all.add(new EngineCommand.DetokenizeNext(new ModelName("m"), new int[] {1}, new int[] {2}, true,
                nobody()));
        all.add(new EngineCommand.DetokenizeEach(new ModelName("m"), new int[] {1, 2}, nobody()));
        all.add(new EngineCommand.AlignText(new ModelName("m"), "text", nobody()));
        all.add(new EngineCommand.AlignTokens(new ModelName("m"), new int[] {1, 2}, nobody()));
        all.add(new EngineCommand.Drain());
        all.add(new EngineEvent.Opened(Samples.RUN));
        all.add(new EngineEvent.Measured(Samples.RUN, 4, 5000));
        all.add(new EngineEvent.EvictionRequested(Samples.RUN));
        all.add(new EngineEvent.StateNotFinite(Samples.RUN, 4, Fault.user("state_not_finite", "NaN")));
        all.add(new EngineEvent.OpenFailed(Samples.RUN, Fault.server("device_lost", "gone")));
        all.add(new EngineEvent.Executed(Samples.RUN, 4, Samples.results().getFirst()));
        all.add(new EngineEvent.Failed(Samples.RUN, 4, Fault.server("device_lost", "gone")));
        all.add(new EngineEvent.RecoveryPointWritten(Samples.RUN, 4, Samples.BLOB, 2, Samples.LORA));
        all.add(new EngineEvent.RecoveryPointFailed(Samples.RUN, 4, Fault.server("disk_full", "full")));
        all.add(new EngineReply.Sampled("task",
                new SampleResult(List.of(new SampleResult.Sequence(new int[] {1}, new float[] {-1},
                        SampleResult.StopReason.STOP, Optional.of(new float[] {-2}), likeliest())),
                        Optional.of(new float[] {Float.NaN}), likeliest())));
        all.add(new EngineReply.Description(List.of(new ModelInfo(new ModelName("m"),
                "LlamaForCausalLM", 2048, 32000, 64, 2, "bfloat16", 1_000_000, Optional.of("ab-cd"))), 1, 2,
                List.of(new UnservedModel("a b", "/models/a b", "is no name"))));
        all.add(new EngineReply.Tokenized(new int[] {1}));
        all.add(new EngineReply.Detokenized("text"));
        all.add(new EngineReply.TokenizerFiles(Map.of("tokenizer.json", new byte[] {1, 2})));
        all.add(new EngineReply.Drawn("task", drawn()));
        all.add(new EngineReply.DetokenizedNext(List.of("te", "xt")));
        all.add(new EngineReply.DetokenizedEach(List.of("te", "xt")));
        all.add(new EngineReply.Aligned(new int[] {1, 2}, "text", new int[] {2, 4}));
        all.add(new EngineReply.RequestFailed(Fault.server("device_lost", "gone")));
    }

    private static Optional<List<List<SampleResult.TokenLogprob>>> likeliest() {
        return Optional.of(List.of(List.of(new SampleResult.TokenLogprob(1, -2))));
    }

    private static List<DrawnTokens> drawn() {
        return List.of(new DrawnTokens(3, DrawnTokens.digest(new int[] {1, 2, 3}, 3), new int[] {4},
                new float[] {-1}, Optional.of(SampleResult.StopReason.STOP), likeliest()));
    }

    private static void sessionMessages(List<Message> all) {
        var sampler = new SessionCommand.Sampler(new ModelName("m"),
                Optional.of("bios://usf-finance-9f2c4be01a77/sampler_weights/a"),
                Optional.of(new SampleTask.Adapter("ab", Samples.LORA, Samples.BLOB)));
        all.add(new SessionCommand.Open("owner", List.of("tag"), "{}", "1.0", 7, Optional.of("p"),
                nobody()));
        all.add(new SessionCommand.SetProject("owner", Optional.empty(), nobody()));
        all.add(new SessionCommand.Heartbeat("owner", nobody()));
        all.add(new SessionCommand.AddRun("owner", Samples.RUN, nobody()));
        all.add(new SessionCommand.OpenSampler("owner", 1, sampler, nobody()));
        all.add(new SessionCommand.FindSampler("owner", 1, nobody()));
        all.add(new SessionCommand.Describe("owner", nobody()));
        all.add(new SessionReply.SamplerOpened("session:sample:1", sampler));
        all.add(new SessionReply.Described("session", List.of(Samples.RUN), List.of("session:sample:1"),
                Optional.of("p")));
        all.add(new SessionReply.Refused(Fault.user("not_found", "no such session")));
    }

    private static void samplingMessages(List<Message> all) {
        var params = new SamplingParams(Optional.empty(), Optional.empty(), List.of(), List.of(), 1, -1, 1);
        var task = new SampleTask("task", Samples.CONFIG.baseModel(), Optional.empty(), new int[] {1, 2},
                params, 2, 3, false, 0);
        all.add(new SamplingCommand.Submit("owner", task, nobody()));
        all.add(new SamplingCommand.Retrieve("owner", "sample:router:task", 100, nobody()));
        all.add(new SamplingCommand.Follow("owner", "sample:router:task", new int[] {3}, 100, nobody()));
        all.add(new SamplingCommand.Cancel("owner", "sample:router:task"));
        all.add(new SamplingReply.Drawn("sample:router:task", drawn()));
        all.add(new SamplingReply.Accepted("sample:router:task"));
        all.add(new SamplingReply.Completed("sample:router:task",
                new SampleResult(List.of(new SampleResult.Sequence(new int[] {1}, new float[] {-1},
                        SampleResult.StopReason.LENGTH)), Optional.empty(), Optional.empty())));
        all.add(new SamplingReply.Failed("sample:router:task", Fault.server("sampling_failed", "gone")));
        all.add(new SamplingReply.Pending("sample:router:task", "waiting"));
        all.add(new SamplingReply.Foreign("sample:router:task"));
        all.add(new SamplingReply.Gone("sample:router:task"));
        all.add(new SamplingReply.Refused(Fault.user("queue_full", "wait")));
    }

    private static void ownerMessages(List<Message> all) {
        all.add(new OwnerCommand.CountSampling("writer", 2, List.of(new OwnerCommand.SampleUse(-5,
                Optional.of("run"), "m", "session", 3, 4)), 7, nobody()));
        var entry = new OwnerCommand.AuditEntry(7, "save_weights", Optional.of("run"), Optional.of("path"),
                "key");
        all.add(new OwnerCommand.Record(entry, "save run 7", nobody()));
        all.add(new OwnerCommand.GetAudit(1, 2, nobody()));
        all.add(new OwnerCommand.GetUsage(nobody()));
        all.add(new OwnerReply.Done());
        all.add(new OwnerReply.Audit(List.of(entry), 1));
        var total = new OwnerCommand.SampledTotal(Optional.empty(), "m", "session", -1, 2, 3, 4);
        all.add(new OwnerReply.Sampled(List.of(total), List.of(total)));
        all.add(new OwnerReply.Unavailable("damaged"));
    }

    private static String nameOf(Message message) {
        String name = message.getClass().getName().replaceAll(".*\\.", "").replace('$', '.');
        boolean refused = message instanceof RunCommand.Submit s
                && s.operation() instanceof StoredOperation.Refused
                || message instanceof EngineCommand.Execute e
                && e.operation() instanceof StoredOperation.Refused;
        if (refused) return name + ".Refused";
        return message instanceof RunReply.Completed(_, var result)
                ? name + "." + result.getClass().getSimpleName() : name;
    }

    @Test void everyMessageIsReadAsItWasWrittenWithTheBytesOfThisVersion() throws Exception {
        var changed = new TreeMap<String, String>();
        for (Message message : messages()) {
            byte[] now = WIRE.toBinary(message);
            Object back = WIRE.fromBinary(now, WireSerializer.VERSION);
            assertArrayEquals(now, WIRE.toBinary(back), () -> "round trip of " + message);
            assertEquals(message.getClass(), back.getClass());
            Path file = GOLDEN.resolve(nameOf(message) + "." + WireSerializer.VERSION + ".hex");
            if (Boolean.getBoolean("golden.write") && !Files.exists(file)) {
                Files.createDirectories(GOLDEN);
                Files.writeString(file, HexFormat.of().formatHex(now) + "\n");
            }
            byte[] old = HexFormat.of().parseHex(Files.readString(file).strip());
            WIRE.fromBinary(old, WireSerializer.VERSION);
            // Maps have no order on the wire: compare what is read, by length.
            if (old.length != now.length)
                changed.put(nameOf(message), "has other bytes: raise WireSerializer.VERSION");
        }
        assertTrue(changed.isEmpty(), changed::toString);
    }

    @Test void everyMessageOfTheProtocolHasAGoldenFile() {
        var shown = new HashSet<Class<?>>();
        for (Message message : messages()) shown.add(message.getClass());
        var said = new HashSet<Class<?>>();
        for (Class<?> root : Set.of(RunCommand.class, RunReply.class, EngineCommand.class,
                EngineEvent.class, EngineReply.class,
                OwnerCommand.class, OwnerReply.class, SessionCommand.class, SessionReply.class,
                SamplingCommand.class, SamplingReply.class))
            said.addAll(List.of(root.getPermittedSubclasses()));
        assertEquals(Set.of(), difference(said, shown));
    }

    private static Set<Class<?>> difference(Set<Class<?>> all, Set<Class<?>> without) {
        var left = new HashSet<>(all);
        left.removeAll(without);
        return left;
    }

    @Test void anotherVersionIsRefusedNotMisread() {
        byte[] bytes = WIRE.toBinary(new RunReply.Done());
        var refused = assertThrows(NotSerializableException.class, () -> WIRE.fromBinary(bytes, "0"));
        assertTrue(refused.getMessage().contains("version 0"), refused.getMessage());
    }

    @Test void aMessageThatIsTooLargeThrowsTheExceptionThatPekkoExpects() {
        var message = new EngineCommand.Detokenize(new ModelName("m"), new int[10_000], true, nobody());
        assertThrows(BufferOverflowException.class,
                () -> WIRE.toBinary(message, ByteBuffer.allocateDirect(1000)));
        var room = ByteBuffer.allocateDirect(100_000);
        WIRE.toBinary(message, room);
        assertTrue(room.position() > 40_000 && room.position() < 40_200, () -> room.position() + " bytes");
    }

    @Test void aReplyThatIsTooLargeIsFetchedInParts() throws Exception {
        int[] tokens = new int[Outbox.PART_BYTES / 2];
        for (int i = 0; i < tokens.length; i++) tokens[i] = i;
        var frame = ByteBuffer.allocateDirect(1000);
        WIRE.toBinary(new EngineReply.Tokenized(tokens), frame);
        var large = (LargeReply) WIRE.fromBinary(frame.flip(), WireSerializer.VERSION);
        assertTrue(large.bytes() > 2 * Outbox.PART_BYTES, () -> large.bytes() + " bytes");
        var whole = (EngineReply.Tokenized) Outbox.fetch(large, KIT.system()).toCompletableFuture().get();
        assertArrayEquals(tokens, whole.tokens());
    }

    record Stranger() implements Message {}

    @Test void aClassThatIsNotRegisteredIsRefusedByName() {
        var refused = assertThrows(IllegalArgumentException.class, () -> WIRE.toBinary(new Stranger()));
        assertTrue(refused.getMessage().contains("Stranger"), refused.getMessage());
    }

    @Test void pekkoUsesItForMessages() {
        KIT.serializationTestKit()
                .verifySerialization(new RunReply.Accepted(new RequestId(Samples.RUN, 5)), true);
    }
}
