package bios.coordinator.run;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.run.PendingOperation.Outcome;
import bios.coordinator.run.RunEvent.*;
import bios.coordinator.run.TrainingRun.Decision;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.model.TargetModule;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationKind;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunId;
import bios.protocol.run.DeathReport;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.StorageUse;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;
import com.typesafe.config.ConfigFactory;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import org.junit.jupiter.api.Test;

class TrainingRunTest {
    private static final RunSettings SETTINGS = RunSettings.from(ConfigFactory.load());
    private static final RunId OTHER = new RunId("usf-finance-000000000000");
    private static final TrainingRun.Backlog IDLE = new TrainingRun.Backlog(0, 0, 0, 0);

    private static StoredOperation inline(OperationKind kind) {
        return new StoredOperation.Inline(kind, new byte[] {(byte) kind.ordinal()});
    }

    private static BlobRef blob(String scope, long content) {
        return new BlobRef(new BlobId(scope, "%064x".formatted(content)), 10);
    }

    private static CheckpointManifest manifest(RunId run, CheckpointKind kind, Optional<String> name,
            long content, LoraSpec lora) {
        return new CheckpointManifest(run, kind, name.map(CheckpointName::new),
                new ModelName("ultrasafe/usf-finance"), lora, "c" + content,
                blob(BlobScope.checkpoints(run, 0), content), kind == CheckpointKind.SAMPLER
                ? Optional.empty() : Optional.of(blob(BlobScope.checkpoints(run, 0), 1000 + content)), 1,
                AdamParams.DEFAULT, "adamw", "{}", Optional.empty(), 5, Optional.empty());
    }

    private static TrainingRun created(boolean loraChosen) {
        return TrainingRun.NONE.apply(new RunCreated(RunHarness.config(loraChosen)));
    }

    private static TrainingRun accept(TrainingRun run, long seq, StoredOperation operation) {
        var decision = run.submit(seq, operation, "d" + seq, 1, Optional.empty(), IDLE, 0, SETTINGS);
        for (RunEvent event : assertInstanceOf(Decision.Accept.class, decision).events())
            run = run.apply(event);
        return run;
    }

    @Test void sequenceNumbersAreASetInAnyOrder() {
        for (int seed = 0; seed < 50; seed++) {
            var random = new Random(seed);
            var expected = new TreeSet<Long>();
            IntervalSet set = IntervalSet.EMPTY;
            for (int i = 0; i < 200; i++) {
                long number = random.nextInt(150);
                expected.add(number);
                set = set.with(number);
                for (long n = -1; n <= 151; n++)
                    assertEquals(expected.contains(n), set.contains(n), "seed " + seed + ", " + n);
            }
            long[] bounds = set.bounds();
            for (int i = 1; i < bounds.length; i++)
                assertTrue(bounds[i] > bounds[i - 1], "intervals neither touch nor overlap");
        }
    }

    /// Plays a random history of all commands and events, as the entity does.
    private static final class History {
        final Random random;
        TrainingRun run = created(true);
        final Set<Long> seen = new HashSet<>();
        final Set<BlobId> written = new HashSet<>();
        final Set<BlobId> freed = new HashSet<>();

        History(long seed) {
            random = new Random(seed);
        }

        void store(RunEvent event) {
            run = run.apply(event);
            check();
        }

        void step() {
            long open = run.pending().stream().filter(e -> e.outcome() instanceof Outcome.Open)
                    .mapToLong(PendingOperation::position).findFirst().orElse(0);
            switch (random.nextInt(9)) {
                case 0, 1, 2 -> submit();
                case 3, 4 -> run.at(open).ifPresent(this::finish);
                case 5 -> {
                    if (run.accepted() > run.recovery().position()) point();
                }
                case 6 -> {
                    freed.addAll(run.garbage());
                    store(new BlobsFreed(run.garbage()));
                }
                case 7 -> store(new CheckpointDeleted(CheckpointKind.TRAINING,
                        new CheckpointName("n" + random.nextInt(3)), List.of()));
                default -> {
                    if (run.blocking().isPresent() && random.nextBoolean())
                        store(new ErrorSeen(run.accepted()));
                    else store(new SnapshotsReleased("s" + random.nextInt(2)));
                }
            }
        }

        private void submit() {
            long seq = random.nextInt(400);
            OperationKind kind = OperationKind.values()[random.nextInt(OperationKind.values().length)];
            StoredOperation operation = random.nextBoolean() ? inline(kind)
                    : new StoredOperation.InBlob(kind,
                            blob(BlobScope.operation(RunHarness.RUN, seq, 0, "r"), seq));
            Decision decision = run.submit(seq, operation, "d" + seq, 1, Optional.empty(), IDLE, 0, SETTINGS);
            if (!seen.add(seq)) {
                assertInstanceOf(Decision.Duplicate.class, decision, "a repetition writes nothing");
                return;
            }
            if (operation instanceof StoredOperation.InBlob(_, var b)) written.add(b.id());
            for (RunEvent event : assertInstanceOf(Decision.Accept.class, decision).events()) store(event);
        }

        private void finish(PendingOperation entry) {
            long at = entry.position();
            Optional<Fault> struck = run.blockedBy(at);
            if (struck.isPresent() && entry.kind() != OperationKind.LOAD_STATE)
                store(new OperationFailed(at, struck.get()));
            else if (random.nextInt(6) == 0) store(new OperationFailed(at, Fault.user("bad", "at " + at)));
            else if (entry.kind() == OperationKind.LOAD_STATE) {
                List<CheckpointManifest> have = run.checkpoints().versions();
                store(have.isEmpty() ? new OperationFailed(at, Fault.user("checkpoint_not_found", ""))
                        : run.load(at, have.get(random.nextInt(have.size())), true));
                if (run.at(at).orElseThrow().outcome() instanceof Outcome.Resolved)
                    store(new LoadApplied(at));
            } else if (entry.saves()) commit(at);
        }

        private void commit(long at) {
            boolean named = random.nextBoolean();
            var manifest = manifest(RunHarness.RUN, CheckpointKind.TRAINING, named ? Optional.of("n"
                    + random.nextInt(3)) : Optional.empty(), random.nextInt(20), RunHarness.LORA);
            Checkpoints.blobs(manifest).forEach(b -> {
                written.add(b);
                freed.remove(b);
            });
            store(new CheckpointCommitted(at, manifest,
                    named ? Optional.empty() : Optional.of("s" + random.nextInt(2))));
        }

        private void point() {
            long position = run.recovery().position() + 1
                    + random.nextInt((int) (run.accepted() - run.recovery().position()));
            BlobRef state = blob(BlobScope.recovery(RunHarness.RUN, 0), random.nextInt(1000));
            written.add(state.id());
            freed.remove(state.id());
            store(new RecoveryPointReached(position, state, 1, RunHarness.LORA, Optional.empty()));
        }

        private void check() {
            long expected = run.recovery().position();
            for (PendingOperation entry : run.pending())
                assertEquals(++expected, entry.position(), "positions follow each other");
            assertEquals(run.accepted(), expected, "the last position is the accepted one");
            Set<BlobId> referenced = run.referenced();
            for (BlobId blob : run.garbage())
                assertFalse(referenced.contains(blob), () -> blob + " is referred to and garbage");
            var lost = new HashSet<>(written);
            lost.removeAll(referenced);
            lost.removeAll(run.garbage());
            lost.removeAll(freed);
            assertEquals(Set.of(), lost, "a blob is referred to, garbage or freed");
        }
    }

    @Test void anyHistoryKeepsPositionsAndBlobsInOrder() {
        for (long seed = 0; seed < 60; seed++) {
            var history = new History(seed);
            for (int i = 0; i < 300; i++) history.step();
            TrainingRun run = history.run;
            byte[] stored = RunStored.TYPES.write(run);
            assertEquals(run, RunStored.TYPES.read(RunStored.TYPES.manifest(run), stored),
                    "a snapshot is the run, seed " + seed);
        }
    }

    @Test void aFailureBlocksOperationsUntilTheClientHasSeenIt() {
        TrainingRun run = created(true);
        for (int seq = 0; seq < 3; seq++) run = accept(run, seq, inline(OperationKind.FORWARD_BACKWARD));
        run = run.apply(new OperationFailed(1, Fault.user("bad", "why")));
        assertEquals("bad", run.blockedBy(2).orElseThrow().code());
        run = run.apply(new OperationFailed(2, run.blockedBy(2).get()));
        assertEquals(1, run.blocking().orElseThrow().position(), "the first cause stays");
        assertTrue(run.wouldBeSeen(2));
        run = run.apply(new ErrorSeen(run.accepted()));
        run = accept(run, 3, inline(OperationKind.FORWARD_BACKWARD));
        assertTrue(run.blockedBy(3).isPresent(), "accepted before the client knew");
        assertTrue(run.blockedBy(4).isEmpty(), "accepted after");
        run = run.apply(new OperationFailed(4, Fault.user("worse", "why")));
        assertEquals("worse", run.blockedBy(5).orElseThrow().code());
    }

    @Test void aStepDropsTheRestOfABatchAndNothingElse() {
        Fault bad = Fault.user("bad", "why");
        for (var cause : List.of(OperationKind.FORWARD_BACKWARD, OperationKind.LOAD_STATE,
                OperationKind.OPTIM_STEP)) {
            TrainingRun run = accept(accept(accept(created(true), 0, inline(cause)), 1,
                    inline(OperationKind.SAVE_STATE)), 2, inline(OperationKind.OPTIM_STEP))
                    .apply(new OperationFailed(1, bad));
            assertEquals(Optional.empty(), run.blocked(2, bad).drops(), "a save has nothing to drop");
            boolean part = cause == OperationKind.FORWARD_BACKWARD;
            assertEquals(part, run.blocked(3, bad).drops().isPresent(), cause.name());
            TrainingRun failed = run.apply(run.blocked(3, bad));
            assertEquals(!part, failed.at(3).orElseThrow().settled(), "it is dropped again in a replay");
            assertFalse(failed.at(3).orElseThrow().needsInput());
            TrainingRun earlier = run.apply(new OperationFailed(3, bad));
            assertTrue(earlier.at(3).orElseThrow().settled(), "as builds before replay it");
        }
    }

    @Test void anUploadedAdapterIsKeptFromItsAcceptanceUntilItIsInARecoveryPoint() {
        BlobRef weights = new BlobRef(new BlobId(BlobScope.operation(RunHarness.RUN, 1, 1_000, "r"),
                "ab".repeat(32)), 500);
        var load = StoredOperations.inline(new Operation.LoadUpload(new CheckpointName("mine"), weights,
                RunHarness.LORA));
        TrainingRun run = accept(created(true), 1, load);
        assertTrue(run.abandoned(List.of(weights.id())).isEmpty(), "no sweep deletes it");
        assertTrue(run.stateBytes(1) >= 500, "it counts");
        var manifest = new CheckpointManifest(RunHarness.RUN, CheckpointKind.SAMPLER,
                Optional.of(new CheckpointName("mine")), RunHarness.config(true).baseModel(), RunHarness.LORA,
                "ab".repeat(32), weights, Optional.empty(), 0, AdamParams.DEFAULT, "adamw", "{}",
                Optional.empty(), 1, Optional.empty());
        RunEvent resolved = assertInstanceOf(LoadResolved.class, run.load(1, manifest, false));
        TrainingRun applied = run.apply(resolved).apply(new LoadApplied(1));
        assertTrue(applied.abandoned(List.of(weights.id())).isEmpty());
        TrainingRun behind = applied.apply(new RecoveryPointReached(1, blob("x", 2), 0, RunHarness.LORA,
                Optional.empty()));
        assertEquals(List.of(weights.id()), behind.garbage());
        assertTrue(run.isLate(load, 1_000 + SETTINGS.sweepAfter().toMillis(), SETTINGS));
        assertFalse(run.isLate(load, 1_001, SETTINGS));
        TrainingRun failed = run.apply(run.failed(1, Fault.user("bad", "why")));
        assertEquals(List.of(weights.id()), failed.garbage());
    }

    @Test void whatIsStoredIsCountedByTheHourUntilItIsDeletedOrExpires() {
        long hour = 3_600_000;
        var name = new CheckpointName("a");
        CheckpointManifest saved = manifest(RunHarness.RUN, CheckpointKind.TRAINING, Optional.of("a"), 1,
                RunHarness.LORA);
        long bytes = saved.bytes();
        TrainingRun run = accept(created(true), 1, inline(OperationKind.SAVE_STATE));
        long at = 10 * hour + hour / 2;
        run = run.apply(new CheckpointCommitted(1, at(saved, at), Optional.empty(),
                Optional.of(new RunEvent.Stamp(at, "n"))));
        StorageUse open = run.storage().orElseThrow().until(12 * hour, run.checkpoints().current(at));
        assertEquals(List.of(new StorageUse.Hour(10, 1, bytes / 2.0), new StorageUse.Hour(11, 0, bytes)),
                open.hours());
        TrainingRun gone = run.apply(new CheckpointDeleted(CheckpointKind.TRAINING, name,
                Optional.of(new RunEvent.Stamp(11 * hour, "n")), List.of()));
        assertEquals(List.of(new StorageUse.Hour(10, 1, bytes / 2.0)),
                gone.storage().orElseThrow().until(20 * hour, gone.checkpoints().current(at)).hours());
        TrainingRun expiring = run.apply(new ExpirySet(CheckpointKind.TRAINING, name,
                Optional.of(11 * hour + hour / 4), Optional.of(new RunEvent.Stamp(11 * hour, "n"))));
        assertEquals(List.of(new StorageUse.Hour(10, 1, bytes / 2.0),
                new StorageUse.Hour(11, 0, bytes / 4.0)),
                expiring.apply(new CheckpointsExpired(40 * hour, List.of())).storage().orElseThrow().hours());
    }

    private static CheckpointManifest at(CheckpointManifest m, long millis) {
        return new CheckpointManifest(m.run(), m.kind(), m.name(), m.baseModel(), m.lora(), m.contentId(),
                m.adapter(), m.optimizer(), m.step(), m.settings(), m.optimizerType(), m.userMetadata(),
                m.parent(), millis, m.expiresAtMillis());
    }

    /// The parts of a batch are numbered before they are sent, and the first one is sent last.
    @Test void aPartThatComesAfterTheFailureOfAnotherWasToldDoesNotReachAStepAlone() {
        var bad = Fault.user("non_finite", "bad");
        TrainingRun run = accept(created(true), 12, inline(OperationKind.FORWARD_BACKWARD));
        run = run.apply(run.failed(1, bad)).apply(new ErrorSeen(1));
        TrainingRun part = take(run, 10, OperationKind.FORWARD_BACKWARD);
        assertTrue(part.blockedBy(2).isEmpty(), "it is executed, as the others");
        TrainingRun step = take(part, 13, OperationKind.OPTIM_STEP);
        assertEquals(Optional.of(bad), step.blockedBy(3));
        OperationFailed failed = step.blocked(3, bad);
        assertTrue(failed.drops().isPresent(), "what the part has added is dropped");
        TrainingRun after = take(take(step.apply(failed), 14, OperationKind.FORWARD_BACKWARD), 15,
                OperationKind.OPTIM_STEP);
        assertTrue(after.blockedBy(5).isEmpty(), "one step fails");
        // A corrected batch has a higher number, and is applied.
        TrainingRun corrected = take(take(run, 13, OperationKind.FORWARD_BACKWARD), 14,
                OperationKind.OPTIM_STEP);
        assertTrue(corrected.blockedBy(3).isEmpty());
        // Steps of earlier builds are replayed as they were: their events do not say it.
        TrainingRun earlier = run.apply(new OperationAccepted(2, 10,
                inline(OperationKind.FORWARD_BACKWARD), "d", 1));
        assertTrue(take(earlier, 13, OperationKind.OPTIM_STEP).blockedBy(3).isEmpty());
    }

    /// A step that was executed before the late part came has an outcome, which a replay must not change.
    @Test void aLatePartOfABatchBlocksNoStepBeforeIt() {
        Fault bad = Fault.user("bad", "why");
        TrainingRun run = take(created(true), 12, OperationKind.FORWARD_BACKWARD);
        run = run.apply(run.failed(1, bad)).apply(new ErrorSeen(1));
        run = take(take(run, 13, OperationKind.FORWARD_BACKWARD), 14, OperationKind.OPTIM_STEP);
        run = take(take(run, 11, OperationKind.FORWARD_BACKWARD), 15, OperationKind.OPTIM_STEP);
        assertEquals(Optional.empty(), run.blockedBy(3));
        assertEquals(Optional.of(bad), run.blockedBy(5));
    }

    /// The run with an operation that it has decided to accept.
    private static TrainingRun take(TrainingRun run, long seq, OperationKind kind) {
        var decision = assertInstanceOf(Decision.Accept.class, run.submit(seq, inline(kind), "d" + seq, 1,
                Optional.empty(), IDLE, 0, SETTINGS));
        return run.apply(decision.events().getFirst());
    }

    @Test void aRefusedPartFailsOneStepHoweverManyWait() {
        Fault wrong = Fault.user("invalid_request", "no token");
        TrainingRun run = accept(created(true), 0, new StoredOperation.Refused(OperationKind.FORWARD_BACKWARD,
                wrong)).apply(new OperationFailed(1, wrong)).apply(new ErrorSeen(1));
        run = accept(accept(run, 1, inline(OperationKind.OPTIM_STEP)), 2, inline(OperationKind.OPTIM_STEP));
        assertEquals(Optional.of(wrong), run.blockedBy(2));
        assertEquals(Optional.empty(), run.blockedBy(3, true), "it is not the next one");
        assertEquals(Optional.empty(), run.apply(run.blocked(2, wrong)).blockedBy(3));
    }

    @Test void aFailureThatLeavesARestFailsTheNextStepEvenIfItIsKnown() {
        Fault bad = Fault.user("bad", "why");
        TrainingRun two = accept(accept(created(true), 0, inline(OperationKind.FORWARD_BACKWARD)), 1,
                inline(OperationKind.FORWARD_BACKWARD));
        TrainingRun known = accept(two.apply(two.failed(2, bad)).apply(new ErrorSeen(2)), 2,
                inline(OperationKind.OPTIM_STEP));
        assertEquals(Optional.of(bad), known.blockedBy(3));
        assertTrue(known.blocked(3, bad).drops().isPresent());
        TrainingRun after = accept(known.apply(known.blocked(3, bad)), 3, inline(OperationKind.OPTIM_STEP));
        assertEquals(Optional.empty(), after.blockedBy(4), "one step only");
        TrainingRun earlier = accept(two.apply(new OperationFailed(2, bad)).apply(new ErrorSeen(2)), 2,
                inline(OperationKind.OPTIM_STEP));
        assertEquals(Optional.empty(), earlier.blockedBy(3), "as builds before replay it");
        TrainingRun point = two.apply(new RecoveryPointReached(1, blob("x", 1), 0, RunHarness.LORA,
                Optional.empty()));
        assertTrue(point.failed(2, bad).rest().isPresent(), "the sum is in the recovery point");
        TrainingRun stepped = accept(accept(accept(created(true), 0, inline(OperationKind.FORWARD_BACKWARD)),
                1, inline(OperationKind.OPTIM_STEP)), 2, inline(OperationKind.FORWARD_BACKWARD));
        assertTrue(stepped.failed(3, bad).rest().isEmpty(), "the step has applied the sum");
        TrainingRun behind = stepped.apply(new RecoveryPointReached(2, blob("x", 1), 1, RunHarness.LORA,
                Optional.empty()));
        assertTrue(behind.failed(3, bad).rest().isEmpty(), "it is in the recovery point");
        TrainingRun load = accept(two.apply(two.failed(2, bad)).apply(new ErrorSeen(2)), 2,
                inline(OperationKind.LOAD_STATE));
        load = accept(load.apply(load.failed(3, bad)).apply(new ErrorSeen(3)), 3,
                inline(OperationKind.OPTIM_STEP));
        assertTrue(load.blocked(4, load.blockedBy(4).orElseThrow()).drops().isPresent(),
                "a load that failed has left the sum");
    }

    @Test void whatARunStoresBesideItsCheckpointsIsCounted() {
        TrainingRun run = accept(created(true), 0, inline(OperationKind.SAVE_STATE)).apply(
                new CheckpointCommitted(1, manifest(RunHarness.RUN, CheckpointKind.TRAINING, Optional.of("a"),
                        1, RunHarness.LORA), Optional.empty()));
        assertEquals(1, run.stateBytes(0), "the operation");
        run = run.apply(new RecoveryPointReached(1, blob("x", 9), 0, RunHarness.LORA, Optional.empty()));
        assertEquals(10, run.stateBytes(0), "the recovery point");
        run = accept(run, 1, inline(OperationKind.SAVE_STATE)).apply(new CheckpointCommitted(2,
                manifest(RunHarness.RUN, CheckpointKind.TRAINING, Optional.of("a"), 2, RunHarness.LORA),
                Optional.empty()));
        assertEquals(31, run.stateBytes(0), "the version that was saved over");
        run = accept(run, 2, inline(OperationKind.SAVE_SAMPLER_WEIGHTS)).apply(new CheckpointCommitted(3,
                manifest(RunHarness.RUN, CheckpointKind.SAMPLER, Optional.empty(), 3, RunHarness.LORA),
                Optional.of("s")));
        assertEquals(42, run.stateBytes(0), "a snapshot");
    }

    @Test void onlyFailuresOfOperationsThatChangeStateBlockLaterOperations() {
        TrainingRun run = accept(created(true), 0, inline(OperationKind.OPTIM_STEP));
        assertTrue(run.apply(new OperationFailed(1,
                Fault.user(TrainingRun.NO_GRADIENT, ""))).blocking().isEmpty());
        assertTrue(run.apply(new OperationFailed(1, Fault.user("other", ""))).blocking().isPresent());
        for (var kind : List.of(OperationKind.FORWARD, OperationKind.SAVE_STATE,
                OperationKind.SAVE_SAMPLER_WEIGHTS))
            assertTrue(accept(created(true), 0,
                    inline(kind)).apply(new OperationFailed(1, Fault.user("other",
                            ""))).blocking().isEmpty());
    }

    @Test void aLoadIsRefusedByNameOrAdopted() {
        var other = new LoraSpec(16, 32, 1, List.of(TargetModule.Q, TargetModule.V));
        var sixteen = manifest(OTHER, CheckpointKind.TRAINING, Optional.of("a"), 1, other);
        TrainingRun chosen = accept(created(true), 0, inline(OperationKind.LOAD_STATE));
        var mismatch = assertInstanceOf(OperationFailed.class, chosen.load(1, sixteen, true));
        assertEquals("lora_mismatch", mismatch.why().code());
        assertTrue(mismatch.why().message().contains("rank 16")
                && mismatch.why().message().contains("rank 8"), mismatch.why().message());
        TrainingRun free = accept(created(false), 0, inline(OperationKind.LOAD_STATE));
        free = free.apply(assertInstanceOf(LoadResolved.class, free.load(1, sixteen, true)))
                .apply(new LoadApplied(1));
        assertEquals(other, free.lora().orElseThrow());
        TrainingRun trained = accept(accept(created(false), 0, inline(OperationKind.FORWARD_BACKWARD)), 1,
                inline(OperationKind.LOAD_STATE));
        assertInstanceOf(OperationFailed.class, trained.load(2, sixteen, true));
        trained = trained.apply(new RecoveryPointReached(1, blob("x", 1), 0, RunHarness.LORA,
                Optional.empty()));
        assertInstanceOf(OperationFailed.class, trained.load(2, sixteen, true),
                "also behind a recovery point");
        var own = manifest(RunHarness.RUN, CheckpointKind.TRAINING, Optional.of("a"), 1, RunHarness.LORA);
        assertEquals("checkpoint_not_found", assertInstanceOf(OperationFailed.class,
                chosen.load(1, own, true)).why().code(), "deleted since it was found");
        var sampler = manifest(OTHER, CheckpointKind.SAMPLER, Optional.of("a"), 1, RunHarness.LORA);
        assertEquals("weights_only",
                assertInstanceOf(OperationFailed.class, chosen.load(1, sampler, true)).why().code());
        assertInstanceOf(LoadResolved.class, chosen.load(1, sampler, false));
    }

    @Test void aTwoPartPathIsATrainingStateOrElseSamplerWeightsInTheNewestVersion() {
        var path = CheckpointPath.parse("bios://" + RunHarness.RUN + "/a");
        var sampler = manifest(RunHarness.RUN, CheckpointKind.SAMPLER, Optional.of("a"), 1, RunHarness.LORA);
        var first = manifest(RunHarness.RUN, CheckpointKind.TRAINING, Optional.of("a"), 2, RunHarness.LORA);
        var second = manifest(RunHarness.RUN, CheckpointKind.TRAINING, Optional.of("a"), 3, RunHarness.LORA);
        var checkpoints = Checkpoints.NONE.commit(sampler, Optional.empty());
        assertEquals(Optional.of(sampler), checkpoints.resolve(path, 0));
        checkpoints = checkpoints.commit(first, Optional.empty()).commit(second, Optional.empty())
                .commit(second, Optional.empty());
        assertEquals(Optional.of(second), checkpoints.resolve(path, 0));
        assertEquals(3, checkpoints.versions().size(),
                "old versions stay, the same content again does not count");
        var a = new CheckpointName("a");
        assertEquals(Optional.of(sampler),
                checkpoints.delete(CheckpointKind.TRAINING, a, List.of()).resolve(path, 0));
    }

    @Test void whatAnotherRunHasLoadedStaysForItAloneWhenItsNameIsRemoved() {
        var name = new CheckpointName("a");
        var first = made(CheckpointKind.TRAINING, Optional.of("a"), 1, 1);
        var second = made(CheckpointKind.TRAINING, Optional.of("a"), 2, 2);
        BlobId loaded = first.adapter().id();
        var before = Checkpoints.NONE.commit(first, Optional.empty()).commit(second, Optional.empty());
        var accept = assertInstanceOf(TrainingRun.Decision.Accept.class,
                before.decideDelete(CheckpointKind.TRAINING, name, loaded::equals));
        assertEquals(List.of(new CheckpointDeleted(CheckpointKind.TRAINING, name, List.of(loaded))),
                accept.events());
        assertEquals(List.of(loaded), before.expiry(CheckpointKind.TRAINING, name, Optional.of(5L))
                .expired(5, loaded::equals).retained());
        for (Checkpoints after : List.of(before.delete(CheckpointKind.TRAINING, name, List.of(loaded)),
                before.expiry(CheckpointKind.TRAINING, name, Optional.of(5L)).expire(5, List.of(loaded)))) {
            assertEquals(List.of(), after.current(0));
            assertFalse(after.has(CheckpointKind.TRAINING, name));
            assertFalse(after.holds(loaded), "no sampler");
            assertFalse(after.holds(first), "no load of the name");
            assertTrue(after.keeps(loaded));
            assertFalse(after.keeps(second.adapter().id()));
            assertEquals(Optional.empty(), after.nextExpiry());
            assertEquals(List.of(new Unnamed(loaded, Optional.empty())), after.unnamed(3));
            assertEquals(Checkpoints.NONE, after.release(after.unnamed(3)));
        }
    }

    @Test void onlyWhatNoNameRefersToAndIsNotAmongTheNewestIsReleased() {
        var checkpoints = Checkpoints.NONE;
        for (int i = 1; i <= 10; i++)
            checkpoints = checkpoints
                    .commit(made(CheckpointKind.SAMPLER, Optional.empty(), i, i), Optional.of("s"))
                    .commit(made(CheckpointKind.TRAINING, Optional.of("latest"), i, i), Optional.empty());
        List<Unnamed> unnamed = checkpoints.unnamed(3);
        assertEquals(16, unnamed.size(), "nine versions, seven snapshots");
        assertEquals(1, checkpoints.names());
        var all = checkpoints.all().map(m -> m.adapter().id()).toList();
        var rest = checkpoints.release(unnamed);
        assertEquals(List.of(10L), rest.versions().stream()
                .map(CheckpointManifest::createdAtMillis).toList());
        assertEquals(3, rest.snapshots().size());
        assertEquals(List.of(10L), checkpoints.release(all.stream().map(id ->
                new Unnamed(id, Optional.empty())).toList()).versions().stream()
                .map(CheckpointManifest::createdAtMillis).toList(),
                "never the version that a name refers to");
        assertTrue(rest.holds(all.getLast()));
        assertFalse(rest.holds(all.getFirst()));
        var expired = assertInstanceOf(RunReply.Refused.class, Checkpoints.expired());
        assertEquals(Reason.EXPIRED, expired.reason());
        assertTrue(expired.message().contains("save_weights_for_sampler(name="), expired.message());
    }

    @Test void aRunWithTooManyNamesStillSavesSnapshotsAndUnderNamesThatExist() {
        var settings = RunSettings.from(ConfigFactory.parseString("bios.run.max-checkpoints = 2")
                .withFallback(ConfigFactory.load()));
        TrainingRun run = created(true);
        for (int i = 1; i <= 5; i++) {
            run = accept(run, i, StoredOperations.inline(new Operation.SaveState(
                    new CheckpointName("n" + Math.min(i, 2)), "{}", Optional.empty())));
            run = run.apply(new CheckpointCommitted(i, made(CheckpointKind.TRAINING,
                    Optional.of("n" + Math.min(i, 2)), i, i), Optional.empty(), Optional.empty()));
        }
        var refused = assertInstanceOf(Decision.Refuse.class, save(run, settings, new Operation.SaveState(
                new CheckpointName("n3"), "{}", Optional.empty())));
        assertEquals(Reason.LIMIT, refused.reason(), "waiting does not help");
        assertTrue(refused.message().contains("delete some"), refused.message());
        assertInstanceOf(Decision.Accept.class, save(run, settings, new Operation.SaveState(
                new CheckpointName("n1"), "{}", Optional.empty())));
        assertInstanceOf(Decision.Accept.class, save(run, settings, new Operation.SaveSamplerWeights(
                Optional.empty(), Optional.empty(), Optional.empty())));
    }

    private static Decision save(TrainingRun run, RunSettings settings, Operation operation) {
        return run.submit(9, StoredOperations.inline(operation), "d", 1, Optional.empty(),
                new TrainingRun.Backlog(0, 0, 0, 0), 0, settings);
    }

    private static CheckpointManifest made(CheckpointKind kind, Optional<String> name, int content, long at) {
        CheckpointManifest m = manifest(RunHarness.RUN, kind, name, content, RunHarness.LORA);
        return new CheckpointManifest(m.run(), m.kind(), m.name(), m.baseModel(), m.lora(), m.contentId(),
                m.adapter(), m.optimizer(), m.step(), m.settings(), m.optimizerType(), m.userMetadata(),
                m.parent(), at, m.expiresAtMillis());
    }

    @Test void onlyBlobsWithoutAnOwnerAreAbandonedAndNoneOfThemIsAcceptedLate() {
        String scope = BlobScope.operation(RunHarness.RUN, 1, 5_000_000, "r");
        var inBlob = new StoredOperation.InBlob(OperationKind.FORWARD, blob(scope, 1));
        TrainingRun run = accept(created(true), 1, inBlob);
        var other = new StoredOperation.InBlob(OperationKind.FORWARD, blob(scope, 2));
        var listed = List.of(inBlob.blob().id(), other.blob().id());
        assertEquals(List.of(other.blob().id()), run.abandoned(listed));
        run = run.apply(new BlobsAbandoned(listed));
        assertEquals(List.of(other.blob().id()), run.garbage());
        assertEquals(List.of(), run.abandoned(listed));
        assertTrue(run.isLate(other, 5_000_001, SETTINGS), "it is about to be deleted");
        assertFalse(run.isLate(inBlob, 5_000_001, SETTINGS));
        assertTrue(run.isLate(inBlob, 5_000_001 + SETTINGS.sweepAfter().toMillis() / 2, SETTINGS));
    }

    @Test void whatAnotherWorkerHasExecutedIsLearnedOnceAndNotBlamed() {
        TrainingRun run = accept(accept(created(true), 1, inline(OperationKind.FORWARD_BACKWARD)), 2,
                inline(OperationKind.OPTIM_STEP));
        var ends = new DeathReport(RunHarness.RUN, "worker-2", 3, 0, 2, 3, "it died");
        assertTrue(run.learnsFrom(ends));
        var executed = new DeathReport(RunHarness.RUN, "worker-1", 4, 2, 0, 0, "");
        assertTrue(run.learnsFrom(executed));
        TrainingRun knows = run.apply(new WorkerDied(executed));
        assertEquals(2, knows.executed());
        assertFalse(knows.learnsFrom(executed), "it is no news");
        assertTrue(knows.learnsFrom(ends), "its replay ends workers");
        TrainingRun waits = knows.apply(new WorkerDied(ends));
        assertEquals(3, waits.deathsAlone());
        assertInstanceOf(ReplayPolicy.Verdict.Delay.class, ReplayPolicy.initial(SETTINGS)
                .judge(waits, 2, waits.executed(), true), "it was executed to its end");
    }

    /// Marks of a worker survive a journal that was put back: they tell of operations that are gone.
    @Test void whatWasExecutedOfAGivenUpHistorySaysNothingOfTheOperationsThatFollow() {
        TrainingRun left = created(true);
        for (int seq = 1; seq <= 3; seq++) left = accept(left, seq, inline(OperationKind.FORWARD));
        left = left.apply(new HistoryRecorded(new HistoryEntry(1, Optional.empty(),
                HistoryEntry.Kind.DATA_LOST, Optional.empty(), Optional.empty(),
                Map.of("by", "restore", "acknowledged", "8"), Optional.empty())));
        var stale = new DeathReport(RunHarness.RUN, "worker-1", 4, 5, 0, 0, "");
        assertTrue(left.learnsFrom(stale), "what is left was executed");
        assertEquals(3, left.apply(new WorkerDied(stale)).executed());
        TrainingRun on = left;
        for (int seq = 4; seq <= 9; seq++) on = accept(on, seq, inline(OperationKind.FORWARD));
        assertFalse(on.learnsFrom(stale));
        assertEquals(0, on.apply(new WorkerDied(stale)).executed());
        var killed = new DeathReport(RunHarness.RUN, "worker-1", 5, 5, 5, 3, "it died");
        assertTrue(on.learnsFrom(killed));
        TrainingRun suspects = on.apply(new WorkerDied(killed));
        assertEquals(List.of(5L, 3L, 0L), List.of(suspects.suspect().orElseThrow().position(),
                (long) suspects.deathsAlone(), suspects.executed()));
        var later = new DeathReport(RunHarness.RUN, "worker-1", 6, 9, 0, 0, "");
        assertEquals(9, on.apply(new WorkerDied(later)).executed(), "the given-up history had no event 9");
        var tooFar = new DeathReport(RunHarness.RUN, "worker-2", 1, 12, 0, 0, "");
        assertEquals(0, on.apply(new WorkerDied(tooFar)).executed(), "this run has not accepted it");
    }

    @Test void tooManyUnfinishedOperationsAreRefused() {
        TrainingRun run = created(true);
        var many = new TrainingRun.Backlog(SETTINGS.maxUnfinished(), 0, 0, 0);
        var refused =
                run.submit(1, inline(OperationKind.FORWARD), "d", 1, Optional.empty(), many, 0, SETTINGS);
        assertEquals(Reason.TOO_MANY, assertInstanceOf(Decision.Refuse.class, refused).reason());
        var large = new TrainingRun.Backlog(1, SETTINGS.maxUnfinishedBytes(), 0, 0);
        assertInstanceOf(Decision.Refuse.class,
                run.submit(1, inline(OperationKind.FORWARD), "d", 1, Optional.empty(), large, 0, SETTINGS));
        var busy = new TrainingRun.Backlog(0, 0, SETTINGS.maxUnfinishedPerOwner(), 0);
        var ofOwner =
                run.submit(1, inline(OperationKind.FORWARD), "d", 1, Optional.empty(), busy, 0, SETTINGS);
        assertEquals(Reason.TOO_MANY, assertInstanceOf(Decision.Refuse.class, ofOwner).reason());
        var heavy = new TrainingRun.Backlog(0, 0, 1, SETTINGS.maxUnfinishedBytesPerOwner());
        assertInstanceOf(Decision.Refuse.class,
                run.submit(1, inline(OperationKind.FORWARD), "d", 1, Optional.empty(), heavy, 0, SETTINGS));
        assertInstanceOf(Decision.Refuse.class,
                run.submit(-1, inline(OperationKind.FORWARD), "d", 1, Optional.empty(), IDLE, 0, SETTINGS));
    }

    /// A run as builds without numbers of entries have stored it.
    private static TrainingRun unnumbered(TrainingRun run) {
        List<HistoryEntry> history = run.history().stream().map(e -> new HistoryEntry(e.timeMillis(),
                e.node(), e.kind(), e.position(), e.seq(), e.detail())).toList();
        return earlier(new TrainingRun(run.config(), run.lora(), run.accepted(), run.known(), run.pending(),
                run.recovery(), run.trained(), run.checkpoints(), run.blocking(), run.suspect(),
                run.garbage(), run.lastRequestMillis(), run.closed(), history, run.executedUpTo(),
                run.deaths(), run.setAside(), run.usage(), Optional.empty(), Optional.empty()));
    }

    /// A run as builds have stored it that did not count what is stored, nor know the number of a pass that
    /// has failed.
    private static TrainingRun earlier(TrainingRun run) {
        return new TrainingRun(run.config(), run.lora(), run.accepted(), run.known(), run.pending(),
                run.recovery(), run.trained(), run.checkpoints(), run.blocking().map(b ->
                        new TrainingRun.BlockingFailure(b.position(), b.why(), b.until(), b.nextStep(),
                                b.lacksPart(), Optional.empty(), Optional.empty())), run.suspect(),
                run.garbage(), run.lastRequestMillis(), run.closed(), run.history(), run.executedUpTo(),
                run.deaths(), run.setAside(), run.usage(), Optional.empty(), Optional.empty());
    }

    static List<Object> stored() {
        var manifest = manifest(RunHarness.RUN, CheckpointKind.TRAINING, Optional.of("a"), 1,
                RunHarness.LORA);
        var name = new CheckpointName("a");
        var all = new ArrayList<Object>(List.of(new RunCreated(RunHarness.config(true)),
                new OperationAccepted(1, 5, inline(OperationKind.OPTIM_STEP), "ab", 9),
                new OperationAccepted(2, 6, new StoredOperation.InBlob(OperationKind.LOAD_STATE,
                        blob("x", 1)), "ab", 9), new LoadResolved(2, manifest), new LoadApplied(2),
                new OperationFailed(1, Fault.user("bad", "why")), new ErrorSeen(2), new CheckpointCommitted(1,
                        manifest, Optional.of("s")),
                new CheckpointDeleted(CheckpointKind.SAMPLER, name, List.of()),
                new ExpirySet(CheckpointKind.SAMPLER, name, Optional.of(7L)),
                new CheckpointsExpired(7, List.of()),
                new SnapshotsReleased("s"), new RecoveryPointReached(1, blob("x", 2), 3, RunHarness.LORA,
                        Optional.of(blob("x", 3))), new OperationAttempted(1),
                new ReplayFinished(2), new BlobsFreed(List.of(blob("x", 1).id())), new RunClosed(7)));
        TrainingRun run = accept(accept(created(true), 3, inline(OperationKind.LOAD_STATE)), 9,
                inline(OperationKind.SAVE_STATE));
        run = run.apply(new LoadResolved(1, manifest)).apply(new OperationFailed(1, Fault.user("bad", "why")))
                .apply(new CheckpointCommitted(2, manifest, Optional.empty()))
                .apply(new OperationAttempted(2));
        all.add(earlier(run));
        all.add(new EntityBegan(7));
        all.add(new RecoveryPointReached(1, blob("x", 2), 3, RunHarness.LORA, Optional.empty(),
                List.of(new ResultsPage(blob("x", 4), 1, 1, 3, 3, 1, 640, true))));
        // Events of builds with histories.
        var stamp = new RunEvent.Stamp(11, "node-1");
        all.addAll(List.of(new HistoryRecorded(new HistoryEntry(12, Optional.of("node-1"),
                HistoryEntry.Kind.OPENED,
                Optional.of(3L), Optional.empty(), Map.of("recovery_point", "3", "replay", "2"))),
                new OperationFailed(1, Fault.user("bad", "why"), Optional.of(stamp)),
                new RecoveryPointReached(1, blob("x", 2), 3, RunHarness.LORA, Optional.empty(),
                        List.of(), Optional.of(stamp)), unnumbered(run.apply(
                        new OperationAttempted(2)).apply(new HistoryRecorded(new HistoryEntry(11,
                                Optional.of("node-1"),
                                HistoryEntry.Kind.ATTEMPT, Optional.of(2L), Optional.of(9L),
                                Map.of("first", "2", "operations", "1"))), 4))));
        all.add(new ReplayBegan(2));
        var report = new DeathReport(RunHarness.RUN, "worker-1", 3, 1, 2, 2, "it ended without a shutdown");
        all.addAll(List.of(new OperationAccepted(3, 7, inline(OperationKind.FORWARD), "ab", 9,
                        Optional.of(2L)),
                new WorkerDied(report, Optional.of(stamp)), new OperationSetAside(2, Fault.server(
                        "worker_lost", "why"), Optional.of(stamp)), new OperationRetried(2,
                        Optional.of(stamp)), earlier(accept(run, 12, inline(OperationKind.OPTIM_STEP))
                        .apply(new WorkerDied(new DeathReport(RunHarness.RUN, "worker-1", 3, 1, 3, 2, "")))
                        .apply(new OperationSetAside(3, Fault.server("worker_lost", "why"))))));
        all.add(new BlobsAbandoned(List.of(blob("x", 1).id())));
        all.add(new WeightsReleased(List.of(new Unnamed(blob("x", 1).id(), Optional.of("s")),
                new Unnamed(blob("x", 2).id(), Optional.empty()))));
        // Refused parts of batches, and the steps that fail because of them.
        Fault wrong = Fault.user("invalid_request", "no token");
        TrainingRun refused = accept(accept(created(true), 3, new StoredOperation.Refused(
                OperationKind.FORWARD_BACKWARD, wrong)), 4, inline(OperationKind.OPTIM_STEP))
                .apply(new OperationFailed(1, wrong));
        all.addAll(List.of(new OperationAccepted(1, 5, new StoredOperation.Refused(
                OperationKind.FORWARD_BACKWARD, wrong), "ab", 9), earlier(refused),
                refused.blocked(2, wrong), earlier(refused.apply(refused.blocked(2, wrong)))));
        all.addAll(List.of(new PublicationSet(CheckpointKind.TRAINING, name, true, Optional.of(stamp)),
                new ProjectSet(Optional.of("p")), new CheckpointCommitted(1, manifest.published(true),
                        Optional.empty()), new RunCreated(RunHarness.config(true).in(Optional.of("p"))),
                new UsageCounted(3, 10, 4, 5000, 7_200_000), created(true).apply(
                        new UsageCounted(3, 10, 4, 5000, 7_200_000))));
        // Failures that leave the rest of a batch.
        TrainingRun rest = accept(accept(created(true), 3, inline(OperationKind.FORWARD_BACKWARD)), 4,
                inline(OperationKind.FORWARD_BACKWARD));
        all.addAll(List.of(rest.failed(2, wrong), earlier(rest.apply(new RecoveryPointReached(1,
                blob("x", 2), 0, RunHarness.LORA, Optional.empty())).apply(rest.failed(2, wrong)))));
        // Parts that come after the failure of another was told, and what is stored by the hour.
        var later = new OperationAccepted(3, 2, inline(OperationKind.FORWARD_BACKWARD), "ab", 9,
                Optional.empty(), Optional.of(true));
        all.addAll(List.of(later, rest.apply(rest.failed(2, wrong)).apply(new ErrorSeen(2)).apply(later),
                run));
        return all;
    }
}
