package bios.worker.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.LoraSpec;
import bios.protocol.run.Operation;
import bios.worker.engine.EngineHarness.Run;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// An [Engine] whose device refuses the n-th allocation, for every n: the refused operation changes nothing,
/// and a retry gives the same result as without the refusal.
class OutOfMemoryTest {
    private static final LoraSpec SMALL = new LoraSpec(4, 8, 1, List.copyOf(LoraSpec.ALL_LINEAR));

    @TempDir Path folder;

    private final AtomicInteger until = new AtomicInteger(-1);
    private final AtomicInteger tensors = new AtomicInteger();

    private EngineHarness open(String name) {
        return EngineHarness.withDevice(folder.resolve(name), device -> EngineHarness.refusing(
                EngineHarness.counting(device, tensors), until));
    }

    /// Repeats an attempt with increasing n until it succeeds because it has no n-th allocation.
    ///
    /// @param attempt returns its result; empty if it was refused
    /// @param unchanged checks that nothing has changed
    private String refusedAtEveryAllocation(int least, Supplier<Optional<String>> attempt,
            Runnable unchanged) {
        for (int n = 0;; n++) {
            until.set(n);
            Optional<String> result = attempt.get();
            boolean refused = until.getAndSet(-1) < 0;
            // Copies are optional: without memory for one the state itself is written.
            if (result.isPresent() && refused) continue;
            if (result.isPresent()) {
                assertTrue(n >= least, n + " allocations");
                return result.get();
            }
            assertTrue(refused);
            if (n % 8 == 0) unchanged.run();
        }
    }

    private static Optional<String> result(Run run, Operation operation,
            Optional<CheckpointManifest> loaded) {
        run.send(operation, loaded);
        return switch (run.events().receiveMessage(EngineHarness.TIMEOUT)) {
            case EngineEvent.Executed(_, _, var result) -> Optional.of(EngineHarness.bits(result));
            case EngineEvent.Failed(_, _, var fault) -> {
                assertEquals("out_of_memory", fault.code(), fault.message());
                yield Optional.empty();
            }
            case EngineEvent other -> throw new AssertionError(other);
        };
    }

    @Test void anOperationThatRunsOutOfMemoryChangesNothing() {
        List<Operation> operations = List.of(EngineHarness.gradient(1, 1), EngineHarness.gradient(2, 2),
                new Operation.OptimStep(Optional.empty()), EngineHarness.saveState("a"),
                EngineHarness.gradient(3, 1));
        List<String> expected;
        BlobRef end;
        try (var harness = open("uninterrupted")) {
            Run run = harness.run(1, SMALL);
            expected = run.all(operations);
            end = run.point().state();
        }
        try (var harness = open("refused")) {
            Run run = harness.run(1, SMALL).ignoringEviction();
            List<String> results = new ArrayList<>();
            for (Operation operation : operations) {
                BlobRef before = run.point().state();
                results.add(refusedAtEveryAllocation(1, () -> result(run, operation, Optional.empty()), () ->
                        assertEquals(before, run.point().state())));
            }
            assertEquals(expected, results);
            assertEquals(end.id().sha256(), run.point().state().id().sha256());
        }
    }

    @Test void aLoadThatRunsOutOfMemoryKeepsTheEarlierState() {
        try (var harness = open("load")) {
            Run run = harness.run(1, SMALL).ignoringEviction();
            CheckpointManifest saved = run.save(EngineHarness.saveState("s"));
            run.all(List.of(EngineHarness.gradient(1, 1), new Operation.OptimStep(Optional.empty())));
            BlobRef before = run.point().state();
            int tensorsBefore = tensors.get();
            refusedAtEveryAllocation(3, () -> result(run, EngineHarness.load(saved, true),
                    Optional.of(saved)),
                    () -> {
                        assertEquals(before, run.point().state());
                        assertEquals(tensorsBefore, tensors.get());
                    });
            assertEquals(tensorsBefore, tensors.get());
            assertEquals(saved.contentId(), run.save(EngineHarness.saveState("t")).contentId());
        }
    }

    @Test void aRunThatFailsToOpenFreesItsBytes() {
        try (var harness = open("open")) {
            BlobRef point = harness.run(1, SMALL).point().state();
            harness.closeRun(1);
            harness.run(2, SMALL).point();
            int tensorsBefore = tensors.get();
            for (Optional<BlobRef> from : List.of(Optional.<BlobRef>empty(), Optional.of(point))) {
                int[] number = {10};
                refusedAtEveryAllocation(3, () -> {
                    Run run = harness.unopened(number[0]++, SMALL, from);
                    EngineEvent event = run.events().receiveMessage(EngineHarness.TIMEOUT);
                    if (event instanceof EngineEvent.Opened) harness.closeRun(run);
                    return event instanceof EngineEvent.Opened ? Optional.of("") : Optional.empty();
                }, () -> {});
                harness.run(2, SMALL).point();
                assertEquals(tensorsBefore, tensors.get());
                var described = harness.replies();
                harness.engine().tell(new EngineCommand.Describe(described.ref()));
                assertEquals(1, described.expectMessageClass(EngineReply.Description.class,
                        EngineHarness.TIMEOUT).openRuns());
            }
        }
    }

    @Test void aSampleWhoseAdapterFailsToLoadFreesItsBytes() {
        try (var harness = open("sample")) {
            Run run = harness.run(1, SMALL);
            run.all(List.of(EngineHarness.gradient(1, 1), new Operation.OptimStep(Optional.empty())));
            CheckpointManifest saved = run.save(new Operation.SaveSamplerWeights(Optional.empty(),
                    Optional.empty(), Optional.empty()));
            String first = refusedAtEveryAllocation(10, () -> {
                var replies = harness.replies();
                harness.engine().tell(new EngineCommand.Sample(
                        EngineHarness.task("a", Optional.of(saved), 3), replies.ref()));
                return switch (replies.receiveMessage(EngineHarness.TIMEOUT)) {
                    case EngineReply.Sampled(_, var result) -> Optional.of(EngineHarness.bits(result));
                    case EngineReply.RequestFailed(var fault) -> {
                        assertEquals("out_of_memory", fault.code(), fault.message());
                        yield Optional.empty();
                    }
                    case EngineReply other -> throw new AssertionError(other);
                };
            }, () -> {});
            assertEquals(first, harness.sample(EngineHarness.task("b", Optional.of(saved), 3)));
        }
    }
}
