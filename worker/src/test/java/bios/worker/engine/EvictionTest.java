package bios.worker.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.model.LoraSpec;
import bios.protocol.run.Operation;
import bios.worker.adapter.TrainingState;
import bios.worker.engine.EngineHarness.Run;
import bios.worker.load.ModelFolder;
import bios.worker.load.ModelSpec;
import bios.worker.model.Golden;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// An [Engine] with too little memory for all its runs.
class EvictionTest {
    private static final LoraSpec SMALL = new LoraSpec(4, 8, 1, List.copyOf(LoraSpec.ALL_LINEAR));
    private static final LoraSpec LARGE = new LoraSpec(32, 64, 2, List.copyOf(LoraSpec.ALL_LINEAR));
    private static final LoraSpec WIDE = new LoraSpec(256, 64, 2, List.copyOf(LoraSpec.ALL_LINEAR));
    private static final long STATE = TrainingState.mostBytes(SMALL, spec());

    @TempDir Path folder;

    static ModelSpec spec() {
        ModelFolder model = ModelFolder.open(Golden.of("qwen3").folder().resolve("model"));
        model.tensors().close();
        return model.spec();
    }

    private static EngineSettings.Runs budgets(long deviceBytes, long hostBytes, int maxWaiting) {
        return new EngineSettings.Runs(OptionalLong.of(deviceBytes), OptionalLong.of(hostBytes),
                OptionalLong.empty(), maxWaiting);
    }

    private static void awaitEviction(Run run) {
        assertEquals(new EngineEvent.EvictionRequested(run.id()),
                run.events().expectMessageClass(EngineEvent.EvictionRequested.class, EngineHarness.TIMEOUT));
    }

    @Test void theLeastRecentlyUsedIdleRunIsEvictedForTheNext() throws Exception {
        try (var harness = EngineHarness.withRuns(folder, budgets(2 * STATE, 0, 1), s -> s)) {
            Run first = harness.run(1, SMALL);
            Run second = harness.run(2, SMALL);
            second.all(EngineHarness.operations(2, 1, 0));
            first.all(EngineHarness.operations(1, 1, 0));
            Run third = harness.unopened(3, SMALL, Optional.empty());
            awaitEviction(second);
            Run fourth = harness.unopened(4, SMALL, Optional.empty());
            assertEquals("queue_full", fourth.events().expectMessageClass(EngineEvent.OpenFailed.class,
                    EngineHarness.TIMEOUT).fault().code());
            third.events().expectNoMessage();
            second.point();     // it still accepts commands until it is closed
            harness.closeRun(second);
            third.events().expectMessageClass(EngineEvent.Opened.class, EngineHarness.TIMEOUT);
            first.events().expectNoMessage();
        }
    }

    @Test void busyRunsAlternate() {
        try (var harness = EngineHarness.withRuns(folder, budgets(STATE, 0, 10), s -> s)) {
            Run first = harness.run(1, SMALL);
            List<Operation> operations = EngineHarness.operations(1, 1, 0);
            first.send(operations.getFirst());
            first.send(operations.get(1));
            Run second = harness.unopened(2, SMALL, Optional.empty());
            first.receive(1);
            for (int i = 0; i < 2; i++) {
                EngineEvent event = first.events().receiveMessage(EngineHarness.TIMEOUT);
                assertTrue(event instanceof EngineEvent.EvictionRequested
                        || event instanceof EngineEvent.Executed,
                        event::toString);
            }
            BlobRef point = first.point().state();
            harness.closeRun(first);
            second.events().expectMessageClass(EngineEvent.Opened.class, EngineHarness.TIMEOUT);
            Run back = harness.unopened(1, SMALL, Optional.of(point));
            awaitEviction(second);
            harness.closeRun(second);
            back.events().expectMessageClass(EngineEvent.Opened.class, EngineHarness.TIMEOUT);
            assertEquals(point, back.point().state(), "the bits are equal");
        }
    }

    @Test void aRunThatCanNeverFitIsRefusedWithTheNumbers() {
        try (var harness = EngineHarness.withRuns(folder, budgets(STATE, 0, 10), s -> s)) {
            Run large = harness.unopened(1, LARGE, Optional.empty());
            Fault fault = large.events().expectMessageClass(EngineEvent.OpenFailed.class,
                    EngineHarness.TIMEOUT)
                    .fault();
            assertEquals("run_too_large", fault.code());
            assertEquals(Fault.Kind.SERVER, fault.kind(), "another worker may have the room");
            assertTrue(fault.message().contains("MiB") && fault.message().contains("bios.engine.run-bytes"),
                    fault.message());
            harness.run(2, SMALL).all(EngineHarness.operations(2, 1, 0));
        }
    }

    /// A checkpoint whose manifest has a larger shape than its content.
    @Test void aLoadThatFailsGivesBackTheRoomOfTheLargerState() {
        long larger = TrainingState.mostBytes(LARGE, spec());
        try (var harness = EngineHarness.withRuns(folder, budgets(larger + STATE, 0, 1), s -> s)) {
            Run first = harness.run(1, SMALL);
            first.all(List.of(EngineHarness.gradient(1, 1)));
            CheckpointManifest saved = first.save(EngineHarness.saveState("a"));
            Run second = harness.run(2, SMALL);
            var wrong = new CheckpointManifest(saved.run(), saved.kind(), saved.name(), saved.baseModel(),
                    LARGE, saved.contentId(), saved.adapter(), saved.optimizer(), saved.step(),
                    saved.settings(), saved.optimizerType(), saved.userMetadata(), saved.parent(),
                    saved.createdAtMillis(), saved.expiresAtMillis(), saved.baseFingerprint(),
                    saved.published());
            second.fault(EngineHarness.load(saved, true), Optional.of(wrong));
            harness.run(3, SMALL);
            second.events().expectNoMessage();
            first.events().expectNoMessage();
        }
    }

    @Test void aWaitingRunCanBeClosed() {
        try (var harness = EngineHarness.withRuns(folder, budgets(STATE, 0, 10), s -> s)) {
            Run first = harness.run(1, SMALL);
            Run second = harness.unopened(2, SMALL, Optional.empty());
            Run third = harness.unopened(3, SMALL, Optional.empty());
            harness.closeRun(second);
            awaitEviction(first);
            harness.closeRun(first);
            third.events().expectMessageClass(EngineEvent.Opened.class, EngineHarness.TIMEOUT);
            second.events().expectNoMessage();
        }
    }

    @Test void anEvictedStateIsReadFromTheHostCache() {
        var reads = new AtomicInteger();
        try (var harness = EngineHarness.withRuns(folder, budgets(STATE, 4 * STATE, 10),
                store -> EngineHarness.countingReads(store, reads))) {
            List<Operation> operations = EngineHarness.operations(1, 3, 0.01);
            Run run = harness.run(1, SMALL);
            run.all(operations.subList(0, 4));
            BlobRef point = run.point().state();
            harness.closeRun(run);
            Run other = harness.run(2, SMALL);
            harness.closeRun(other);
            Run back = harness.run(1, SMALL, Optional.of(point));
            assertEquals(0, reads.get(), "nothing was read from the store");
            back.skip(4);
            back.all(operations.subList(4, 9));
            BlobRef end = back.point().state();
            harness.closeRun(back);
            Run uninterrupted = harness.run(3, SMALL);
            uninterrupted.all(operations.subList(0, 9));
            assertEquals(end.id().sha256(), uninterrupted.point().state().id().sha256());
            harness.closeRun(uninterrupted);
            assertEquals(point, harness.run(1, SMALL, Optional.of(point)).point().state(),
                    "older points too");
            assertEquals(1, reads.get(), "from the store");
        }
    }

    @Test void anOpenThatExceedsMemoryFailsAloneWithTheNumbers() {
        try (var harness = EngineHarness.withMemory(folder, 40 << 20)) {
            Run run = harness.run(1, SMALL);
            run.all(List.of(EngineHarness.gradient(1, 1)));
            BlobRef state = run.point().state();
            List<Run> wide = new ArrayList<>();
            Optional<Fault> fault = Optional.empty();
            for (int i = 2; i < 30 && fault.isEmpty(); i++) {
                wide.add(harness.unopened(i, WIDE, Optional.empty()));
                EngineEvent event = wide.getLast().events().receiveMessage(EngineHarness.TIMEOUT);
                if (event instanceof EngineEvent.OpenFailed(_, var why)) fault = Optional.of(why);
            }
            assertEquals("out_of_memory", fault.orElseThrow().code());
            assertTrue(fault.get().message().contains("of 40 MiB")
                    && fault.get().message().contains("bios.engine.memory-bytes"), fault.get().message());
            awaitEviction(run);   // it is the least recently used one
            assertEquals(state, run.point().state());
            wide.forEach(harness::closeRun);
            run.all(List.of(EngineHarness.gradient(1, 1)));
        }
    }

    @Test void anOperationThatExceedsTheHeapFailsAloneWithTheNumbers() {
        var heap = new EngineSettings.Runs(OptionalLong.empty(), OptionalLong.empty(),
                OptionalLong.of(20_000), 10);
        try (var harness = EngineHarness.withRuns(folder, heap, s -> s)) {
            Run run = harness.run(1, SMALL);
            Run other = harness.run(2, SMALL);
            Operation large = EngineHarness.gradient(1, 40);
            for (int i = 0; i < 8; i++) {
                run.send(EngineHarness.gradient(i, 1));
                other.send(EngineHarness.gradient(i, 1));
            }
            run.receive(8);
            other.receive(8);
            Fault fault = run.fault(large);
            assertEquals("out_of_memory", fault.code());
            assertTrue(fault.message().contains("bios.engine.heap-bytes"), fault.message());
            run.all(List.of(EngineHarness.gradient(3, 1), new Operation.OptimStep(Optional.empty())));
            run.point();
        }
    }
}
