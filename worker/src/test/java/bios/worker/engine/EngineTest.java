package bios.worker.engine;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.engine.EngineCommand;
import bios.protocol.model.LoraSpec;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationResult;
import bios.protocol.run.StoredOperation;
import bios.protocol.sampling.DrawnTokens;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import bios.worker.adapter.TrainingState;
import bios.worker.device.Device;
import bios.worker.engine.EngineHarness.Run;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class EngineTest {
    private static final LoraSpec SMALL = new LoraSpec(4, 8, 1, List.copyOf(LoraSpec.ALL_LINEAR));
    private static final LoraSpec LARGE = new LoraSpec(32, 64, 2, List.copyOf(LoraSpec.ALL_LINEAR));

    private static final long STATE = TrainingState.mostBytes(SMALL, EvictionTest.spec());

    @TempDir Path folder;

    @Test void concurrentRunsHaveTheBitsOfSingleRuns() {
        List<Operation> small = EngineHarness.operations(1, 3, 0.02);
        List<Operation> large = EngineHarness.operations(2, 4, 0);
        List<String> smallAlone;
        List<String> largeAlone;
        try (var harness = EngineHarness.open(folder.resolve("a"))) {
            smallAlone = harness.run(1, SMALL).all(small);
        }
        try (var harness = EngineHarness.open(folder.resolve("b"))) {
            largeAlone = harness.run(2, LARGE).all(large);
        }
        try (var harness = EngineHarness.open(folder.resolve("c"))) {
            Run first = harness.run(1, SMALL);
            Run second = harness.run(2, LARGE);
            var sampled = harness.replies();
            for (int i = 0; i < 6; i++)
                harness.engine().tell(new EngineCommand.Sample(EngineHarness.task("t" + i, Optional.empty(),
                        i),
                        sampled.ref()));
            for (int i = 0; i < Math.max(small.size(), large.size()); i++) {
                if (i < small.size()) first.send(small.get(i));
                if (i < large.size()) second.send(large.get(i));
            }
            assertEquals(smallAlone, first.receive(small.size()));
            assertEquals(largeAlone, second.receive(large.size()));
            for (int i = 0; i < 6; i++)
                sampled.expectMessageClass(EngineReply.Sampled.class, EngineHarness.TIMEOUT);
        }
    }

    @Test void aTaskThatIsSentAgainIsComputedOnceAndAnsweredToAllWhoSentIt() throws Exception {
        try (var harness = EngineHarness.open(folder.resolve("again"))) {
            SampleTask task = EngineHarness.task("again", Optional.empty(), 3);
            var one = harness.replies();
            var other = harness.replies();
            var load = harness.replies();
            for (var sender : List.of(one, one, other))
                harness.engine().tell(new EngineCommand.Sample(task, sender.ref()));
            harness.engine().tell(new EngineCommand.Describe(load.ref()));
            int queued = load.expectMessageClass(EngineReply.Description.class, EngineHarness.TIMEOUT)
                    .queuedSequences();
            assertTrue(queued <= task.numSamples(), () -> queued + " sequences");
            var first = one.expectMessageClass(EngineReply.Sampled.class, EngineHarness.TIMEOUT);
            var second = other.expectMessageClass(EngineReply.Sampled.class, EngineHarness.TIMEOUT);
            assertEquals(EngineHarness.bits(first.result()), EngineHarness.bits(second.result()));
            harness.engine().tell(new EngineCommand.Describe(one.ref()));
            one.expectMessageClass(EngineReply.Description.class, EngineHarness.TIMEOUT);
        }
    }

    @Test void aRequestIsFollowedWhileItDraws() throws Exception {
        try (var harness = EngineHarness.open(folder.resolve("followed"))) {
            SampleTask task = withTop(EngineHarness.task("followed", Optional.empty(), 3), 3);
            var answer = harness.replies();
            var follower = harness.replies();
            harness.engine().tell(new EngineCommand.Sample(task, answer.ref()));
            var tokens = List.of(new ArrayList<Integer>(), new ArrayList<Integer>());
            var logprobs = new ArrayList<Float>();
            int[] received = {0, 0};
            harness.engine().tell(new EngineCommand.FollowSample("followed", received, follower.ref()));
            var drawn = follower.expectMessageClass(EngineReply.Drawn.class, EngineHarness.TIMEOUT);
            assertTrue(drawn.sequences().stream().anyMatch(s -> s.tokens().length < 20), "before the end");
            for (int i = 0; i < 2; i++) {
                assertEquals(0, drawn.sequences().get(i).from());
                for (int token : drawn.sequences().get(i).tokens()) tokens.get(i).add(token);
            }
            for (float logprob : drawn.sequences().getFirst().logprobs()) logprobs.add(logprob);
            var result = answer.expectMessageClass(EngineReply.Sampled.class, EngineHarness.TIMEOUT).result();
            for (int i = 0; i < 2; i++) for (int j = 0; j < tokens.get(i).size(); j++)
                assertEquals(result.sequences().get(i).tokens()[j], tokens.get(i).get(j));
            for (int j = 0; j < logprobs.size(); j++)
                assertEquals(result.sequences().getFirst().logprobs()[j], logprobs.get(j));
            for (int i = 0; i < 2; i++) assertEquals(result.sequences().get(i).topkLogprobs().orElseThrow()
                    .subList(0, tokens.get(i).size()), tokens.get(i).isEmpty() ? List.of()
                    : drawn.sequences().get(i).topkLogprobs().orElseThrow());
            harness.engine().tell(new EngineCommand.FollowSample("followed", received, follower.ref()));
            follower.expectNoMessage(Duration.ofMillis(50));
        }
    }

    private static SampleTask withTop(SampleTask t, int k) {
        return new SampleTask(t.id(), t.baseModel(), t.adapter(), t.prompt(), t.params(), t.numSamples(),
                t.seed(), t.promptLogprobs(), t.topkPromptLogprobs(), k);
    }

    @Test void aCancelledRequestIsGivenUpAndTheOthersGoOn() throws Exception {
        try (var harness = EngineHarness.open(folder.resolve("cancelled"))) {
            var gone = harness.replies();
            var kept = harness.replies();
            SampleTask one = EngineHarness.task("gone", Optional.empty(), 3);
            SampleTask other = EngineHarness.task("kept", Optional.empty(), 4);
            harness.engine().tell(new EngineCommand.Sample(one, gone.ref()));
            harness.engine().tell(new EngineCommand.CancelSample("gone"));
            harness.engine().tell(new EngineCommand.CancelSample("unknown"));
            harness.engine().tell(new EngineCommand.Sample(other, kept.ref()));
            assertEquals("cancelled", gone.expectMessageClass(EngineReply.RequestFailed.class,
                    EngineHarness.TIMEOUT).fault().code());
            var result = kept.expectMessageClass(EngineReply.Sampled.class, EngineHarness.TIMEOUT).result();
            assertEquals(harness.sample(EngineHarness.task("alone", Optional.empty(), 4)),
                    EngineHarness.bits(result));
            harness.engine().tell(new EngineCommand.Describe(gone.ref()));
            assertEquals(0, gone.expectMessageClass(EngineReply.Description.class, EngineHarness.TIMEOUT)
                    .queuedSequences());
        }
    }

    @Test void aFollowerThatAsksRarelyGetsAllAtOnce() throws Exception {
        var followed = new FollowedSample(EngineHarness.task("t", Optional.empty(), 3));
        var nothing = new DrawnTokens(0, 0, new int[0], new float[0], Optional.empty());
        try (var harness = EngineHarness.open(folder.resolve("rarely"))) {
            var follower = harness.replies();
            var question = new EngineCommand.FollowSample("t", new int[] {1, 0}, follower.ref());
            followed.ask(question);
            followed.add(List.of(new DrawnTokens(0, 0, new int[] {5}, new float[] {-1}, Optional.empty()),
                    nothing));
            follower.expectNoMessage(Duration.ofMillis(20));
            for (int i = 1; i < 100; i++)
                followed.add(List.of(new DrawnTokens(i, 0, new int[] {i}, new float[] {-i},
                        Optional.empty()), nothing));
            var first = follower.expectMessageClass(EngineReply.Drawn.class, EngineHarness.TIMEOUT);
            assertEquals(1, first.sequences().getFirst().tokens().length, "answered at once");
            assertEquals(DrawnTokens.digest(new int[] {5}, 1), first.sequences().getFirst().before());
            followed.ask(new EngineCommand.FollowSample("t", new int[] {2, 0}, follower.ref()));
            var rest = follower.expectMessageClass(EngineReply.Drawn.class, EngineHarness.TIMEOUT);
            assertEquals(98, rest.sequences().getFirst().tokens().length);
            assertEquals(Optional.empty(), rest.sequences().getFirst().topkLogprobs());
        }
    }

    /// The likeliest tokens count in the bound of a reply, and each has the place of its token.
    @Test void aReplyToAFollowerIsBoundedWithTheLikeliestTokens() throws Exception {
        var followed = new FollowedSample(withTop(EngineHarness.task("t", Optional.empty(), 3), 20));
        var nothing = new DrawnTokens(0, 0, new int[0], new float[0], Optional.empty());
        int[] tokens = new int[5000];
        var top = new ArrayList<List<SampleResult.TokenLogprob>>();
        for (int i = 0; i < tokens.length; i++) {
            tokens[i] = i;
            top.add(Collections.nCopies(20, new SampleResult.TokenLogprob(i, -1)));
        }
        followed.add(List.of(new DrawnTokens(0, 0, tokens, new float[tokens.length], Optional.empty(),
                Optional.of(top)), nothing));
        try (var harness = EngineHarness.open(folder.resolve("bounded"))) {
            var follower = harness.replies();
            followed.ask(new EngineCommand.FollowSample("t", new int[] {100, 0}, follower.ref()));
            var drawn = follower.expectMessageClass(EngineReply.Drawn.class, EngineHarness.TIMEOUT)
                    .sequences().getFirst();
            assertEquals((1 << 16) / 21 / 2, drawn.tokens().length);
            for (int i = 0; i < drawn.tokens().length; i++)
                assertEquals(drawn.tokens()[i], drawn.topkLogprobs().orElseThrow().get(i).getFirst().token());
        }
    }

    @Test void aRunThatContinuesFromARecoveryPointHasTheBitsOfTheUninterruptedRun() {
        List<Operation> all = EngineHarness.operations(3, 4, 0.01);
        // cuts also between gradients, and between gradient and step
        for (int cut = 0; cut <= all.size() - 1; cut += 4) {
            List<String> uninterrupted;
            BlobRef point;
            BlobRef end;
            try (var harness = EngineHarness.open(folder.resolve("before" + cut))) {
                Run run = harness.run(1, SMALL);
                List<String> results = run.all(all.subList(0, cut));
                point = run.point().state();
                uninterrupted = run.all(all.subList(cut, all.size()));
                end = run.point().state();
                assertEquals(cut, results.size());
            }
            try (var harness = EngineHarness.open(folder.resolve("before" + cut))) {
                Run run = harness.run(1, SMALL, Optional.of(point));
                run.skip(cut);
                assertEquals(uninterrupted, run.all(all.subList(cut, all.size())));
                assertEquals(end, run.point().state());
            }
        }
    }

    /// What the engine does in the place of a step that failed because a part of its batch was refused.
    @Test void aGradientSumIsDroppedInItsPlaceAndNothingElseChanges() {
        List<Operation> all = EngineHarness.operations(6, 2, 0.01);
        var step = new Operation.OptimStep(Optional.empty());
        var drop = new StoredOperation.Refused(OperationKind.OPTIM_STEP, Fault.user("bad", "why"));
        List<String> expected;
        BlobRef end;
        try (var harness = EngineHarness.open(folder.resolve("a"))) {
            Run run = harness.run(1, SMALL);
            run.all(all);
            run.skip(3);
            expected = run.all(List.of(EngineHarness.gradient(7, 2), step));
            end = run.point().state();
        }
        try (var harness = EngineHarness.open(folder.resolve("b"))) {
            Run run = harness.run(1, SMALL);
            run.all(all);
            run.all(List.of(EngineHarness.gradient(8, 2), EngineHarness.gradient(9, 1)));
            run.send(drop, Optional.empty());
            var dropped = (OperationResult.Stepped) run.events().expectMessageClass(
                    EngineEvent.Executed.class, EngineHarness.TIMEOUT).result();
            assertEquals(new OperationResult.Stepped(2, Map.of("dropped_operations:sum", 2.0)), dropped);
            assertEquals(expected, run.all(List.of(EngineHarness.gradient(7, 2), step)));
            assertEquals(end, run.point().state());
        }
    }

    @Test void aSavedStateContinuesInAnotherRunWithTheSameBits() {
        try (var harness = EngineHarness.open(folder)) {
            Run own = harness.run(1, SMALL);
            own.all(EngineHarness.operations(4, 2, 0.01));
            CheckpointManifest saved = own.save(EngineHarness.saveState("first"));
            assertEquals(CheckpointKind.TRAINING, saved.kind());
            assertEquals(2, saved.step());
            assertEquals(saved.contentId(), saved.adapter().id().sha256());
            assertEquals(Optional.of(own.acceptedAtMillis() + 60_000), saved.expiresAtMillis());
            List<Operation> more = EngineHarness.operations(5, 2, 0.01).subList(0, 4);
            List<String> expected = own.all(more);

            Run other = harness.run(2, LARGE);
            other.all(List.of(EngineHarness.gradient(9, 2)));   // is dropped by the load
            var loaded = (OperationResult.Loaded) other.result(EngineHarness.load(saved, true),
                    Optional.of(saved));
            assertEquals(new OperationResult.Loaded("bios://" + saved.run() + "/first", 2), loaded);
            assertEquals("no_gradient", other.fault(new Operation.OptimStep(Optional.empty())).code());
            assertEquals(expected, other.all(more));

            Run fresh = harness.run(3, SMALL);
            assertEquals(0, ((OperationResult.Loaded) fresh.result(EngineHarness.load(saved, false),
                    Optional.of(saved))).step());
            assertEquals(saved.contentId(), fresh.save(EngineHarness.saveState("copy")).contentId());
        }
    }

    @Test void anUploadedAdapterIsLoadedAndOneOfAnotherShapeIsItsUsersFault() {
        try (var harness = EngineHarness.open(folder)) {
            Run own = harness.run(1, SMALL);
            own.all(EngineHarness.operations(6, 2, 0));
            CheckpointManifest saved = own.save(EngineHarness.saveState("made"));
            Run other = harness.run(2, SMALL);
            BlobRef file = harness.uploaded(saved.adapter(), other.id());
            var upload = new Operation.LoadUpload(saved.name().orElseThrow(), file, SMALL);
            assertEquals(new OperationResult.Loaded("bios://" + other.id() + "/sampler_weights/made", 0),
                    other.result(upload, Optional.of(uploaded(saved, file, SMALL))));
            assertEquals(saved.contentId(), other.save(EngineHarness.saveState("copy")).contentId());
            Fault wide = other.fault(upload, Optional.of(uploaded(saved, file, LARGE)));
            assertEquals(List.of(Fault.Kind.USER, "lora_mismatch"), List.of(wide.kind(), wide.code()));
            assertTrue(wide.message().contains("tensor 'base_model."), wide.message());
            // What an engine has written itself fits: if it does not, the store is at fault, and it waits.
            assertEquals(Fault.Kind.SERVER, other.fault(upload, Optional.of(uploaded(saved,
                    saved.adapter(), LARGE))).kind());
        }
    }

    private static CheckpointManifest uploaded(CheckpointManifest m, BlobRef adapter, LoraSpec lora) {
        return new CheckpointManifest(m.run(), CheckpointKind.SAMPLER, m.name(), m.baseModel(), lora,
                m.contentId(), adapter, Optional.empty(), 0, m.settings(), m.optimizerType(), "{}",
                Optional.empty(), 0, Optional.empty());
    }

    /// A run of an earlier build may have such a state: it is not saved, and a load mends it.
    @Test void aStateThatIsNotFiniteIsRefusedByNameWhereItIsSavedLoadedOrSampled() {
        String tensor = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
        try (var harness = EngineHarness.open(folder)) {
            Run good = harness.run(1, SMALL);
            good.all(EngineHarness.operations(4, 1, 0.01));
            CheckpointManifest saved = good.save(EngineHarness.saveState("good"));
            Run spoilt = harness.run(2, SMALL,
                    Optional.of(harness.withNaN(good.point().state(), tensor)));
            var seen = (OperationResult.Evaluated) spoilt.result(EngineHarness.gradient(1, 2),
                    Optional.empty());
            assertEquals(140, seen.metrics().get("non_finite:sum"));
            var step = (OperationResult.Stepped) spoilt.result(new Operation.OptimStep(Optional.empty()),
                    Optional.empty());
            assertEquals(1, step.metrics().get("skipped_gradient:sum"));
            Fault point = spoilt.spoiltPoint();
            assertEquals("state_not_finite", point.code());
            assertTrue(point.message().contains("tensor '" + tensor + "' has NaN at [0, 0]"), point::message);
            Fault unsaved = spoilt.fault(EngineHarness.saveState("bad"));
            assertEquals("state_not_finite", unsaved.code());
            assertTrue(unsaved.message().contains("tensor '" + tensor + "' has NaN at [0, 0]"),
                    unsaved.message());

            var bad = new CheckpointManifest(saved.run(), saved.kind(), saved.name(), saved.baseModel(),
                    saved.lora(), "ab".repeat(32), harness.withNaN(saved.adapter(), tensor),
                    saved.optimizer(), saved.step(), saved.settings(), saved.optimizerType(), "{}",
                    Optional.empty(), 1, Optional.empty());
            Fault unloaded = good.fault(EngineHarness.load(bad, true), Optional.of(bad));
            assertEquals("non_finite", unloaded.code());
            assertTrue(unloaded.message().contains(tensor), unloaded.message());
            assertEquals("non_finite",
                    harness.unsampled(EngineHarness.task("a", Optional.of(bad), 1)).code());

            spoilt.result(EngineHarness.load(saved, true), Optional.of(saved));
            assertEquals(saved.contentId(), spoilt.save(EngineHarness.saveState("mended")).contentId());
            spoilt.point();
        }
    }

    /// Operations behind a step wait for its outcome, also where a thread of its own waits for the device.
    @Test void aSkippedStepIsNotCountedWhateverFollowsAtOnce() {
        for (boolean discrete : new boolean[] {false, true})
            try (var harness = EngineHarness.withDevice(folder.resolve("" + discrete),
                    device -> discrete ? EngineHarness.discrete(device) : device)) {
                Run run = harness.run(1, SMALL);
                var far = new Operation.OptimStep(Optional.of(new AdamParams(1e39, 0.9, 0.95, 1e-8, 0, 0)));
                var near = new Operation.OptimStep(Optional.of(new AdamParams(1e-3, 0.9, 0.95, 1e-8, 0, 0)));
                for (Operation step : List.of(near, far, near, far, far, near)) {
                    run.send(EngineHarness.gradient(1, 2));
                    run.send(step);
                }
                List<String> results = run.receive(12);
                assertEquals(List.of("1", "1", "2", "2", "2", "3"), results.stream()
                        .filter(result -> !result.startsWith("[")).map(result -> result.split("\\{")[0])
                        .toList());
                CheckpointManifest saved = run.save(EngineHarness.saveState("end"));
                assertEquals(3, saved.step());
            }
    }

    @Test void aSnapshotGivesTheSameTokensWhileItsRunContinues() {
        try (var harness = EngineHarness.open(folder)) {
            Run run = harness.run(1, SMALL);
            run.all(EngineHarness.operations(6, 2, 0));
            CheckpointManifest old = run.save(new Operation.SaveSamplerWeights(Optional.empty(),
                    Optional.empty(), Optional.of("s")));
            assertEquals(Optional.empty(), old.optimizer());
            String first = harness.sample(EngineHarness.task("a", Optional.of(old), 5));
            run.all(EngineHarness.operations(7, 3, 0));
            assertEquals(first, harness.sample(EngineHarness.task("b", Optional.of(old), 5)));
            CheckpointManifest later = run.save(new Operation.SaveSamplerWeights(Optional.empty(),
                    Optional.empty(), Optional.of("s")));
            assertNotEquals(first, harness.sample(EngineHarness.task("c", Optional.of(later), 5)));
            assertNotEquals(first, harness.sample(EngineHarness.task("d", Optional.empty(), 5)));
        }
    }

    @Test void anIdleRunIsNotChangedByStepsOfAnother() {
        try (var harness = EngineHarness.open(folder)) {
            Run idle = harness.run(1, SMALL);
            idle.all(EngineHarness.operations(8, 1, 0));
            idle.all(List.of(EngineHarness.gradient(8, 2)));
            BlobRef before = idle.point().state();
            harness.run(2, SMALL).all(EngineHarness.operations(9, 3, 0.5));
            assertEquals(before, idle.point().state());
        }
    }

    @Test void aDamagedRecoveryPointIsReportedAsDamagedWhereverTheByteIs() {
        try (var harness = EngineHarness.open(folder)) {
            int number = 10;
            for (long at : new long[] {0, 7, 8, 20, 60, 200, 400, -2}) {
                var point = harness.run(++number, SMALL).point().state();
                harness.damage(point, at < 0 ? point.bytes() + at : at);
                var failed = harness.unopened(++number, SMALL, Optional.of(point)).events()
                        .expectMessageClass(EngineEvent.OpenFailed.class, EngineHarness.TIMEOUT);
                assertEquals("blob_damaged", failed.fault().code(), "byte " + at);
            }
        }
    }

    @Test void anOperationThatFailsChangesNothing() {
        try (var harness = EngineHarness.open(folder)) {
            Run run = harness.run(1, SMALL);
            run.all(EngineHarness.operations(10, 1, 0).subList(0, 2));
            BlobRef before = run.point().state();
            Fault unknown = run.fault(EngineHarness.gradientOf(new int[] {1, 2, 1_000_000}));
            assertEquals(Fault.Kind.USER, unknown.kind());
            assertTrue(unknown.message().contains("data[0]") && unknown.message().contains("1000000"),
                    unknown.message());
            CheckpointManifest saved = run.save(EngineHarness.saveState("whole"));
            harness.damage(saved.adapter());
            assertEquals("blob_damaged", run.fault(EngineHarness.load(saved, true),
                    Optional.of(saved)).code());
            CheckpointManifest weights = run.save(new Operation.SaveSamplerWeights(Optional.of(saved.name()
                    .get()), Optional.empty(), Optional.empty()));
            assertEquals("weights_only",
                    run.fault(EngineHarness.load(weights, true), Optional.of(weights)).code());
            assertEquals(before, run.point().state());
            run.all(List.of(new Operation.OptimStep(Optional.empty())));
            assertEquals("no_gradient", run.fault(new Operation.OptimStep(Optional.empty())).code());
        }
    }

    @Test void operationsThatDoNotFitTogetherRunAloneAndOnlyThoseThatNeverFitFail() {
        var refused = new AtomicInteger();
        try (var harness = EngineHarness.withDevice(folder,
                device -> EngineHarness.embeddingAtMost(device, 200, refused))) {
            Run first = harness.run(1, SMALL);
            Run second = harness.run(2, LARGE);
            List<Operation> some = List.of(EngineHarness.gradient(1, 2), EngineHarness.gradient(2, 2),
                    EngineHarness.gradient(3, 2));
            for (int round = 0; round < 100 && refused.get() == 0; round++) {
                some.forEach(first::send);
                some.forEach(second::send);
                first.receive(3);
                second.receive(3);
            }
            assertTrue(refused.get() > 0, "two runs were in one pass");
            BlobRef before = first.point().state();
            Fault full = first.fault(EngineHarness.gradient(5, 4));
            assertEquals("out_of_memory", full.code());
            assertEquals(Fault.Kind.SERVER, full.kind());
            assertTrue(full.message().contains("4 sequences, 280 tokens"), full.message());
            assertEquals(before, first.point().state());
        }
    }

    @Test void aClosedRunLeavesNothingOnTheDevice() {
        var tensors = new AtomicInteger();
        try (var harness = EngineHarness.withDevice(folder, device -> EngineHarness.counting(device,
                tensors))) {
            Run other = harness.run(1, SMALL);
            other.point();
            int before = tensors.get();
            Run run = harness.run(2, LARGE);
            run.all(EngineHarness.operations(1, 2, 0));
            run.all(List.of(EngineHarness.gradient(1, 1)));
            run.fault(EngineHarness.gradientOf(new int[] {1_000_000}));
            CheckpointManifest saved = run.save(EngineHarness.saveState("s"));
            run.result(EngineHarness.load(saved, true), Optional.of(saved));
            run.all(List.of(EngineHarness.gradient(1, 1)));
            assertTrue(tensors.get() > before);
            harness.engine().tell(new EngineCommand.CloseRun(run.id()));
            other.point();
            assertEquals(before, tensors.get());
        }
    }

    @Test void eventsKeepTheirOrderWhileASaveIsBeingWritten() throws Exception {
        var gate = new CountDownLatch(1);
        try (var harness = EngineHarness.withStore(folder, store -> EngineHarness.gated(store, gate))) {
            Run run = harness.run(1, SMALL);
            run.send(EngineHarness.saveState("slow"));
            run.send(EngineHarness.gradient(1, 1));
            run.send(new Operation.OptimStep(Optional.empty()));
            Run other = harness.run(2, SMALL);
            other.all(List.of(EngineHarness.gradient(1, 1)));   // is not blocked
            run.events().expectNoMessage();
            gate.countDown();
            List<Long> positions = new ArrayList<>();
            for (int i = 0; i < 3; i++)
                positions.add(run.events().expectMessageClass(EngineEvent.Executed.class,
                        EngineHarness.TIMEOUT).position());
            assertEquals(List.of(1L, 2L, 3L), positions);
        }
    }

    @Test void aSaveAndWhatIsBehindItCountAsExecutedWhenItIsWritten() throws Exception {
        var gate = new CountDownLatch(1);
        try (var harness = EngineHarness.withStore(folder, store -> EngineHarness.gated(store, gate))) {
            Run run = saveInTheMiddle(harness);
            assertEquals(1, run.executed(), "the save is not written");
            gate.countDown();
            run.receive(3);
            assertEquals(4, run.executed());
        }
    }

    @Test void aSaveThatIsNotWrittenAndWhatIsBehindItNeverCountAsExecuted() throws Exception {
        var gate = new CountDownLatch(1);
        try (var harness = EngineHarness.withStore(folder, store -> EngineHarness.gated(
                EngineHarness.failingWrites(store), gate))) {
            Run run = saveInTheMiddle(harness);
            gate.countDown();
            assertEquals(EngineCommand.STORE_FAILED, run.events().expectMessageClass(
                    EngineEvent.Failed.class, EngineHarness.TIMEOUT).fault().code());
            run.receive(2);
            assertEquals(1, run.executed());
        }
    }

    /// A run with an executed operation, a save behind it, and two operations that are executed behind the
    /// copy of the save.
    private static Run saveInTheMiddle(EngineHarness harness) {
        Run run = harness.run(1, SMALL);
        run.all(List.of(EngineHarness.gradient(1, 1)));
        run.send(EngineHarness.saveState("slow"));
        run.send(new Operation.OptimStep(Optional.empty()));
        run.send(EngineHarness.gradient(2, 1));
        Run other = harness.run(2, SMALL);
        other.all(EngineHarness.operations(1, 2, 0).subList(0, 5)); // later turns of the device
        return run;
    }

    @Test void anOperationThatCannotBeReadIsNotPassedOver() throws Exception {
        try (var harness = EngineHarness.open(folder)) {
            Run run = harness.run(1, SMALL);
            run.all(List.of(EngineHarness.gradient(1, 1)));
            run.send(new StoredOperation.InBlob(OperationKind.FORWARD, new BlobRef(new BlobId(
                    BlobScope.operation(run.id(), 2, 0, "x"), "0".repeat(64)), 5)), Optional.empty());
            run.send(new Operation.OptimStep(Optional.empty()));
            assertEquals(2, run.events().expectMessageClass(EngineEvent.Failed.class,
                    EngineHarness.TIMEOUT).position());
            run.receive(1);
            assertEquals(1, run.executed());
        }
    }

    @Test void theMeasuredDeviceTimeIsSentBeforeEachResult() throws Exception {
        try (var harness = EngineHarness.open(folder)) {
            Run run = harness.run(1, SMALL);
            run.all(List.of(EngineHarness.gradient(1, 1), new Operation.OptimStep(Optional.empty())));
            run.save(EngineHarness.saveState("a"));
            assertEquals(List.of(1L, 2L, 3L),
                    run.measured().stream().map(EngineEvent.Measured::position).toList());
            assertTrue(run.measured().stream().allMatch(m -> m.nanos() > 0), run.measured()::toString);
        }
    }

    @Test void operationsOfUnopenedRunsAreRefused() throws Exception {
        try (var harness = EngineHarness.open(folder)) {
            Run run = harness.run(1, SMALL);
            harness.engine().tell(new EngineCommand.CloseRun(run.id()));
            assertEquals("run_not_open", run.fault(new Operation.OptimStep(Optional.empty())).code());
            var point = harness.run(2, SMALL).point().state();
            harness.damage(point);
            Run broken = harness.unopened(3, SMALL, Optional.of(point));
            broken.send(EngineHarness.gradient(1, 1));
            var failed = broken.events().expectMessageClass(EngineEvent.OpenFailed.class,
                    EngineHarness.TIMEOUT);
            assertEquals("blob_damaged", failed.fault().code());
            assertEquals("run_not_open", broken.events().expectMessageClass(EngineEvent.Failed.class,
                    EngineHarness.TIMEOUT).fault().code());
        }
    }

    @Test void adaptersAlternateIfOnlyOneFits() {
        try (var harness = EngineHarness.withAdapterBytes(folder, 30_000)) {
            List<CheckpointManifest> snapshots = new ArrayList<>();
            for (int i = 0; i < 3; i++) {
                Run run = harness.run(i, SMALL);
                run.all(EngineHarness.operations(i, 1, 0));
                snapshots.add(run.save(new Operation.SaveSamplerWeights(Optional.empty(), Optional.empty(),
                        Optional.empty())));
                assertTrue(2 * snapshots.getLast().bytes() > 30_000 && snapshots.getLast().bytes() < 30_000,
                        "" + snapshots.getLast().bytes());
            }
            List<String> alone = new ArrayList<>();
            for (var snapshot : snapshots)
                alone.add(harness.sample(EngineHarness.task("x", Optional.of(snapshot), 3)));
            var replies = harness.replies();
            for (int i = 0; i < 9; i++)
                harness.engine().tell(new EngineCommand.Sample(EngineHarness.task("t" + i,
                        Optional.of(snapshots.get(i % 3)), 3), replies.ref()));
            for (int i = 0; i < 9; i++) {
                var sampled = replies.expectMessageClass(EngineReply.Sampled.class, EngineHarness.TIMEOUT);
                int task = Integer.parseInt(sampled.task().substring(1));
                assertEquals(alone.get(task % 3), EngineHarness.bits(sampled.result()));
            }
            CheckpointManifest large = harness.run(7, LARGE)
                    .save(new Operation.SaveSamplerWeights(Optional.empty(), Optional.empty(),
                            Optional.empty()));
            harness.engine().tell(new EngineCommand.Sample(EngineHarness.task("l", Optional.of(large), 3),
                    replies.ref()));
            assertEquals("adapter_too_large",
                    replies.expectMessageClass(EngineReply.RequestFailed.class,
                            EngineHarness.TIMEOUT).fault().code());
            harness.damage(snapshots.getFirst().adapter());
            harness.sample(EngineHarness.task("y", Optional.of(snapshots.getLast()), 3));
            harness.engine().tell(new EngineCommand.Sample(EngineHarness.task("z",
                    Optional.of(snapshots.getFirst()), 3), replies.ref()));
            assertEquals("blob_damaged",
                    replies.expectMessageClass(EngineReply.RequestFailed.class,
                            EngineHarness.TIMEOUT).fault().code());
        }
    }

    @Test void theEngineIsRegisteredAndAnswersDescriptionsAndTokenization() throws Exception {
        try (var harness = EngineHarness.ofTiny(folder)) {
            var replies = harness.replies();
            assertEquals(1, harness.listed(EngineCommand.ANY));
            assertEquals(1, harness.listed(EngineCommand.key("bios-tiny")));
            harness.engine().tell(new EngineCommand.Describe(replies.ref()));
            var description = replies.expectMessageClass(EngineReply.Description.class,
                    EngineHarness.TIMEOUT);
            assertEquals(List.of(EngineHarness.TINY), description.models().stream().map(m -> m.name())
                    .toList());
            harness.engine().tell(new EngineCommand.Tokenize(EngineHarness.TINY, "Once upon a time", true,
                    replies.ref()));
            int[] tokens = replies.expectMessageClass(EngineReply.Tokenized.class, EngineHarness.TIMEOUT)
                    .tokens();
            harness.engine().tell(new EngineCommand.Detokenize(EngineHarness.TINY, tokens, false,
                    replies.ref()));
            assertEquals("Once upon a time",
                    replies.expectMessageClass(EngineReply.Detokenized.class, EngineHarness.TIMEOUT).text());
            harness.engine().tell(new EngineCommand.DetokenizeEach(EngineHarness.TINY, tokens,
                    replies.ref()));
            assertEquals(tokens.length, replies.expectMessageClass(EngineReply.DetokenizedEach.class,
                    EngineHarness.TIMEOUT).texts().size());
            harness.engine().tell(new EngineCommand.AlignText(EngineHarness.TINY, "Once upon a time",
                    replies.ref()));
            harness.engine().tell(new EngineCommand.AlignTokens(EngineHarness.TINY, tokens, replies.ref()));
            for (int i = 0; i < 2; i++) {
                var aligned = replies.expectMessageClass(EngineReply.Aligned.class, EngineHarness.TIMEOUT);
                assertArrayEquals(tokens, aligned.tokens());
                assertEquals("Once upon a time", aligned.text());
                assertEquals(16, aligned.ends()[tokens.length - 1]);
            }
            harness.engine().tell(new EngineCommand.FetchTokenizerFiles(EngineHarness.TINY, replies.ref()));
            var files = replies.expectMessageClass(EngineReply.TokenizerFiles.class, EngineHarness.TIMEOUT)
                    .files();
            assertArrayEquals(Files.readAllBytes(EngineHarness.TINY_FOLDER.resolve("tokenizer.json")),
                    files.get("tokenizer.json"));
            harness.engine().tell(new EngineCommand.Tokenize(EngineHarness.MODEL, "x", true, replies.ref()));
            assertEquals("unknown_model",
                    replies.expectMessageClass(EngineReply.RequestFailed.class,
                            EngineHarness.TIMEOUT).fault().code());
        }
    }

    @Test void aStopStringEndsASequenceWhereItIsComplete() {
        try (var harness = EngineHarness.ofTiny(folder)) {
            var free = harness.text("Once upon a time", List.of());
            assertTrue(free.length() > 40, free);
            String stop = free.substring(17, 22);
            String stopped = harness.text("Once upon a time", List.of("no such text", stop));
            assertEquals(free.substring(0, stopped.length()), stopped);
            int end = free.indexOf(stop) + stop.length();
            assertTrue(stopped.contains(stop) && stopped.length() >= end && stopped.length() < end + 20,
                    stopped);
        }
    }

    @Test void aModelThatCannotBeServedStopsTheEngine() throws Exception {
        var closed = new CountDownLatch(1);
        try (var harness = EngineHarness.ofNothing(folder, device -> EngineHarness.closing(device, closed))) {
            harness.awaitEnd();
        }
        assertTrue(closed.await(30, TimeUnit.SECONDS));
    }

    @Test void aDeviceWithAsynchronousReadbackGivesTheSameBits() {
        List<Operation> operations = EngineHarness.operations(1, 3, 0.02);
        List<String> expected;
        String sampled;
        try (var harness = EngineHarness.open(folder.resolve("host"))) {
            expected = harness.run(1, SMALL).all(operations);
            sampled = harness.sample(EngineHarness.task("a", Optional.empty(), 3));
        }
        try (var harness = EngineHarness.withDevice(folder.resolve("discrete"), EngineHarness::discrete)) {
            Run first = harness.run(1, SMALL);
            Run second = harness.run(2, SMALL);
            operations.forEach(operation -> {
                first.send(operation);
                second.send(operation);
            });
            assertEquals(sampled, harness.sample(EngineHarness.task("a", Optional.empty(), 3)));
            assertEquals(expected, first.receive(operations.size()));
            assertEquals(expected, second.receive(operations.size()));
        }
    }

    /// The bits of the results of operations and, last, of the state after them.
    private List<String> expected(String name, List<Operation> operations) {
        try (var harness = EngineHarness.open(folder.resolve(name))) {
            Run run = harness.run(1, SMALL);
            List<String> bits = new ArrayList<>(run.all(operations));
            bits.add(run.point().state().id().sha256());
            return bits;
        }
    }

    /// An engine whose device delivers results when the test says so.
    private EngineHarness late(EngineHarness.Results results, UnaryOperator<Device> under) {
        return EngineHarness.withDevice(folder.resolve("late"),
                device -> EngineHarness.discrete(under.apply(device), results));
    }

    /// The same of the next results.
    private static List<String> receive(Run run, int count) {
        List<String> bits = new ArrayList<>(run.receive(count));
        bits.add(run.point().state().id().sha256());
        return bits;
    }

    @Test void theNextMicroBatchIsLaunchedWhileTheLastIsOnTheDevice() throws Exception {
        List<Operation> operations = List.of(EngineHarness.gradient(1, 40));
        var results = new EngineHarness.Results();
        try (var harness = late(results, device -> device)) {
            Run run = harness.run(1, SMALL);
            operations.forEach(run::send);
            results.awaitLaunched(2);
            results.arrive(1);
            results.awaitLaunched(1);
            results.arrive(1000);
            assertEquals(expected("expected", operations), receive(run, 1));
        }
    }

    @Test void aGradientIsLaunchedBehindAnotherAndBehindAStepAndAStepBehindNeither() throws Exception {
        List<Operation> operations = EngineHarness.operations(1, 2, 0.01).subList(0, 6);
        var results = new EngineHarness.Results();
        try (var harness = late(results, device -> device)) {
            Run run = harness.run(1, SMALL);
            operations.forEach(run::send);
            results.awaitLaunched(2);
            results.arrive(1);
            run.receive(1);
            assertEquals(2, results.count().get(), "a step waits for the gradients before it");
            results.arrive(1);
            run.receive(1);
            results.awaitLaunched(3);
            results.arrive(1000);
            assertEquals(expected("expected", operations).subList(2, 7), receive(run, 4));
        }
    }

    /// A sum and the gradients of two operations are more than is reserved for a run; so is a copy of it.
    @Test void aGradientIsNotLaunchedAheadWhereCopiesHaveTheMemory() throws Exception {
        List<Operation> operations = new ArrayList<>();
        for (int i = 0; i < 4; i++) operations.add(EngineHarness.gradient(i, 1));
        var gate = new CountDownLatch(1);
        var runs = new EngineSettings.Runs(OptionalLong.of(STATE), OptionalLong.of(0), OptionalLong.empty(),
                1);
        var results = new EngineHarness.Results();
        try (var harness = EngineHarness.with(folder.resolve("copied"), runs,
                device -> EngineHarness.discrete(device, results),
                store -> EngineHarness.gated(store, gate))) {
            Run run = harness.run(1, SMALL);
            run.send(new Operation.SaveSamplerWeights(Optional.empty(), Optional.empty(), Optional.empty()));
            operations.forEach(run::send);
            results.awaitLaunched(2);
            results.arrive(1);
            run.events().expectNoMessage(Duration.ofSeconds(1));
            assertEquals(2, results.count().get());
            gate.countDown();
            run.receive(2);
            results.arrive(1);
            results.awaitLaunched(2);
            results.arrive(1000);
            assertEquals(expected("expected", operations).subList(1, 5), receive(run, 3));
        }
    }

    @Test void aMicroBatchThatIsRefusedBehindAnotherFailsItsOperationAsItWouldAlone() throws Exception {
        var refusing = new AtomicBoolean();
        var results = new EngineHarness.Results();
        results.arrive(1000);
        try (var harness = late(results,
                device -> EngineHarness.refusingEverySecondPass(device, refusing))) {
            Run run = harness.run(1, SMALL).ignoringEviction();
            run.all(List.of(EngineHarness.gradient(1, 1)));
            BlobRef before = run.point().state();
            refusing.set(true);
            assertEquals("out_of_memory", run.fault(EngineHarness.gradient(2, 40)).code());
            refusing.set(false);
            assertEquals(before, run.point().state());
            List<Operation> next = List.of(EngineHarness.gradient(2, 40),
                    new Operation.OptimStep(Optional.empty()));
            run.all(next);
            List<Operation> all = new ArrayList<>(next);
            all.addFirst(EngineHarness.gradient(1, 1));
            assertEquals(expected("expected", all).getLast(), run.point().state().id().sha256());
        }
    }

    @Test void anOperationThatIsRefusedBehindAnotherIsExecutedAfterIt() throws Exception {
        List<Operation> operations = List.of(EngineHarness.gradient(1, 1), EngineHarness.gradient(2, 2));
        var until = new AtomicInteger(-1);
        var results = new EngineHarness.Results();
        try (var harness = late(results, device -> EngineHarness.refusing(device, until))) {
            Run run = harness.run(1, SMALL);
            run.send(operations.getFirst());
            results.awaitLaunched(1);
            until.set(0);
            run.send(operations.getLast());
            for (int i = 0; i < 1000 && until.get() >= 0; i++) harness.replies().expectNoMessage();
            assertEquals(-1, until.get(), "it was launched");
            results.arrive(1000);
            assertEquals(expected("expected", operations), receive(run, 2));
        }
    }

    @Test void aBadOperationBehindOneThatIsOnTheDeviceFailsInItsTurn() throws Exception {
        List<Operation> good = List.of(EngineHarness.gradient(1, 1), EngineHarness.gradient(2, 2));
        var results = new EngineHarness.Results();
        try (var harness = late(results, device -> device)) {
            Run run = harness.run(1, SMALL);
            run.send(good.getFirst());
            results.awaitLaunched(1);
            run.send(EngineHarness.gradientOf(new int[] {1_000_000}));
            run.send(good.getLast());
            run.events().expectNoMessage();
            results.arrive(1000);
            List<String> bits = run.receive(1);
            assertEquals("invalid_request", run.events().expectMessageClass(EngineEvent.Failed.class,
                    EngineHarness.TIMEOUT).fault().code());
            bits.addAll(receive(run, 1));
            assertEquals(expected("expected", good), bits);
            assertEquals(2, results.count().get(), "nothing is repeated");
        }
    }

    /// The card finds an error in the first pass when the second is launched: only the first fails.
    @Test void anOperationBehindOneThatTheDeviceFailsIsExecutedAgain() throws Exception {
        List<Operation> operations = List.of(EngineHarness.gradient(1, 1), EngineHarness.gradient(2, 2));
        var results = new EngineHarness.Results(1, 2);
        try (var harness = late(results, device -> device)) {
            Run run = harness.run(1, SMALL);
            operations.forEach(run::send);
            results.awaitLaunched(2);
            results.arrive(1000);
            var failed = run.events().expectMessageClass(EngineEvent.Failed.class, EngineHarness.TIMEOUT);
            assertEquals(List.of(1L, "engine_failed"), List.of(failed.position(), failed.fault().code()));
            assertEquals(expected("expected", operations.subList(1, 2)), receive(run, 1));
            assertEquals(3, results.count().get());
        }
    }

    @Test void aRunThatIsClosedWithTwoPassesOnTheDeviceLeavesNothingThere() throws Exception {
        var tensors = new AtomicInteger();
        var results = new EngineHarness.Results();
        try (var harness = EngineHarness.withDevice(folder, device -> EngineHarness.discrete(
                EngineHarness.counting(device, tensors), results))) {
            Run other = harness.run(1, SMALL);
            other.point();
            int before = tensors.get();
            Run run = harness.run(2, LARGE);
            run.send(EngineHarness.gradient(1, 1));
            run.send(EngineHarness.gradient(2, 1));
            results.awaitLaunched(2);
            harness.closeRun(run);
            results.arrive(1000);
            other.send(EngineHarness.gradient(3, 1));
            other.receive(1);
            other.send(new Operation.OptimStep(Optional.empty()));
            other.receive(1);
            other.point();
            assertEquals(before, tensors.get());
        }
    }

    @Test void aStateWithoutMemoryForItsCopyIsWrittenWhileItsRunPauses() throws Exception {
        List<Operation> operations = EngineHarness.operations(1, 2, 0);
        List<String> expected;
        try (var harness = EngineHarness.open(folder.resolve("enough"))) {
            expected = harness.run(1, SMALL).all(operations);
        }
        var gate = new CountDownLatch(1);
        try (var harness = EngineHarness.with(folder.resolve("none"), EngineHarness::withoutCopies,
                store -> EngineHarness.gated(store, gate))) {
            Run run = harness.run(1, SMALL);
            run.send(EngineHarness.saveState("first"));
            operations.forEach(run::send);
            Run other = harness.run(2, SMALL);
            other.all(List.of(EngineHarness.gradient(1, 1)));   // is not blocked
            harness.unopened(1, SMALL, Optional.empty());       // closes it while its state is read
            gate.countDown();
            Run again = harness.run(1, SMALL);
            assertEquals(expected, again.all(operations));
        }
    }

    @Test void aStoppingEngineClosesTheDeviceAfterThePass() throws Exception {
        var closed = new CountDownLatch(1);
        try (var harness = EngineHarness.withDevice(folder, device -> EngineHarness.closing(device,
                closed))) {
            Run run = harness.run(1, SMALL);
            run.send(EngineHarness.gradient(1, 4));
            harness.stop();
        }
        assertTrue(closed.await(30, TimeUnit.SECONDS));
    }
}
