package bios.coordinator.run;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.DamagedEntities;
import bios.coordinator.Wait;
import bios.persistence.blob.FileBlobStore;
import bios.persistence.embedded.DatabaseCompaction;
import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.journal.JdbcJournal;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.run.Datum;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.stored.StoredOperations;
import com.typesafe.config.ConfigFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.sql.SQLException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Function;
import java.util.stream.Collectors;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.cluster.sharding.ShardRegion;
import org.apache.pekko.cluster.sharding.typed.GetShardRegionState;
import org.apache.pekko.cluster.sharding.typed.javadsl.ClusterSharding;
import org.apache.pekko.cluster.typed.Cluster;
import org.apache.pekko.cluster.typed.Join;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class TrainingRunShardingTest {
    private static final String SETTINGS = """
            pekko.actor.provider = cluster
            pekko.remote.artery.canonical { hostname = "127.0.0.1", port = 0 }
            pekko.cluster { roles = ["serves-usf-finance"], jmx.enabled = off, downing-provider-class = "" }
            pekko.coordinated-shutdown.exit-jvm = off
            bios.run { shards = 4, idle-after = 300 ms, retry-after = 100 ms, leave-within = 500 ms }
            """;
    /// As docs/guide/operations.md says: of small runs, and of tables, shards and what the last commits left.
    private static final long BYTES_OF_A_RUN = 16 << 10;
    private static final long BYTES_OF_THE_REST = 2 << 20;
    @TempDir Path folder;
    private final ConcurrentLinkedQueue<String> executed = new ConcurrentLinkedQueue<>();
    /// How far the clock of the runs is ahead, in milliseconds.
    private final AtomicLong later = new AtomicLong();

    private ActorTestKit start(FileBlobStore blobs, Duration pause) {
        return start(blobs, pause, "");
    }

    private ActorTestKit start(FileBlobStore blobs, Duration pause, String more) {
        EmbeddedDatabase.createSchema(folder);
        var kit = ActorTestKit.create("shard", ConfigFactory.parseString(SETTINGS + more)
                .withFallback(JdbcJournal.config(folder)).withFallback(ConfigFactory.load()));
        var cluster = Cluster.get(kit.system());
        cluster.manager().tell(Join.create(cluster.selfMember().address()));
        var settings = RunSettings.from(kit.system().settings().config());
        var environment = RunEnvironment.of(kit.spawn(FakeEngine.create(blobs, pause, executed)), blobs,
                new RunHarness.MapIndex(), TrainingRunSharding.resolver(kit.system(), Duration.ofSeconds(3)),
                () -> Instant.now().plusMillis(later.get()), settings);
        TrainingRunSharding.init(kit.system(), "usf-finance", environment);
        return kit;
    }

    private static RunReply ask(ActorTestKit kit, Function<ActorRef<RunReply>, RunCommand> command) {
        return TrainingRunSharding.ref(kit.system(), RunHarness.RUN).<RunReply>ask(command::apply,
                Duration.ofSeconds(20)).toCompletableFuture().join();
    }

    private static RunConfig config(RunId run) {
        var one = RunHarness.config(true);
        return new RunConfig(run, one.owner(), one.baseModel(), one.lora(), one.loraChosen(), one.parent(),
                one.userMetadata(), one.session(), one.createdAtMillis());
    }

    private static RunReply submit(ActorTestKit kit, long seq) {
        return submit(kit, RunHarness.RUN, seq).toCompletableFuture().join();
    }

    private static CompletionStage<RunReply> submit(ActorTestKit kit, RunId run, long seq) {
        return submit(kit, run, seq, new Operation.ForwardBackward(List.of(
                new Datum(new int[] {(int) seq}, Map.of())), LossFunction.CROSS_ENTROPY, Map.of(), false));
    }

    private static CompletionStage<RunReply> submit(ActorTestKit kit, RunId run, long seq,
            Operation operation) {
        var stored = StoredOperations.inline(operation);
        return TrainingRunSharding.ref(kit.system(), run).ask(r -> new RunCommand.Submit(RunHarness.OWNER,
                seq, stored, StoredOperations.digest(stored.encoded()), 1, r), Duration.ofSeconds(20));
    }

    /// Waits for an answer of the run: what its entity is sent before its recovery fails is lost, and
    /// repeated by gateways.
    private static void awaitAnswer(ActorTestKit kit) {
        for (int i = 0; i < 20; i++) {
            try {
                TrainingRunSharding.ref(kit.system(), RunHarness.RUN).<RunReply>ask(r ->
                        new RunCommand.Describe(RunHarness.OWNER, r), Duration.ofSeconds(2))
                        .toCompletableFuture().join();
                return;
            } catch (CompletionException lost) {
                // asked again
            }
        }
        throw new AssertionError("no answer");
    }

    private void await(int executions) {
        Wait.until(() -> executed.size() >= executions, () -> "executed " + executed);
    }

    /// Damages the stored events and snapshots of the run.
    private void damage() throws SQLException {
        try (var connection = EmbeddedDatabase.connect(EmbeddedDatabase.url(folder));
                var statement = connection.createStatement()) {
            String run = " = 'run-usf-finance|" + RunHarness.RUN + "'";
            int events = statement.executeUpdate("UPDATE \"event_journal\" SET \"write_timestamp\" ="
                    + " \"write_timestamp\" + 1 WHERE \"persistence_id\"" + run);
            assertTrue(events > 0);
            statement.executeUpdate("UPDATE \"snapshot\" SET \"created\" = \"created\" + 1"
                    + " WHERE \"persistence_id\"" + run);
        }
    }

    @Test void aRunThatCannotBeReadAnswersSoAndOthersGoOn() throws Exception {
        try (var blobs = FileBlobStore.open(folder.resolve("blobs"))) {
            var kit = start(blobs, Duration.ofMillis(1));
            var other = new RunId("usf-finance-" + "f".repeat(12));
            var config = config(other);
            var quiet = RunHarness.config(true);
            try {
                ask(kit, r -> new RunCommand.Create(quiet, r));
                submit(kit, 0);
                await(1);
            } finally {
                kit.shutdownTestKit();
            }
            damage();
            kit = start(blobs, Duration.ofMillis(1));
            try {
                var damaged = DamagedEntities.get(kit.system());
                awaitAnswer(kit);
                for (int i = 0; i < 3; i++) {
                    var refused = assertInstanceOf(RunReply.Refused.class, submit(kit, 1));
                    assertEquals(RunCommand.Reason.DAMAGED, refused.reason());
                    for (String word : List.of("is damaged", "bios fsck", "bios restore"))
                        assertTrue(refused.message().contains(word), refused.message());
                }
                assertEquals(1, damaged.attempts("run-usf-finance|" + RunHarness.RUN),
                        "it is not read again at once");
                var system = kit.system();
                var made = TrainingRunSharding.ref(system, other).<RunReply>ask(r ->
                        new RunCommand.Create(config, r), Duration.ofSeconds(20));
                assertInstanceOf(RunReply.Described.class, made.toCompletableFuture().join());
            } finally {
                kit.shutdownTestKit();
            }
        }
    }

    private Set<BlobId> blobsOfTheRun(FileBlobStore blobs) {
        return blobs.list(BlobScope.run(RunHarness.RUN)).stream().map(each -> each.ref().id())
                .collect(Collectors.toSet());
    }

    /// What the run answers when it is asked for its description until it answers.
    private static RunReply described(ActorTestKit kit) {
        awaitAnswer(kit);
        return ask(kit, r -> new RunCommand.Describe(RunHarness.OWNER, r));
    }

    private static void assertOlder(RunReply reply) {
        var refused = assertInstanceOf(RunReply.Refused.class, reply);
        assertEquals(RunCommand.Reason.DAMAGED, refused.reason());
        for (String word : List.of("a blob was written when it had event", "accept-loss"))
            assertTrue(refused.message().contains(word), refused.message());
    }

    @Test void aJournalThatIsOlderThanTheBlobsOfARunIsFoundOutAndNothingIsDeleted() throws Exception {
        Path older = folder.resolve("older");
        Path newer = folder.resolve("newer");
        Path file = EmbeddedDatabase.file(folder);
        try (var blobs = FileBlobStore.open(folder.resolve("blobs"))) {
            for (int seq = 0; seq < 2; seq++) {
                var kit = start(blobs, Duration.ofMillis(1));
                try {
                    if (seq == 0) ask(kit, r -> new RunCommand.Create(RunHarness.config(true), r));
                    submit(kit, seq);
                    await(seq + 1);
                    awaitEmpty(kit);
                } finally {
                    kit.shutdownTestKit();
                }
                Files.copy(file, seq == 0 ? older : newer);
            }
            Files.copy(older, file, StandardCopyOption.REPLACE_EXISTING);
            Set<BlobId> before = blobsOfTheRun(blobs);
            var kit = start(blobs, Duration.ofMillis(1), "bios.run.sweep-after = 10 ms");
            try {
                assertOlder(described(kit));
                assertOlder(submit(kit, 2));
            } finally {
                kit.shutdownTestKit();
            }
            assertEquals(before, blobsOfTheRun(blobs));
            Files.copy(newer, file, StandardCopyOption.REPLACE_EXISTING);
            kit = start(blobs, Duration.ofMillis(1));
            try {
                assertInstanceOf(RunReply.Described.class, described(kit));
                assertInstanceOf(RunReply.Accepted.class, submit(kit, 2));
                await(3);
            } finally {
                kit.shutdownTestKit();
            }
        }
    }

    @Test void aLossThatIsAcceptedIsToldOnceAndDoesNotHideALaterOne() throws Exception {
        String results = BlobScope.run(RunHarness.RUN) + "/results/";
        try (var blobs = FileBlobStore.open(folder.resolve("blobs"))) {
            var kit = start(blobs, Duration.ofMillis(1));
            try {
                ask(kit, r -> new RunCommand.Create(RunHarness.config(true), r));
            } finally {
                kit.shutdownTestKit();
            }
            blobs.put(results + "1/900", new byte[] {1});
            kit = start(blobs, Duration.ofMillis(1), "bios.run.accept-loss = on");
            try {
                assertInstanceOf(RunReply.Described.class, described(kit));
                var history = assertInstanceOf(RunReply.History.class,
                        ask(kit, r -> new RunCommand.GetHistory(RunHarness.OWNER, 0, 0, r)));
                var lost = history.entries().stream().filter(e -> e.kind() == HistoryEntry.Kind.DATA_LOST)
                        .toList();
                assertEquals(1, lost.size());
                assertEquals("900", lost.getFirst().detail().get("acknowledged"));
                submit(kit, 0);
                var failed = assertInstanceOf(RunReply.Failed.class,
                        ask(kit, r -> new RunCommand.Retrieve(RunHarness.OWNER, 0, 5000, r)));
                assertEquals("data_lost", failed.fault().code());
            } finally {
                kit.shutdownTestKit();
            }
            kit = start(blobs, Duration.ofMillis(1));
            try {
                assertTrue(described(kit) instanceof RunReply.Described, "what was given up stays given up");
                submit(kit, 1);
                await(1);
            } finally {
                kit.shutdownTestKit();
            }
            blobs.put(results + "901", new byte[] {2});
            kit = start(blobs, Duration.ofMillis(1));
            try {
                assertOlder(described(kit));
            } finally {
                kit.shutdownTestKit();
            }
        }
    }

    /// The entities in the shards of this node.
    private static List<String> entities(ActorTestKit kit) {
        var probe = kit.<ShardRegion.CurrentShardRegionState>createTestProbe();
        ClusterSharding.get(kit.system()).shardState().tell(new GetShardRegionState(
                TrainingRunSharding.key("usf-finance"), probe.getRef()));
        return probe.receiveMessage(Duration.ofSeconds(20)).getShards().stream()
                .flatMap(shard -> shard.getEntityIds().stream()).sorted().toList();
    }

    private void awaitEmpty(ActorTestKit kit) {
        Wait.until(() -> entities(kit).isEmpty(), () -> entities(kit).toString());
    }

    @Test void aCheckpointOfAPassivatedRunExpires() throws Exception {
        try (var blobs = FileBlobStore.open(folder.resolve("blobs"))) {
            var kit = start(blobs, Duration.ofMillis(1), "\nbios.run.unnamed-weights.lease = 1 s");
            try {
                var name = new CheckpointName("a");
                ask(kit, r -> new RunCommand.Create(RunHarness.config(true), r));
                submit(kit, RunHarness.RUN, 0, new Operation.SaveState(name, "{}", Optional.empty()))
                        .toCompletableFuture().join();
                var saved = (OperationResult.Saved) assertInstanceOf(RunReply.Completed.class, ask(kit, r ->
                        new RunCommand.Retrieve(RunHarness.OWNER, 0, 5000, r))).result();
                var hour = Duration.ofHours(1).toMillis();
                ask(kit, r -> new RunCommand.SetExpiry(RunHarness.OWNER, CheckpointKind.TRAINING, name,
                        Optional.of(Instant.now().toEpochMilli() + hour), r));
                awaitEmpty(kit);
                later.set(2 * hour);
                var unserved = new RunId("other-" + "0".repeat(12));
                ExpirySweep.wake(List.of(unserved, RunHarness.RUN), "usf-finance"::equals, run ->
                        TrainingRunSharding.ref(kit.system(), run).ask(r -> new RunCommand.Describe("", r),
                                Duration.ofSeconds(20)));
                for (int i = 0; i < 200 && blobs.exists(saved.manifest().adapter().id()); i++)
                    Thread.sleep(50);
                assertFalse(blobs.exists(saved.manifest().adapter().id()));
                awaitEmpty(kit);
            } finally {
                kit.shutdownTestKit();
            }
        }
    }

    @Test void theEntityOfARunThatWasNeverCreatedStopsAtOnceAndIsForgotten() throws Exception {
        try (var blobs = FileBlobStore.open(folder.resolve("blobs"))) {
            var kit = start(blobs, Duration.ofMillis(1));
            try {
                var refused = assertInstanceOf(RunReply.Refused.class,
                        ask(kit, r -> new RunCommand.Describe(RunHarness.OWNER, r)));
                assertEquals(RunCommand.Reason.NOT_FOUND, refused.reason());
                awaitEmpty(kit);
                assertInstanceOf(RunReply.Described.class,
                        ask(kit, r -> new RunCommand.Create(RunHarness.config(true), r)));
            } finally {
                kit.shutdownTestKit();
            }
        }
    }

    /// The rows of the run in a table of the database.
    private long rows(String table, String which) throws SQLException {
        try (var connection = EmbeddedDatabase.connect(EmbeddedDatabase.url(folder));
                var statement = connection.createStatement();
                var counted = statement.executeQuery("SELECT COUNT(*) FROM \"" + table
                        + "\" WHERE \"persistence_id\" = 'run-usf-finance|" + RunHarness.RUN + "' AND "
                        + which)) {
            counted.next();
            return counted.getLong(1);
        }
    }

    @Test void ofARunThatRestsTheJournalKeepsItsStateAndNotItsOperations() throws Exception {
        String accepted = "\"event_ser_manifest\" LIKE '%operation-accepted%'";
        try (var blobs = FileBlobStore.open(folder.resolve("blobs"))) {
            var kit = start(blobs, Duration.ofMillis(1));
            try {
                ask(kit, r -> new RunCommand.Create(RunHarness.config(true), r));
                for (int seq = 0; seq < 30; seq++) submit(kit, seq);
                await(30);
                assertTrue(rows("event_journal", accepted) > 0);
                awaitEmpty(kit);
                Wait.until(() -> rows("event_journal", accepted) == 0, () -> "accepted operations stay");
                assertTrue(rows("event_journal", "TRUE") <= 8, () -> "events");
                assertEquals(2, rows("snapshot", "TRUE"), "one and a spare one");
                assertInstanceOf(RunReply.Completed.class,
                        ask(kit, r -> new RunCommand.Retrieve(RunHarness.OWNER, 29, 5000, r)));
            } finally {
                kit.shutdownTestKit();
            }
        }
    }

    /// Many runs with many operations: what they take on the disk is a matter of their states.
    @Test void theJournalOfRunsThatRestTakesFewBytesForEach() throws Exception {
        int runs = 16;
        int operations = 12;
        try (var blobs = FileBlobStore.open(folder.resolve("blobs"))) {
            var kit = start(blobs, Duration.ofMillis(1));
            try (var _ = DatabaseCompaction.start(folder)) {
                var all = new ArrayList<CompletableFuture<RunReply>>();
                for (int i = 0; i < runs; i++) {
                    var run = new RunId("usf-finance-" + String.format("%012x", i));
                    TrainingRunSharding.ref(kit.system(), run).<RunReply>ask(r ->
                            new RunCommand.Create(config(run), r), Duration.ofSeconds(20))
                            .toCompletableFuture().join();
                    for (int seq = 0; seq < operations; seq++)
                        all.add(submit(kit, run, seq).toCompletableFuture());
                }
                for (var each : all) assertInstanceOf(RunReply.Accepted.class, each.join());
                Path file = EmbeddedDatabase.file(folder);
                long most = runs * BYTES_OF_A_RUN + BYTES_OF_THE_REST;
                awaitEmpty(kit);
                Wait.until(() -> Files.size(file) <= most, () ->
                        file.toFile().length() + " bytes, of at most " + most);
            } finally {
                kit.shutdownTestKit();
            }
        }
    }

    @Test void anIdleRunIsStartedByACommandAndARunWithUnfinishedOperationsWithoutOne() throws Exception {
        try (var blobs = FileBlobStore.open(folder.resolve("blobs"))) {
            var kit = start(blobs, Duration.ofMillis(1));
            try {
                assertInstanceOf(RunReply.Described.class,
                        ask(kit, r -> new RunCommand.Create(RunHarness.config(true), r)));
                submit(kit, 0);
                await(1);
                // The run takes a recovery point and is passivated; the next request starts it again, and no
                // operation is executed twice.
                for (int i = 0; i < 100 && blobs.list("runs/" + RunHarness.RUN + "/recovery").isEmpty(); i++)
                    Thread.sleep(50);
                Thread.sleep(1500);
                assertInstanceOf(RunReply.Completed.class,
                        ask(kit, r -> new RunCommand.Retrieve(RunHarness.OWNER, 0, 5000, r)));
                submit(kit, 1);
                await(2);
                assertEquals(List.of("1 FORWARD_BACKWARD", "2 FORWARD_BACKWARD"), List.copyOf(executed));
            } finally {
                kit.shutdownTestKit();
            }
            executed.clear();
            kit = start(blobs, Duration.ofSeconds(30));
            try {
                submit(kit, 2);
            } finally {
                kit.shutdownTestKit();
            }
            kit = start(blobs, Duration.ofMillis(1));
            try {
                Wait.until(() -> executed.contains("3 FORWARD_BACKWARD"), () ->
                        "operation 3 is not executed without a command: " + executed);
            } finally {
                kit.shutdownTestKit();
            }
        }
    }
}
