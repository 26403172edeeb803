package bios.coordinator.run;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.Metrics;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationMetrics;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RequestId;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.HistoryEntry.Kind;
import bios.protocol.run.OperationTiming;
import bios.protocol.run.WaitingOperation;
import io.prometheus.metrics.core.metrics.Counter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.pekko.actor.typed.ActorRef;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class TrainingRunEntityTest {
    private static final String SMALL =
            "bios.run { recovery-point.steps = 3, window = 4, retry-after = 50 ms }\n"
            + "pekko.loglevel = WARNING";
    private static final Duration PAUSE = Duration.ofMillis(1);
    @TempDir Path folder;

    private static Operation train(int token) {
        return new Operation.ForwardBackward(List.of(new Datum(new int[] {token}, Map.of())),
                LossFunction.CROSS_ENTROPY, Map.of(), false);
    }

    private static Operation forward(int token) {
        return new Operation.ForwardBackward(List.of(new Datum(new int[] {token}, Map.of())),
                LossFunction.CROSS_ENTROPY, Map.of(), true);
    }

    private static Operation large(int token) {
        int[] tokens = new int[1000];
        tokens[0] = token;
        return new Operation.ForwardBackward(List.of(new Datum(tokens, Map.of())), LossFunction.CROSS_ENTROPY,
                Map.of(), false);
    }

    private static Operation failing() {
        return new Operation.ForwardBackward(List.of(), LossFunction.CROSS_ENTROPY,
                Map.of("fail", 1.0), false);
    }

    private static Operation step() {
        return new Operation.OptimStep(Optional.empty());
    }

    private static Operation save(String name) {
        return new Operation.SaveState(new CheckpointName(name), "{}", Optional.empty());
    }

    private static Operation sampler(String name) {
        return new Operation.SaveSamplerWeights(Optional.of(new CheckpointName(name)), Optional.empty(),
                Optional.empty());
    }

    private static Operation load(String name) {
        return new Operation.LoadState(CheckpointPath.parse("bios://" + RunHarness.RUN + "/" + name), true);
    }

    private RunHarness harness(String name) throws Exception {
        return harness(name, "");
    }

    private RunHarness harness(String name, String settings) throws Exception {
        var harness = new RunHarness(Files.createDirectories(folder.resolve(name)), settings + "\n" + SMALL,
                PAUSE);
        assertInstanceOf(RunReply.Described.class, harness.create());
        return harness;
    }

    /// Each batch is accepted completely before its results are retrieved.
    private static List<List<Operation>> history(long seed) {
        var random = new Random(seed);
        var batches = new ArrayList<List<Operation>>();
        batches.add(List.of(train(1), step(), save("a")));
        for (int b = 0; b < 6; b++) {
            var batch = new ArrayList<Operation>();
            for (int i = 0; i < 10; i++)
                batch.add(switch (random.nextInt(14)) {
                    case 0, 1, 2 -> train(random.nextInt(1000));
                    case 3 -> large(random.nextInt(1000));
                    case 4, 5, 6, 7 -> step();
                    case 8 -> forward(random.nextInt(1000));
                    case 9 -> save(random.nextBoolean() ? "a" : "b");
                    case 10 -> sampler("s");
                    case 11 -> load("a");
                    case 12 -> random.nextInt(3) == 0 ? failing() : train(5);
                    default -> load(random.nextBoolean() ? "missing" : "s");
                });
            batches.add(batch);
        }
        return batches;
    }

    private static List<RunReply> play(RunHarness harness, List<List<Operation>> history,
            Runnable disturbance) {
        var outcomes = new ArrayList<RunReply>();
        long seq = 0;
        for (List<Operation> batch : history) {
            long first = seq;
            for (Operation operation : batch) {
                harness.submitUntilAccepted(seq++, operation);
                disturbance.run();
            }
            for (long s = first; s < seq; s++) {
                outcomes.add(harness.outcome(s));
                disturbance.run();
            }
        }
        return outcomes;
    }

    @Test void aRunThatIsKilledRepeatedlyHasTheResultsOfAnUndisturbedRun() throws Exception {
        for (long seed = 1; seed <= 2; seed++) {
            List<RunReply> calm;
            RunReply.Described calmEnd;
            try (var harness = harness("calm" + seed)) {
                calm = play(harness, history(seed), () -> {});
                calmEnd = (RunReply.Described) harness.ask(r -> new RunCommand.Describe(RunHarness.OWNER, r));
            }
            var random = new Random(seed);
            try (var harness = harness("killed" + seed)) {
                List<RunReply> killed = play(harness, history(seed), () -> {
                    if (random.nextInt(9) == 0) harness.kill();
                });
                assertEquals(String.join("\n", calm.stream().map(Object::toString).toList()),
                        String.join("\n", killed.stream().map(Object::toString).toList()), "seed " + seed);
                var end = (RunReply.Described) harness.ask(r -> new RunCommand.Describe(RunHarness.OWNER, r));
                assertEquals(calmEnd.checkpoints(), end.checkpoints());
            }
        }
    }

    @Test void aRunThatIsHandedOverRepeatedlyHasTheResultsOfAnUndisturbedRun() throws Exception {
        for (long seed = 11; seed <= 12; seed++) {
            List<RunReply> calm;
            RunReply.Described calmEnd;
            try (var harness = harness("stays" + seed)) {
                calm = play(harness, history(seed), () -> {});
                calmEnd = (RunReply.Described) harness.ask(r -> new RunCommand.Describe(RunHarness.OWNER, r));
            }
            var random = new Random(seed);
            try (var harness = harness("leaves" + seed)) {
                List<RunReply> crowded = play(harness, history(seed), () -> {
                    if (random.nextInt(3) == 0) harness.requestEviction();
                    if (random.nextInt(20) == 0) harness.controls.pointsToFail().set(1);
                    if (random.nextInt(30) == 0) harness.kill();
                });
                assertTrue(harness.controls.opened().get() > 5, "the run is evicted often");
                assertEquals(String.join("\n", calm.stream().map(Object::toString).toList()),
                        String.join("\n", crowded.stream().map(Object::toString).toList()), "seed " + seed);
                var end = (RunReply.Described) harness.ask(r -> new RunCommand.Describe(RunHarness.OWNER, r));
                assertEquals(calmEnd.checkpoints(), end.checkpoints());
            }
        }
    }

    @Test void aRunThatHasLeftItsNodeIsStartedByTheNextCommandAndExecutesNothingTwice() throws Exception {
        try (var harness = harness("returns")) {
            harness.submit(0, train(1));
            harness.submit(1, step());
            harness.submit(2, save("x"));
            harness.outcome(2);
            harness.requestEviction();
            harness.await(() -> !harness.blobs.list("runs/" + RunHarness.RUN + "/recovery").isEmpty(),
                    "it takes a recovery point before it leaves");
            harness.submit(3, train(2));
            harness.outcome(3);
            assertEquals(2, harness.controls.opened().get());
            harness.requestEviction();
            harness.submit(4, step());
            assertInstanceOf(RunReply.Completed.class, harness.outcome(4));
            assertEquals(List.of("1 FORWARD_BACKWARD", "2 OPTIM_STEP", "3 SAVE_STATE", "4 FORWARD_BACKWARD",
                    "5 OPTIM_STEP"), List.copyOf(harness.executed));
            harness.requestEviction();
            harness.requestEviction();
            assertInstanceOf(RunReply.Done.class,
                    harness.ask(r -> new RunCommand.Unload(RunHarness.OWNER, r)), "it can be unloaded");
            assertEquals(Reason.CLOSED, ((RunReply.Refused) harness.submit(9, step())).reason());
        }
    }

    @Test void aRunIsEvictedOnlyWhenItsRecoveryPointIsStoredAndContinuesUntilThen() throws Exception {
        try (var harness = harness("stays")) {
            harness.submit(0, train(1));
            harness.outcome(0);
            harness.controls.pointsToFail().set(3);
            harness.requestEviction();
            harness.await(() -> harness.controls.pointsToFail().get() < 3, "a recovery point is tried");
            harness.submit(1, step());
            assertInstanceOf(RunReply.Completed.class, harness.outcome(1));
            harness.await(() -> harness.controls.pointsToFail().get() == 0, "it tries again");
            harness.await(() -> !harness.blobs.list("runs/" + RunHarness.RUN + "/recovery").isEmpty(),
                    "a recovery point is stored");
            harness.submit(2, forward(1));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(2));
            assertEquals(2, harness.controls.opened().get());
            assertEquals(3, harness.executed.size());
        }
    }

    @Test void resultsThatAreNotFetchedLeaveMemoryAndStayAvailable() throws Exception {
        try (var harness = harness("unfetched", "bios.run { max-unfinished = 100000,"
                + " results { memory-bytes = 4 KiB, max-count = 25600, max-bytes = 1 MiB } }")) {
            int count = 300;
            for (int seq = 0; seq < count; seq++) harness.submit(seq, forward(seq));
            RunReply last = harness.outcome(count - 1);
            assertInstanceOf(RunReply.Completed.class, last);
            harness.await(() -> harness.memory().results() < 40 * 700,
                    harness.memory().results() + " bytes stay in memory");
            for (int seq : new int[] {0, 150, 7, 299})
                assertInstanceOf(RunReply.Completed.class, harness.outcome(seq), "request " + seq);
            List<RunReply> before = new ArrayList<>();
            for (int seq = 0; seq < count; seq += 13) before.add(harness.outcome(seq));
            harness.restart();
            int executed = harness.executed.size();
            List<RunReply> after = new ArrayList<>();
            for (int seq = 0; seq < count; seq += 13) after.add(harness.outcome(seq));
            assertEquals(before, after);
            assertTrue(harness.executed.size() - executed < 40, "few operations are replayed");
            assertTrue(harness.memory().results() < 40 * 700, "pages are read one by one");
        }
    }

    @Test void resultsAboveTheMemoryLimitOfANodeAreWrittenToTheBlobStore() throws Exception {
        try (var harness = harness("node", "bios.run.results.node-bytes = 10 KiB")) {
            for (int seq = 0; seq < 100; seq++) harness.submit(seq, forward(seq));
            for (int seq = 99; seq >= 0; seq--)
                assertInstanceOf(RunReply.Completed.class, harness.outcome(seq), "request " + seq);
            harness.await(() -> harness.memory().results() <= 20 << 10,
                    harness.memory().results() + " bytes stay in memory");
        }
    }

    @Test void blobsWithoutAnOwnerAreDeletedWhenTheyWereFoundForLongEnough() throws Exception {
        try (var harness = harness("sweep", "bios.run { idle-after = 200 ms, sweep-after = 2 s }")) {
            String run = "runs/" + RunHarness.RUN;
            BlobId one = harness.blobs.put(run + "/results/1", new byte[] {1}).id();
            BlobId lost = harness.blobs.put(run + "/operations/7/0.a", new byte[] {2}).id();
            harness.clock.addAndGet(365L * 24 * 3_600_000); // clocks jump
            assertInstanceOf(RunReply.Accepted.class, harness.submit(0, save("kept")));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(0));
            BlobId written = harness.blobs.list(run + "/checkpoints").getFirst().ref().id();
            assertTrue(harness.blobs.exists(one) && harness.blobs.exists(lost), "not swept at once");
            harness.await(() -> !harness.blobs.exists(one) && !harness.blobs.exists(lost), "are swept");
            assertTrue(harness.blobs.exists(written), "what a checkpoint refers to stays");
        }
    }

    @Test void aBlobThatIsNewerThanTheJournalIsNotDeletedAndItsRunIsNotStarted() throws Exception {
        try (var harness = harness("newer", "bios.run.sweep-after = 300 ms")) {
            assertInstanceOf(RunReply.Accepted.class, harness.submit(0, save("kept")));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(0));
            // As if the store had not answered when the entity started.
            String scope = "runs/" + RunHarness.RUN + "/results/1/900";
            BlobId newer = harness.blobs.put(scope, new byte[] {1}).id();
            harness.awaitEnd();
            harness.kill();
            harness.awaitEnd();
            assertTrue(harness.blobs.exists(newer), "it is evidence, no garbage");
        }
    }

    @Test void aSnapshotThatNobodyUsesIsReleasedAndOneInUseStays() throws Exception {
        try (var harness = harness("leases",
                "bios.run.unnamed-weights { lease = 1 s, newest-snapshots = 1 }")) {
            harness.stopTime();
            var snapshots = new ArrayList<BlobId>();
            for (int seq = 0; seq < 9; seq += 3) {
                harness.submit(seq, train(seq));
                harness.submit(seq + 1, step());
                harness.submit(seq + 2, new Operation.SaveSamplerWeights(Optional.empty(), Optional.empty(),
                        Optional.empty()));
                var saved = (OperationResult.Saved) assertInstanceOf(RunReply.Completed.class,
                        harness.outcome(seq + 2)).result();
                snapshots.add(saved.manifest().adapter().id());
            }
            harness.elapse(700);
            assertEquals(new RunReply.Done(), keep(harness, snapshots.getFirst()));
            harness.clock.addAndGet(Duration.ofDays(1).toMillis()); // a clock that is set ends no lease
            harness.elapse(700);
            harness.await(() -> !harness.blobs.exists(snapshots.get(1)), "nobody uses it");
            assertTrue(harness.blobs.exists(snapshots.getFirst()), "it is in use");
            assertEquals(new RunReply.Done(), keep(harness, snapshots.getFirst()));
            assertEquals(new RunReply.Done(), keep(harness, snapshots.getLast()), "it is the newest one");
            assertEquals(Reason.EXPIRED, assertInstanceOf(RunReply.Refused.class,
                    keep(harness, snapshots.get(1))).reason());
            harness.elapse(1_100);
            harness.await(() -> !harness.blobs.exists(snapshots.getFirst()), "it is no longer used");
            assertTrue(harness.blobs.exists(snapshots.getLast()));
        }
    }

    @Test void aVersionThatWasResolvedStaysAfterItsNameIsSavedAgain() throws Exception {
        try (var harness = harness("versions", "bios.run.unnamed-weights.lease = 4 s")) {
            harness.stopTime();
            var versions = new ArrayList<BlobId>();
            for (int seq = 0; seq < 9; seq += 3) {
                harness.submit(seq, train(seq));
                harness.submit(seq + 1, step());
                harness.submit(seq + 2, save("latest"));
                var saved = (OperationResult.Saved) assertInstanceOf(RunReply.Completed.class,
                        harness.outcome(seq + 2)).result();
                versions.add(saved.manifest().adapter().id());
                if (seq == 0) assertInstanceOf(RunReply.Resolved.class, harness.ask(replyTo ->
                        new RunCommand.Resolve(RunHarness.OWNER, CheckpointPath.parse("bios://"
                                + RunHarness.RUN + "/latest"), replyTo)));
            }
            harness.elapse(600);
            harness.await(() -> !harness.blobs.exists(versions.get(1)), "nobody has asked for it");
            assertTrue(harness.blobs.exists(versions.getFirst()), "somebody was told of it");
            harness.elapse(4_000);
            harness.await(() -> !harness.blobs.exists(versions.getFirst()), "it was not used since");
            assertTrue(harness.blobs.exists(versions.getLast()));
        }
    }

    @Test void whatWasLoadedFromAnotherRunIsInUseUntilTheNextRecoveryPoint() throws Exception {
        try (var harness = harness("foreign", "bios.run.unnamed-weights.lease = 1 s")) {
            harness.controls.pointsToFail().set(1000);
            var path = CheckpointPath.parse("bios://usf-finance-000000000000/a");
            harness.submit(0, save("a"));
            var own = ((OperationResult.Saved) assertInstanceOf(RunReply.Completed.class,
                    harness.outcome(0)).result()).manifest();
            var other = new CheckpointManifest(path.run(), own.kind(), own.name(), own.baseModel(),
                    own.lora(), own.contentId(), own.adapter(), own.optimizer(), own.step(), own.settings(),
                    own.optimizerType(), own.userMetadata(), own.parent(), own.createdAtMillis(),
                    Optional.empty());
            harness.elsewhere.put(path, new RunReply.Resolved(other));
            harness.submit(1, new Operation.LoadState(path, true));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(1));
            harness.await(() -> harness.kept.size() >= 3, "it says so again and again");
            assertEquals(own.adapter().id(), harness.kept.peek());
            harness.keeps = Checkpoints.expired();
            harness.submit(2, new Operation.LoadState(path, true));
            assertEquals("checkpoint_not_found", failure(harness, 2).code(), "it was deleted meanwhile");
        }
    }

    @Test void aDeletedCheckpointStaysForARunThatHasLoadedIt() throws Exception {
        try (var harness = harness("deleted", "bios.run.unnamed-weights.lease = 1 s")) {
            harness.stopTime();
            BlobId loaded = saved(harness, 0, "a");
            BlobId sampled = saved(harness, 3, "b");
            assertEquals(new RunReply.Done(), load(harness, loaded));
            assertEquals(new RunReply.Done(), keep(harness, sampled));
            delete(harness, "a");
            delete(harness, "b");
            harness.await(() -> !harness.blobs.exists(sampled), "no run has loaded it");
            assertEquals(Reason.EXPIRED, assertInstanceOf(RunReply.Refused.class,
                    keep(harness, loaded)).reason(), "it stays for no sampler");
            assertEquals(Reason.NOT_FOUND, assertInstanceOf(RunReply.Refused.class,
                    harness.ask(r -> new RunCommand.Resolve(RunHarness.OWNER, CheckpointPath.parse("bios://"
                            + RunHarness.RUN + "/a"), r))).reason());
            harness.elapse(900);
            assertEquals(new RunReply.Done(), load(harness, loaded), "its recovery point is not durable yet");
            harness.elapse(900);
            harness.restart();
            assertEquals(new RunReply.Done(), load(harness, loaded), "a new entity knows of it");
            harness.elapse(1_100);
            harness.await(() -> !harness.blobs.exists(loaded), "nobody needs it");
            assertInstanceOf(RunReply.Refused.class, load(harness, loaded));
        }
    }

    @Test void whatIsDeletedJustAfterAnEntityBeganMayHaveBeenLoaded() throws Exception {
        try (var harness = harness("deleted-early", "bios.run.unnamed-weights.lease = 1 s")) {
            harness.stopTime();
            BlobId before = saved(harness, 0, "a");
            harness.restart();
            BlobId since = saved(harness, 3, "b");
            delete(harness, "a");
            delete(harness, "b");
            harness.await(() -> !harness.blobs.exists(since), "no run can have loaded it");
            assertEquals(new RunReply.Done(), load(harness, before));
            harness.elapse(1_100);
            harness.await(() -> !harness.blobs.exists(before), "nobody needs it");
        }
    }

    private static BlobId saved(RunHarness harness, int seq, String name) {
        harness.submit(seq, train(seq));
        harness.submit(seq + 1, step());
        harness.submit(seq + 2, save(name));
        return ((OperationResult.Saved) assertInstanceOf(RunReply.Completed.class,
                harness.outcome(seq + 2)).result()).manifest().adapter().id();
    }

    private static void delete(RunHarness harness, String name) {
        assertInstanceOf(RunReply.Done.class, harness.ask(replyTo -> new RunCommand.DeleteCheckpoint(
                RunHarness.OWNER, CheckpointKind.TRAINING, new CheckpointName(name), replyTo)));
    }

    private static RunReply load(RunHarness harness, BlobId adapter) {
        return harness.ask(replyTo -> new RunCommand.KeepWeights("another run's", adapter, true, replyTo));
    }

    private static RunReply keep(RunHarness harness, BlobId adapter) {
        return harness.ask(replyTo -> new RunCommand.KeepWeights(RunHarness.OWNER, adapter, false, replyTo));
    }

    @Test void nothingMoreIsExecutedThanARecoveryMayExecuteAgain() throws Exception {
        try (var harness = harness("ahead", "bios.run.recovery-point.max-operations = 3")) {
            harness.controls.pointsToFail().set(1000);
            for (int seq = 0; seq < 9; seq++) harness.submit(seq, forward(seq));
            harness.outcome(2);
            harness.await(() -> harness.controls.pointsToFail().get() < 997, "points are tried");
            assertEquals(3, harness.executed.size());
            harness.controls.pointsToFail().set(0);
            assertInstanceOf(RunReply.Completed.class, harness.outcome(8));
            assertEquals(9, harness.executed.size());
        }
    }

    @Test void anOwnerAboveTheLimitOfUnfinishedOperationsIsRefused() throws Exception {
        try (var harness = harness("owner", "bios.run.max-unfinished-per-owner = 5")) {
            var other = harness.memory().open(() -> {});
            other.unfinished(RunHarness.OWNER, 5, 100);
            assertEquals(Reason.TOO_MANY, ((RunReply.Refused) harness.submit(0, train(1))).reason());
            other.unfinished(RunHarness.OWNER, 4, 80);
            assertInstanceOf(RunReply.Accepted.class, harness.submit(0, train(1)));
            harness.outcome(0);
            harness.await(() -> harness.memory().unfinished(RunHarness.OWNER) == 4,
                    "what is done counts no more");
            other.close();
            assertEquals(0, harness.memory().unfinished(RunHarness.OWNER));
        }
    }

    @Test void resultsAndNumbersSurviveTheEndOfTheProcess() throws Exception {
        try (var harness = harness("process")) {
            var before = play(harness, history(7), () -> {});
            harness.restart();
            for (int seq = 0; seq < before.size(); seq++)
                assertEquals(before.get(seq), harness.outcome(seq), "request " + seq);
            assertEquals(new RunReply.Accepted(new RequestId(RunHarness.RUN, 0)),
                    harness.submit(0, train(1)));
            int executions = harness.executed.size();
            assertInstanceOf(RunReply.Completed.class, harness.outcome(0));
            assertEquals(executions, harness.executed.size(), "a repetition executes nothing");
        }
    }

    @Test void theEventsAndBlobsBeforeARecoveryPointAreDeleted() throws Exception {
        try (var harness = harness("journal")) {
            long seq = 0;
            for (int i = 0; i < 30; i++) {
                harness.submit(seq++, large(i));
                harness.submit(seq++, step());
            }
            for (long s = 0; s < seq; s++) assertInstanceOf(RunReply.Completed.class, harness.outcome(s));
            long left = Long.MAX_VALUE;
            for (int i = 0; i < 100 && left > 12; i++) {
                Thread.sleep(50);
                left = harness.blobs.list("runs/" + RunHarness.RUN).size();
            }
            assertTrue(left <= 12, left + " blobs are left of 30 operations and 10 recovery points");
            harness.restart();
            int before = harness.executed.size();
            harness.submit(seq, forward(1));
            harness.outcome(seq);
            assertTrue(harness.executed.size() - before <= 20, "a recovery replays few operations");
        }
    }

    @Test void theOwnerGetsTheTimingsOfOperations() throws Exception {
        try (var harness = harness("timings")) {
            harness.create();
            harness.submit(3, train(1));
            harness.submit(4, step());
            harness.outcome(4);
            var timed = (RunReply.Timings) harness.ask(to -> new RunCommand.GetTimings(RunHarness.OWNER, to));
            assertEquals(List.of(3L, 4L), timed.timings().stream().map(OperationTiming::seq).toList());
            for (OperationTiming timing : timed.timings())
                assertTrue(timing.journalNanos() > 0 && timing.queueNanos() > 0
                        && timing.engineNanos() == timing.seq() - 2, timing::toString);
            var refused = harness.ask(replyTo -> new RunCommand.GetTimings("mallory", replyTo));
            assertEquals(Reason.NOT_FOUND, ((RunReply.Refused) refused).reason());
        }
    }

    @Test void aRepeatedNumberGetsTheFirstAnswerAndAnotherOperationUnderItAConflict() throws Exception {
        try (var harness = harness("repeat")) {
            var accepted = new RunReply.Accepted(new RequestId(RunHarness.RUN, 41));
            assertEquals(accepted, harness.submit(41, train(1)));
            assertEquals(accepted, harness.submit(41, train(1)));
            var refused = assertInstanceOf(RunReply.Refused.class, harness.submit(41, train(2)));
            assertEquals(Reason.CONFLICT, refused.reason());
            assertTrue(refused.message().contains("41"), refused.message());
            assertInstanceOf(RunReply.Completed.class, harness.outcome(41));
            assertInstanceOf(RunReply.Accepted.class, harness.submit(7, step()),
                    "numbers may come in any order");
            assertInstanceOf(RunReply.Completed.class, harness.outcome(7));
            assertEquals(List.of("1 FORWARD_BACKWARD", "2 OPTIM_STEP"), List.copyOf(harness.executed));
        }
    }

    @Test void aFailureBlocksOperationsAcceptedBeforeTheClientKnewOfItAndNoOthers() throws Exception {
        try (var harness = harness("poison")) {
            harness.submit(0, train(1));
            harness.submit(1, failing());
            harness.submit(2, train(2));
            harness.submit(3, step());
            harness.submit(4, save("never"));
            var first = assertInstanceOf(RunReply.Failed.class, harness.outcome(4));
            assertTrue(first.fault().message().contains("asked to fail at 2"), first.fault().message());
            harness.submit(5, step());
            assertEquals("no_gradient",
                    assertInstanceOf(RunReply.Failed.class, harness.outcome(5)).fault().code(),
                    "the gradient of request 0 alone is never applied");
            assertEquals("bad_data",
                    assertInstanceOf(RunReply.Failed.class, harness.outcome(2)).fault().code());
            harness.submit(6, step());
            assertEquals("no_gradient",
                    assertInstanceOf(RunReply.Failed.class, harness.outcome(6)).fault().code());
            harness.submit(7, train(3));
            harness.submit(8, step());
            assertInstanceOf(RunReply.Completed.class, harness.outcome(8),
                    "a step without gradient strikes nothing");
        }
    }

    @Test void aStepThatFailsBecauseOfAPartDropsTheOtherPartsAlsoInAReplay() throws Exception {
        RunReply alone;
        try (var harness = harness("alone")) {
            harness.submit(0, train(3));
            harness.submit(1, step());
            alone = harness.outcome(1);
        }
        try (var harness = harness("dropped")) {
            harness.submit(0, train(1));
            harness.submit(1, failing());
            harness.submit(2, step());
            assertInstanceOf(RunReply.Failed.class, harness.outcome(2));
            harness.await(() -> harness.executed.contains("3 drop"), "the sum is not dropped");
            harness.restart();
            harness.submit(3, train(3));
            harness.submit(4, step());
            assertEquals(result(alone), result(harness.outcome(4)));
            assertEquals(2, harness.executed.stream().filter("3 drop"::equals).count(), "also replayed");
        }
    }

    private static OperationResult result(RunReply reply) {
        return assertInstanceOf(RunReply.Completed.class, reply).result();
    }

    @Test void aLoadClearsAFailureThatNoClientHasSeen() throws Exception {
        try (var harness = harness("clear")) {
            harness.submit(0, train(1));
            harness.submit(1, step());
            harness.submit(2, save("good"));
            harness.submit(3, failing());
            harness.submit(4, step());
            harness.submit(5, load("good"));
            harness.submit(6, train(2));
            harness.submit(7, step());
            RunReply last = harness.outcome(7);
            assertInstanceOf(RunReply.Completed.class, last, () -> last + " " + harness.executed);
            assertInstanceOf(RunReply.Failed.class, harness.outcome(4));
            harness.submit(8, load("absent"));
            harness.submit(9, train(2));
            assertEquals("checkpoint_not_found",
                    assertInstanceOf(RunReply.Failed.class, harness.outcome(9)).fault().code());
        }
    }

    @Test void aRunThatTheEngineHasLostIsOpenedAgain() throws Exception {
        try (var harness = harness("lost")) {
            harness.submit(0, train(1));
            harness.submit(1, step());
            assertInstanceOf(RunReply.Completed.class, harness.outcome(1));
            harness.forget();
            harness.submit(2, train(3));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(2));
        }
    }

    private static Operation full() {
        return new Operation.ForwardBackward(List.of(), LossFunction.CROSS_ENTROPY, Map.of("full", 1.0),
                false);
    }

    @Test void aFaultOfTheWorkerIsNoOutcomeAndWhatMetItIsTriedAgainOnDemand() throws Exception {
        try (var harness = harness("aside")) {
            harness.submit(0, train(1));
            harness.submit(1, full());
            harness.submit(2, step());
            var told = assertInstanceOf(RunReply.Failed.class, harness.outcome(1));
            assertEquals("out_of_memory", told.fault().code());
            assertTrue(told.fault().message().contains("set aside"), told::toString);
            assertEquals("out_of_memory", assertInstanceOf(RunReply.Failed.class, harness.outcome(2))
                    .fault().code(), "what would train past it waits");
            harness.restart();
            assertInstanceOf(RunReply.Failed.class, harness.outcome(1), "it is still set aside");
            harness.controls.roomy().set(true);
            assertInstanceOf(RunReply.Done.class,
                    harness.ask(r -> new RunCommand.Retry(RunHarness.OWNER, r)));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(1));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(2));
            assertInstanceOf(RunReply.Refused.class,
                    harness.ask(r -> new RunCommand.Retry(RunHarness.OWNER, r)), "nothing is set aside now");
        }
    }

    @Test void anOldNumberWithAnotherOperationIsRefusedAlsoWhenItsResultIsInAPageOrGone() throws Exception {
        try (var harness = harness("old", "bios.run.results.max-count = 6")) {
            for (int i = 0; i < 8; i++) {
                harness.submit(2 * i, train(i));
                harness.submit(2 * i + 1, step());
            }
            assertInstanceOf(RunReply.Completed.class, harness.outcome(15));
            harness.restart();
            for (long seq : List.of(14L, 0L)) {
                var refused = assertInstanceOf(RunReply.Refused.class, harness.submit(seq, train(99)));
                assertEquals(RunCommand.Reason.CONFLICT, refused.reason(), refused::message);
            }
            assertInstanceOf(RunReply.Accepted.class, harness.submit(14, train(7)), "it is the same one");
        }
    }

    @Test void anOwnerWhoGoesOnGivesUpWhatWasSetAside() throws Exception {
        try (var harness = harness("passed")) {
            harness.submit(0, train(1));
            harness.submit(1, full());
            harness.submit(2, step());
            assertInstanceOf(RunReply.Failed.class, harness.outcome(1));
            harness.submit(3, train(2));
            harness.submit(4, step());
            assertInstanceOf(RunReply.Completed.class, harness.outcome(4));
            assertTrue(harness.executed.contains("3 drop"), "request 0 without request 1 is never applied");
            var failed = assertInstanceOf(RunReply.Failed.class, harness.outcome(1));
            assertEquals("no room", failed.fault().message());
            assertEquals("out_of_memory",
                    assertInstanceOf(RunReply.Failed.class, harness.outcome(2)).fault().code());
        }
    }

    @Test void theOwnerGivesUpWhatWasSetAside() throws Exception {
        try (var harness = harness("given-up")) {
            harness.submit(0, full());
            harness.submit(1, step());
            assertInstanceOf(RunReply.Failed.class, harness.outcome(0), "it is set aside");
            assertInstanceOf(RunReply.Done.class,
                    harness.ask(r -> new RunCommand.GiveUp(RunHarness.OWNER, r)));
            assertEquals("no room", assertInstanceOf(RunReply.Failed.class, harness.outcome(0))
                    .fault().message());
            assertInstanceOf(RunReply.Failed.class, harness.outcome(1));
            harness.submit(2, train(2));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(2));
        }
    }

    private static RunReply giveUp(RunHarness harness, long seq) {
        return harness.ask(r -> new RunCommand.GiveUp(RunHarness.OWNER, Optional.of(seq), r));
    }

    private static RunReply retry(RunHarness harness, long seq) {
        return harness.ask(r -> new RunCommand.Retry(RunHarness.OWNER, Optional.of(seq), r));
    }

    private static Optional<WaitingOperation> waiting(RunHarness harness) {
        return assertInstanceOf(RunReply.Described.class,
                harness.ask(r -> new RunCommand.Describe(RunHarness.OWNER, r))).waiting();
    }

    /// The operation is set aside, and the only one that is.
    private static void assertSetAside(RunHarness harness, long seq) throws Exception {
        harness.await(() -> waiting(harness).filter(w -> w.seq() == seq && w.setAside()).isPresent(),
                "not set aside");
        assertTrue(failure(harness, seq).message().contains("{\"seq_id\": " + seq + "}"));
    }

    private static void assertRefused(Reason reason, String text, RunReply reply) {
        var refused = assertInstanceOf(RunReply.Refused.class, reply);
        assertEquals(reason, refused.reason(), refused::message);
        assertTrue(refused.message().contains(text), refused::message);
    }

    @Test void aDecisionThatIsRepeatedIsNotAboutTheNextOperationThatWasSetAside() throws Exception {
        try (var harness = harness("named", "bios.run.rest-after = 100 ms")) {
            harness.submit(10, full());
            harness.submit(11, step());
            assertSetAside(harness, 10);
            assertRefused(Reason.CONFLICT, "operation 11 is not the one", giveUp(harness, 11));
            assertRefused(Reason.CONFLICT, "waits for operation 10", retry(harness, 11));
            assertRefused(Reason.INVALID, "operation 7 was never accepted", giveUp(harness, 7));
            assertRefused(Reason.INVALID, "operation 7 was never accepted", retry(harness, 7));
            assertSetAside(harness, 10);
            assertInstanceOf(RunReply.Done.class, giveUp(harness, 10));
            harness.submit(12, full());
            assertSetAside(harness, 12);
            assertInstanceOf(RunReply.Done.class, giveUp(harness, 10), "its answer may have been lost");
            assertRefused(Reason.CONFLICT, "operation 10 has failed", retry(harness, 10));
            assertSetAside(harness, 12);
            harness.controls.roomy().set(true);
            assertInstanceOf(RunReply.Done.class, retry(harness, 12));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(12));
            assertInstanceOf(RunReply.Done.class, retry(harness, 12), "its answer may have been lost");
            harness.await(() -> history(harness).stream().anyMatch(e -> e.kind() == Kind.RECOVERY_POINT
                    && e.position().equals(Optional.of(3L))), "it would be replayed");
            harness.controls.roomy().set(false);
            harness.submit(13, full());
            assertSetAside(harness, 13);
            assertInstanceOf(RunReply.Done.class, retry(harness, 12), "its answer may have been lost");
            assertRefused(Reason.CONFLICT, "operation 12 has succeeded", giveUp(harness, 12));
            assertSetAside(harness, 13);
            assertInstanceOf(RunReply.Done.class, giveUp(harness, 13));
            assertEquals(Optional.empty(), waiting(harness));
        }
    }

    @Test void aDecisionIsStillKnownWhenItsOperationIsBeforeTheRecoveryPoint() throws Exception {
        try (var harness = harness("named-page", "bios.run.results.max-count = 60")) {
            harness.submit(0, full());
            assertSetAside(harness, 0);
            assertInstanceOf(RunReply.Done.class, giveUp(harness, 0));
            for (int i = 1; i < 9; i++) {
                harness.submit(2 * i, train(i));
                harness.submit(2 * i + 1, step());
            }
            assertInstanceOf(RunReply.Completed.class, harness.outcome(17));
            harness.restart();
            assertInstanceOf(RunReply.Done.class, giveUp(harness, 0));
            assertRefused(Reason.CONFLICT, "operation 0 has failed", retry(harness, 0));
            assertInstanceOf(RunReply.Done.class, retry(harness, 3));
            assertRefused(Reason.CONFLICT, "operation 3 has succeeded", giveUp(harness, 3));
            harness.ask(r -> new RunCommand.Unload(RunHarness.OWNER, r));
            harness.restart();
            assertRefused(Reason.CONFLICT, "no longer kept", giveUp(harness, 3));
        }
    }

    @Test void whatWaitsForAStoreIsGivenUpByItsNumber() throws Exception {
        try (var harness = harness("named-store")) {
            harness.controls.away().set(true);
            harness.submit(0, train(1));
            harness.submit(1, stored());
            harness.submit(2, step());
            awaitStore(harness, 1);
            WaitingOperation waits = waiting(harness).orElseThrow();
            assertEquals(1, waits.seq());
            assertFalse(waits.setAside());
            assertEquals("store_failed", waits.why().code());
            assertRefused(Reason.CONFLICT, "operation 1 is, give that one up",
                    giveUp(harness, 2));
            assertInstanceOf(RunReply.Done.class, retry(harness, 1), "it is tried again by itself");
            for (int i = 0; i < 2; i++) assertInstanceOf(RunReply.Done.class, giveUp(harness, 1));
            assertEquals("store_failed", failure(harness, 1).code());
            assertEquals(Optional.empty(), waiting(harness));
        }
    }

    private static Operation stored() {
        return new Operation.ForwardBackward(List.of(), LossFunction.CROSS_ENTROPY, Map.of("stored", 1.0),
                false);
    }

    private static RunReply giveUp(RunHarness harness) {
        return harness.ask(r -> new RunCommand.GiveUp(RunHarness.OWNER, r));
    }

    /// Waits until the run says that it waits for the store.
    private static void awaitStore(RunHarness harness, long seq) throws Exception {
        harness.await(() -> harness.ask(r -> new RunCommand.Retrieve(RunHarness.OWNER, seq, 0, r))
                instanceof RunReply.Stalled(_, var why) && why.code().equals("store_failed"), "no wait");
    }

    @Test void theOwnerGivesUpWhatWaitsForAStoreThatStaysAway() throws Exception {
        try (var harness = harness("store-given-up")) {
            harness.controls.away().set(true);
            harness.submit(0, train(1));
            harness.submit(1, stored());
            harness.submit(2, step());
            harness.submit(3, forward(1));
            awaitStore(harness, 1);
            assertInstanceOf(RunReply.Done.class, giveUp(harness));
            for (long seq : List.of(1L, 2L, 3L)) assertEquals("store_failed",
                    assertInstanceOf(RunReply.Failed.class, harness.outcome(seq)).fault().code());
            assertInstanceOf(RunReply.Completed.class, harness.outcome(0));
            HistoryEntry failed = history(harness).stream().filter(e -> e.kind() == Kind.OPERATION_FAILED)
                    .findFirst().orElseThrow();
            assertEquals(Optional.of(1L), failed.seq());
            assertEquals("store_failed", failed.detail().get("code"));
            harness.submit(4, train(2));
            harness.submit(5, step());
            assertInstanceOf(RunReply.Completed.class, harness.outcome(5), "the owner knows of the failure");
            assertInstanceOf(RunReply.Refused.class, giveUp(harness), "nothing waits now");
        }
    }

    @Test void whatWasExecutedBeforeKeepsItsOutcomeWhenTheOwnerGivesUpWithoutTheStore() throws Exception {
        try (var harness = harness("store-executed", "bios.run.rest-after = 1 h")) {
            harness.submit(0, stored());
            RunReply told = assertInstanceOf(RunReply.Completed.class, harness.outcome(0));
            harness.controls.away().set(true);
            harness.submit(1, stored()); // says that the one before was executed
            awaitStore(harness, 1);
            harness.restart();
            harness.submit(2, step());
            awaitStore(harness, 2);
            assertInstanceOf(RunReply.Done.class, giveUp(harness));
            assertInstanceOf(RunReply.Failed.class, harness.outcome(1), "though the replay waits");
            assertInstanceOf(RunReply.Failed.class, harness.outcome(2));
            assertInstanceOf(RunReply.Refused.class, giveUp(harness), "what is left was executed");
            harness.controls.away().set(false);
            harness.restart();
            assertEquals(told, harness.outcome(0));
        }
    }

    @Test void aRunIsUnloadedThoughItsStoreStaysAway() throws Exception {
        for (boolean executed : List.of(false, true)) try (var harness =
                harness("store-unload" + executed, "bios.run.rest-after = 1 h")) {
            harness.controls.away().set(!executed);
            harness.submit(0, stored());
            if (executed) {
                harness.outcome(0);
                harness.controls.away().set(true);
                harness.submit(1, stored()); // says that the one before was executed
                harness.restart();
            }
            awaitStore(harness, 0);
            assertInstanceOf(RunReply.Done.class,
                    harness.ask(r -> new RunCommand.Unload(RunHarness.OWNER, r)));
            assertInstanceOf(RunReply.Failed.class, harness.outcome(executed ? 1 : 0));
        }
    }

    private static Operation checked() {
        return new Operation.ForwardBackward(List.of(new Datum(new int[] {1}, Map.of())),
                LossFunction.CROSS_ENTROPY, Map.of("checked", 1.0), false);
    }

    private static Fault failure(RunHarness harness, long seq) {
        return assertInstanceOf(RunReply.Failed.class, harness.outcome(seq)).fault();
    }

    @Test void anOutcomeThatWasToldStaysThoughItsReplayFails() throws Exception {
        try (var harness = harness("differs", "bios.run { rest-after = 1 h, attempts = 100 }")) {
            harness.submit(0, checked());
            RunReply told = assertInstanceOf(RunReply.Completed.class, harness.outcome(0));
            harness.controls.strict().set(true);
            harness.restart();
            harness.await(() -> harness.ask(r -> new RunCommand.Retrieve(RunHarness.OWNER, 0, 0, r))
                    instanceof RunReply.Stalled(_, var why) && why.code().equals("replay_differs")
                    && why.message().contains("bad_data"), "its reason is told");
            harness.controls.strict().set(false);
            assertEquals(told, harness.outcome(0));
        }
        try (var harness = harness("differs-aside", "bios.run { rest-after = 1 h, attempts = 2 }")) {
            harness.submit(0, checked());
            harness.submit(1, step());
            RunReply told = assertInstanceOf(RunReply.Completed.class, harness.outcome(0));
            RunReply stepped = assertInstanceOf(RunReply.Completed.class, harness.outcome(1));
            harness.controls.strict().set(true);
            harness.restart();
            assertTrue(failure(harness, 0).message().contains("give_up"), "it is set aside");
            for (int seq : List.of(2, 3)) {
                harness.submit(seq, train(seq));
                assertEquals("replay_differs", failure(harness, seq).code(), "going on decides nothing");
            }
            assertTrue(failure(harness, 1).message().contains("set aside"));
            harness.controls.strict().set(false);
            assertInstanceOf(RunReply.Done.class,
                    harness.ask(r -> new RunCommand.Retry(RunHarness.OWNER, r)));
            assertEquals(told, harness.outcome(0));
            assertEquals(stepped, harness.outcome(1));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(3));
        }
    }

    @Test void theOwnerGivesUpWhatFailsInAReplay() throws Exception {
        try (var harness = harness("differs-up", "bios.run { rest-after = 1 h, attempts = 2 }")) {
            harness.submit(0, checked());
            assertInstanceOf(RunReply.Completed.class, harness.outcome(0));
            harness.controls.strict().set(true);
            harness.submit(1, failing());
            assertEquals("bad_data", failure(harness, 1).code(), "it was never executed");
            harness.restart();
            assertEquals("replay_differs", failure(harness, 0).code());
            assertInstanceOf(RunReply.Done.class, giveUp(harness));
            assertFalse(failure(harness, 0).message().contains("set aside"), "it has failed");
            assertEquals("bad_data", failure(harness, 1).code());
            harness.submit(2, train(2));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(2));
        }
    }

    @Test void theOwnerGivesUpWhatIsStuckInItsReplay() throws Exception {
        try (var harness = harness("stuck",
                "bios.run { rest-after = 1 h, attempts = 2, retry-after = 10 ms }")) {
            harness.controls.roomy().set(true);
            harness.submit(0, train(1));
            harness.submit(1, full());
            harness.submit(2, step());
            RunReply first = assertInstanceOf(RunReply.Completed.class, harness.outcome(0));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(2));
            assertInstanceOf(RunReply.Refused.class, giveUp(harness), "nothing waits");
            harness.controls.roomy().set(false);
            harness.restart();
            harness.submit(3, forward(1));
            harness.await(() -> harness.ask(r -> new RunCommand.Retrieve(RunHarness.OWNER, 1, 0, r))
                    instanceof RunReply.Stalled(_, var why) && why.message().contains("give_up"),
                    "it is told what its owner can do");
            CompletableFuture<RunReply> unloaded =
                    harness.tell(r -> new RunCommand.Unload(RunHarness.OWNER, r));
            assertInstanceOf(RunReply.Refused.class, harness.submit(4, train(2)), "it is being unloaded");
            assertFalse(unloaded.isDone(), "a worker may have room again");
            harness.restart();
            harness.await(() -> harness.ask(r -> new RunCommand.Retrieve(RunHarness.OWNER, 1, 0, r))
                    instanceof RunReply.Stalled(_, var why) && why.message().contains("give_up"), "again");
            assertInstanceOf(RunReply.Done.class, giveUp(harness));
            assertEquals(first, harness.outcome(0), "it is executed before");
            for (long seq : List.of(1L, 2L)) assertEquals("out_of_memory", failure(harness, seq).code());
            harness.submit(4, train(2));
            harness.submit(5, step());
            assertInstanceOf(RunReply.Completed.class, harness.outcome(5), "the run goes on");
        }
    }

    @Test void anOperationWhoseReplayEndsWorkersWaitsAndCanBeGivenUp() throws Exception {
        try (var harness = harness("deadly-replay", "bios.run { rest-after = 1 h, retry-after = 1 h }")) {
            harness.submit(0, train(1));
            harness.submit(1, step());
            RunReply first = assertInstanceOf(RunReply.Completed.class, harness.outcome(0));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(1));
            harness.reportDeath(2, 3);
            assertInstanceOf(RunReply.Refused.class, giveUp(harness), "this process has executed it");
            harness.restart();
            harness.await(() -> harness.ask(r -> new RunCommand.Retrieve(RunHarness.OWNER, 1, 0, r))
                    instanceof RunReply.Stalled(_, var why) && why.code().equals("worker_lost")
                    && why.message().contains("give_up"), "it is told what its owner can do");
            assertEquals(first, harness.outcome(0), "it is executed before");
            assertInstanceOf(RunReply.Done.class, giveUp(harness, 1));
            assertEquals("worker_lost", failure(harness, 1).code());
            harness.submit(2, train(2));
            harness.submit(3, step());
            assertInstanceOf(RunReply.Completed.class, harness.outcome(3));
        }
    }

    @Test void whatIsGivenUpBeforeALoadChangesNothingBehindIt() throws Exception {
        try (var harness = harness("stuck-load",
                "bios.run { rest-after = 1 h, attempts = 2, retry-after = 10 ms }")) {
            harness.controls.roomy().set(true);
            harness.submit(0, save("a"));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(0));
            harness.controls.pointsToFail().set(1000);
            List<Operation> operations = List.of(full(), step(), new Operation.LoadState(CheckpointPath.parse(
                    "bios://" + RunHarness.RUN + "/a"), true), train(1), step(), forward(1));
            for (int i = 0; i < operations.size(); i++) harness.submit(i + 1, operations.get(i));
            var told = new ArrayList<RunReply>();
            for (int seq = 3; seq <= 6; seq++)
                told.add(assertInstanceOf(RunReply.Completed.class, harness.outcome(seq)));
            harness.controls.roomy().set(false);
            harness.restart();
            harness.await(() -> harness.ask(r -> new RunCommand.Retrieve(RunHarness.OWNER, 1, 0, r))
                    instanceof RunReply.Stalled(_, var why) && why.message().contains("give_up"), "stuck");
            assertInstanceOf(RunReply.Done.class, giveUp(harness, 1));
            for (long seq : List.of(1L, 2L)) assertEquals("out_of_memory", failure(harness, seq).code());
            for (int seq = 3; seq <= 6; seq++) assertEquals(told.get(seq - 3), harness.outcome(seq));
        }
    }

    @Test void theOwnerGivesUpALoadThatNobodyAnswers() throws Exception {
        try (var harness = harness("unanswered", "bios.run { rest-after = 1 h, retry-after = 10 ms }")) {
            var path = CheckpointPath.parse("bios://usf-finance-000000000000/a");
            harness.elsewhere.put(path, new RunReply.Refused(Reason.UNAVAILABLE, "damaged"));
            harness.submit(0, new Operation.LoadState(path, true));
            harness.submit(1, train(1));
            harness.await(() -> harness.ask(r -> new RunCommand.Retrieve(RunHarness.OWNER, 0, 0, r))
                    instanceof RunReply.Stalled(_, var why) && why.code().equals("checkpoint_unavailable"),
                    "its reason is told");
            assertInstanceOf(RunReply.Done.class, giveUp(harness, 0));
            for (long seq : List.of(0L, 1L))
                assertEquals("checkpoint_unavailable", failure(harness, seq).code());
            harness.submit(2, train(2));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(2));
        }
    }

    @Test void aFaultThatIsOverFailsNothingElse() throws Exception {
        try (var harness = harness("over", "bios.run { rest-after = 1 h, attempts = 1 }")) {
            harness.submit(0, train(1));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(0));
            harness.controls.away().set(true);
            harness.submit(1, stored());
            awaitStore(harness, 1);
            assertInstanceOf(RunReply.Done.class, giveUp(harness));
            harness.controls.away().set(false);
            harness.submit(2, train(2));
            assertInstanceOf(RunReply.Refused.class, giveUp(harness), "it waits for nothing");
            assertInstanceOf(RunReply.Done.class,
                    harness.ask(r -> new RunCommand.Unload(RunHarness.OWNER, r)));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(2));
        }
    }

    @Test void anOperationDuringWhichWorkersEndedIsSetAsideUnlessItWasExecutedBefore() throws Exception {
        try (var harness = harness("deaths", "bios.run { rest-after = 1 h, retry-after = 10 ms }")) {
            harness.submit(0, train(1));
            harness.submit(1, step());
            assertInstanceOf(RunReply.Completed.class, harness.outcome(1));
            harness.submit(2, train(2)); // says that the two before were executed
            assertInstanceOf(RunReply.Completed.class, harness.outcome(2));
            harness.reportDeath(2, 3);
            harness.kill();
            assertInstanceOf(RunReply.Completed.class, harness.outcome(1), "its outcome was told");
            harness.reportDeath(4, 9);
            harness.submit(3, train(3));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(3));
        }
    }

    @Test void checkpointsAreReplacedResolvedDeletedAndExpire() throws Exception {
        try (var harness = harness("checkpoints")) {
            harness.submit(0, train(1));
            harness.submit(1, step());
            harness.submit(2, save("x"));
            harness.submit(3, train(2));
            harness.submit(4, step());
            harness.submit(5, save("x"));
            harness.submit(6, sampler("x"));
            harness.submit(7, new Operation.SaveState(new CheckpointName("t"), "{}", Optional.of(10L)));
            for (long seq = 0; seq < 8; seq++)
                assertInstanceOf(RunReply.Completed.class, harness.outcome(seq));
            var path = CheckpointPath.parse("bios://" + RunHarness.RUN + "/x");
            var resolved = assertInstanceOf(RunReply.Resolved.class,
                    harness.ask(r -> new RunCommand.Resolve(RunHarness.OWNER, path, r)));
            assertEquals(2, resolved.manifest().step());
            assertEquals(CheckpointKind.TRAINING, resolved.manifest().kind());
            assertInstanceOf(RunReply.Refused.class,
                    harness.ask(r -> new RunCommand.Resolve("mallory", path, r)));
            harness.ask(r -> new RunCommand.DeleteCheckpoint(RunHarness.OWNER, CheckpointKind.TRAINING,
                    new CheckpointName("x"), r));
            var second = assertInstanceOf(RunReply.Resolved.class,
                    harness.ask(r -> new RunCommand.Resolve(RunHarness.OWNER, path, r)));
            assertEquals(CheckpointKind.SAMPLER, second.manifest().kind());
            harness.clock.addAndGet(3_600_000);
            var expired = CheckpointPath.parse("bios://" + RunHarness.RUN + "/t");
            assertInstanceOf(RunReply.Refused.class,
                    harness.ask(r -> new RunCommand.Resolve(RunHarness.OWNER, expired, r)));
            var described = (RunReply.Described) harness
                    .ask(r -> new RunCommand.Describe(RunHarness.OWNER, r));
            assertEquals(1, described.checkpoints().size());
            assertTrue(harness.blobs.exists(second.manifest().adapter().id()),
                    "deleting shared content keeps it for the other");
        }
    }

    @Test void theIndexShowsStepsWithoutARecoveryPointAndIsNotWrittenForEach() throws Exception {
        try (var harness = new RunHarness(folder,
                SMALL + "\nbios.run.recovery-point { steps = 1000, operations = 1000 }", PAUSE)) {
            harness.create();
            for (int i = 0; i < 20; i++) {
                harness.submit(2 * i, train(i));
                harness.submit(2 * i + 1, step());
            }
            harness.outcome(39);
            harness.await(() -> harness.index.rows.get(RunHarness.RUN).step() == 20, "the row is behind");
            assertEquals(1039, harness.index.rows.get(RunHarness.RUN).lastRequestMillis());
            assertTrue(harness.blobs.list("runs/" + RunHarness.RUN + "/recovery").isEmpty());
            int puts = harness.index.puts.get();
            assertTrue(puts < 20, puts + " writes");
            harness.submit(40, load("missing"));
            harness.outcome(40);
            harness.kill();
            harness.outcome(39);
            assertEquals(20, harness.index.rows.get(RunHarness.RUN).step(),
                    "a replay does not reset the step");
        }
    }

    @Test void theOwnerIsCheckedWithoutADescription() throws Exception {
        try (var harness = new RunHarness(folder, SMALL, PAUSE)) {
            assertEquals(Reason.NOT_FOUND, ((RunReply.Refused) harness
                    .ask(r -> new RunCommand.CheckOwner(RunHarness.OWNER, r))).reason());
            harness.create();
            assertInstanceOf(RunReply.Done.class,
                    harness.ask(r -> new RunCommand.CheckOwner(RunHarness.OWNER, r)));
            var summary = (RunReply.Summary) harness
                    .ask(r -> new RunCommand.Summarize(RunHarness.OWNER, r));
            assertEquals(RunHarness.RUN, summary.config().run());
            assertFalse(summary.closed());
            assertEquals(Reason.NOT_FOUND, ((RunReply.Refused) harness
                    .ask(r -> new RunCommand.Summarize("mallory", r))).reason());
            assertEquals(Reason.NOT_FOUND, ((RunReply.Refused) harness
                    .ask(r -> new RunCommand.CheckOwner("mallory", r))).reason());
        }
    }

    @Test void anUnknownRunAndAnUnloadedOneRefuse() throws Exception {
        try (var harness = new RunHarness(folder, SMALL, PAUSE)) {
            assertEquals(Reason.NOT_FOUND, ((RunReply.Refused) harness.submit(0, train(1))).reason());
            harness.create();
            harness.submit(0, train(1));
            harness.submit(1, save("kept"));
            assertInstanceOf(RunReply.Done.class,
                    harness.ask(r -> new RunCommand.Unload(RunHarness.OWNER, r)));
            assertEquals(Reason.CLOSED, ((RunReply.Refused) harness.submit(2, train(1))).reason());
            assertInstanceOf(OperationResult.Saved.class, ((RunReply.Completed) harness.outcome(1)).result());
            harness.kill();
            var described = (RunReply.Described) harness
                    .ask(r -> new RunCommand.Describe(RunHarness.OWNER, r));
            assertTrue(described.closed());
            assertEquals(1, described.checkpoints().size());
        }
    }

    @Test void aRunThatWasUnloadedEmptyIsNotListed() throws Exception {
        try (var harness = new RunHarness(folder, SMALL, PAUSE)) {
            harness.create();
            harness.submit(0, load("missing"));
            harness.outcome(0);
            harness.await(() -> harness.index.rows.containsKey(RunHarness.RUN), "it is listed");
            harness.ask(r -> new RunCommand.Unload(RunHarness.OWNER, r));
            harness.await(() -> harness.index.rows.isEmpty(), "it is listed no more");
            harness.kill();
            harness.ask(r -> new RunCommand.Describe(RunHarness.OWNER, r));
            harness.await(() -> harness.index.rows.isEmpty(), "it is listed no more");
        }
    }

    @Test void anOperationThatTheStoreCannotReadNowIsRetried() throws Exception {
        try (var harness = harness("unreadable")) {
            harness.submit(0, train(1));
            harness.submit(1, new Operation.ForwardBackward(List.of(), LossFunction.CROSS_ENTROPY,
                    Map.of("unreadable", 3.0), false));
            harness.submit(2, step());
            assertInstanceOf(RunReply.Completed.class, harness.outcome(2));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(1));
            assertEquals(4, harness.executed.stream().filter("2 FORWARD_BACKWARD"::equals).count());
        }
    }

    @Test void resultsThatTheStoreCannotReadNowAreRetried() throws Exception {
        try (var harness = harness("results")) {
            var before = play(harness, history(3), () -> {});
            harness.failingReads.set(4);
            harness.restart();
            for (int seq = 0; seq < before.size(); seq++)
                assertEquals(before.get(seq), harness.outcome(seq), "request " + seq);
        }
    }

    @Test void theStepAfterALoadIsThatOfTheCheckpoint() throws Exception {
        try (var harness = harness("step")) {
            harness.submit(0, train(1));
            harness.submit(1, step());
            harness.submit(2, save("early"));
            for (int i = 0; i < 4; i++) {
                harness.submit(3 + 2 * i, train(i));
                harness.submit(4 + 2 * i, step());
            }
            harness.submit(11, load("early"));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(11));
            harness.submit(12, save("again"));
            harness.outcome(12);
            var described = (RunReply.Described) harness
                    .ask(r -> new RunCommand.Describe(RunHarness.OWNER, r));
            assertEquals(1, described.step());
        }
    }

    @Test void anIdleRunThatTheEngineHasLostIsReplayedForItsRecoveryPoint() throws Exception {
        try (var harness = new RunHarness(Files.createDirectories(folder.resolve("idle")),
                SMALL + "\nbios.run.idle-after = 400 ms", PAUSE)) {
            harness.create();
            harness.submit(0, train(1));
            harness.outcome(0);
            harness.forget();
            harness.await(() -> harness.executed.size() >= 2, "it is not replayed");
            assertEquals(List.of("1 FORWARD_BACKWARD", "1 FORWARD_BACKWARD"),
                    List.copyOf(harness.executed).subList(0, 2));
        }
    }

    @Test void aRunThatRestsIsNotReplayedAtARestart() throws Exception {
        try (var harness = harness("rests", "bios.run { rest-after = 100 ms, idle-after = 1 h }")) {
            harness.submit(0, train(1));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(0));
            harness.await(() -> kinds(harness).contains(Kind.RECOVERY_POINT), "a point of the resting run");
            harness.executed.clear();
            harness.restart();
            harness.submit(1, step());
            assertInstanceOf(RunReply.Completed.class, harness.outcome(1));
            assertEquals(List.of("2 OPTIM_STEP"), List.copyOf(harness.executed));
        }
    }

    @Test void anEntityThatIsWronglyConsideredDeadAcknowledgesNothing() throws Exception {
        try (var harness = harness("doubt")) {
            harness.submit(0, train(1));
            harness.outcome(0);
            ActorRef<RunCommand> before = harness.startAnother();
            assertInstanceOf(RunReply.Completed.class, harness.outcome(0), "the new one answers");
            var heard = new CompletableFuture<RunReply>();
            before.tell(harness.command(1, train(2), harness.replyProbe(heard)));
            assertEquals(new RunReply.Accepted(new RequestId(RunHarness.RUN, 1)),
                    harness.submit(1, train(2)));
            assertInstanceOf(RunReply.Completed.class, harness.outcome(1));
            assertTrue(!heard.isDone(), "the old one has written nothing");
        }
    }

    private static List<HistoryEntry> history(RunHarness harness) {
        return ((RunReply.History) harness.ask(to -> new RunCommand.GetHistory(RunHarness.OWNER, to)))
                .entries();
    }

    private static List<Kind> kinds(RunHarness harness) {
        return history(harness).stream().map(HistoryEntry::kind).toList();
    }

    private static RunReply now(CompletableFuture<RunReply> told) throws Exception {
        return told.get(20, TimeUnit.SECONDS);
    }

    @Test void whoFollowsARunIsToldWhenThereIsSomethingAndCanGoOnAfterItsEnd() throws Exception {
        Path data = Files.createDirectories(folder.resolve("followed"));
        long last;
        try (var harness = new RunHarness(data, SMALL, PAUSE)) {
            harness.create();
            harness.submit(1, train(1));
            harness.outcome(1);
            last = history(harness).getLast().number().orElseThrow();
            long after = last;
            var entry = harness.tell(to -> new RunCommand.GetHistory(RunHarness.OWNER, after, 60_000, to));
            var metrics = harness.tell(to -> new RunCommand.GetMetrics(RunHarness.OWNER, 1, 60_000, to));
            assertEquals(new RunReply.History(List.of()), now(harness.tell(to ->
                    new RunCommand.GetHistory(RunHarness.OWNER, after, 10, to))), "the wait is over");
            assertInstanceOf(RunReply.Refused.class, harness.ask(to ->
                    new RunCommand.GetMetrics("mallory", 0, 60_000, to)));
            assertTrue(!entry.isDone() && !metrics.isDone(), "they wait");
            harness.submit(2, save("a"));
            harness.outcome(2);
            var added = ((RunReply.History) now(entry)).entries();
            assertTrue(added.stream().allMatch(e -> e.number().orElseThrow() > after), added::toString);
            var reported = ((RunReply.Metrics) now(metrics)).operations();
            assertEquals(List.of(2L), reported.stream().map(OperationMetrics::position).toList());
            var leaving = harness.tell(to -> new RunCommand.GetMetrics(RunHarness.OWNER, 2, 60_000, to));
            harness.tell(_ -> new RunCommand.Leave());
            assertEquals(new RunReply.Metrics(List.of()), now(leaving), "it can ask the next entity");
        }
        try (var harness = new RunHarness(data, SMALL, PAUSE)) {
            var metrics = harness.tell(to -> new RunCommand.GetMetrics(RunHarness.OWNER, 2, 60_000, to));
            harness.submit(3, train(3));
            harness.outcome(3);
            assertEquals(List.of(3L), ((RunReply.Metrics) now(metrics)).operations().stream()
                    .map(OperationMetrics::position).toList());
            long first = last;
            assertTrue(history(harness).stream().anyMatch(e -> e.number().orElseThrow() > first));
        }
    }

    private static double counted(Counter counter, String... labels) {
        return counter.labelValues(labels).get();
    }

    private static final String SLUG = RunHarness.RUN.slug();

    @Test void theHistoryShowsFailuresAndMovesOfARun() throws Exception {
        double executed = counted(Metrics.OPERATIONS_EXECUTED, SLUG, "optim_step");
        double replayed = counted(Metrics.OPERATIONS_REPLAYED, SLUG, "optim_step");
        double moved = counted(Metrics.RUNS_MOVED, SLUG);
        double points = counted(Metrics.RECOVERY_POINTS, SLUG);
        Path data = Files.createDirectories(folder.resolve("history"));
        try (var harness = new RunHarness(data, SMALL + "\nbios.node.name = node-1", PAUSE)) {
            harness.create();
            for (int i = 0; i < 5; i++) {
                harness.submit(2 * i, train(i));
                harness.submit(2 * i + 1, step());
            }
            harness.submit(10, save("a"));
            for (int i = 0; i < 11; i++) harness.outcome(i);
            List<Kind> kinds = kinds(harness);
            assertEquals(List.of(Kind.CREATED, Kind.OPENED), kinds.subList(0, 2));
            assertTrue(kinds.contains(Kind.RECOVERY_POINT) && kinds.contains(Kind.CHECKPOINT_SAVED),
                    kinds::toString);
            assertInstanceOf(RunReply.Refused.class,
                    harness.ask(r -> new RunCommand.GetHistory("mallory", r)));
        }
        assertEquals(5, counted(Metrics.OPERATIONS_EXECUTED, SLUG, "optim_step") - executed);
        assertTrue(counted(Metrics.RECOVERY_POINTS, SLUG) > points);
        assertEquals(0, Metrics.OPERATIONS_UNFINISHED.labelValues(SLUG).get());
        try (var harness = new RunHarness(data, SMALL + "\nbios.node.name = node-2", PAUSE)) {
            harness.submit(11, step());
            harness.outcome(11);
            List<HistoryEntry> notes = history(harness);
            HistoryEntry move = notes.stream().filter(n -> n.kind() == Kind.MOVED).findFirst().orElseThrow();
            assertEquals(Optional.of("node-2"), move.node());
            assertEquals("node-1", move.detail().get("from"));
            HistoryEntry opened = notes.get(notes.indexOf(move) + 1);
            assertEquals(Kind.OPENED, opened.kind());
            int again = Integer.parseInt(opened.detail().get("replay"));
            assertTrue(again > 0 && !opened.detail().get("recovery_point").equals("none"), opened::toString);
            HistoryEntry recovered = notes.stream().filter(n -> n.kind() == Kind.RECOVERED).findFirst()
                    .orElseThrow();
            assertEquals("" + again, recovered.detail().get("operations"));
        }
        assertEquals(1, counted(Metrics.RUNS_MOVED, SLUG) - moved);
        assertTrue(counted(Metrics.OPERATIONS_REPLAYED, SLUG, "optim_step") > replayed);
    }

    @Test void aRunThatCannotBeOpenedReportsTheCauseOnceAndContinuesAfterTheRepair() throws Exception {
        Path data = Files.createDirectories(folder.resolve("damaged"));
        try (var harness = new RunHarness(data, SMALL, PAUSE)) {
            harness.create();
            for (int i = 0; i < 3; i++) {
                harness.submit(2 * i, train(i));
                harness.submit(2 * i + 1, step());
            }
            for (int i = 0; i < 6; i++) harness.outcome(i);
            while (!kinds(harness).contains(Kind.RECOVERY_POINT)) Thread.onSpinWait();
            Path blob = point(data);
            byte[] good = Files.readAllBytes(blob);
            byte[] bad = good.clone();
            bad[0] ^= 1;
            Files.write(blob, bad);
            double tries = counted(Metrics.RUN_OPEN_FAILURES, SLUG, "blob_damaged");
            harness.kill();
            harness.submitUntilAccepted(6, train(9));
            while (counted(Metrics.RUN_OPEN_FAILURES, SLUG, "blob_damaged") < tries + 3) Thread.onSpinWait();
            var stalled = assertInstanceOf(RunReply.Stalled.class,
                    harness.ask(r -> new RunCommand.Retrieve(RunHarness.OWNER, 6, 0, r)));
            assertEquals("blob_damaged", stalled.why().code());
            assertTrue(stalled.why().message().contains(blob.getFileName().toString()));
            assertEquals(1, Metrics.RUNS_WAITING.labelValues(SLUG, "blob_damaged").get());
            assertEquals(1, kinds(harness).stream().filter(k -> k == Kind.WAITING).count());
            Files.write(blob, good);
            assertInstanceOf(RunReply.Completed.class, harness.outcome(6));
            assertEquals(0, Metrics.RUNS_WAITING.labelValues(SLUG, "blob_damaged").get());
            while (kinds(harness).getLast() == Kind.WAITING) Thread.onSpinWait();
        }
    }

    /// The file of the single recovery point.
    private static Path point(Path data) throws Exception {
        try (Stream<Path> files = Files.walk(data.resolve("blobs/blobs"))) {
            List<Path> found = files.filter(Files::isRegularFile)
                    .filter(f -> f.toString().contains("recovery")).toList();
            assertEquals(1, found.size(), found::toString);
            return found.getFirst();
        }
    }
}
