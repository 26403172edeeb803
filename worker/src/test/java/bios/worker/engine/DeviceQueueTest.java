package bios.worker.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;

import bios.protocol.engine.EngineCommand;
import bios.protocol.model.ModelName;
import bios.protocol.run.Operation;
import bios.protocol.run.RunId;
import bios.worker.engine.DeviceQueue.Turn;
import bios.worker.engine.DeviceQueue.Work;
import bios.worker.load.Tokenizer;
import java.util.HashMap;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import org.junit.jupiter.api.Test;

class DeviceQueueTest {
    private static final ModelName NAME = new ModelName("m");

    private final DeviceQueue queue = new DeviceQueue(1);
    private final LoadedModel model = new LoadedModel(null, null, null, Optional.empty(), new HashMap<>());
    private final LoadedModel other = new LoadedModel(null, null, null, Optional.of(
            Tokenizer.open(EngineHarness.TINY_FOLDER).orElseThrow()), new HashMap<>());

    private static QueuedOperation operation(DeviceTask task) {
        var operation = new QueuedOperation(new EngineCommand.CloseRun(new RunId("m-%012x".formatted(1))), 1,
                null);
        operation.decoded(task);
        return operation;
    }

    private static QueuedOperation evaluate() {
        return operation(new DeviceTask.Evaluate((Operation.ForwardBackward) EngineHarness.gradient(1, 1)));
    }

    private static QueuedOperation optimize() {
        return operation(new DeviceTask.Optimize(new Operation.OptimStep(Optional.empty())));
    }

    private static QueuedOperation copy() {
        return operation(new DeviceTask.Copy(new DeviceTask.Purpose.Recovery()));
    }

    private Set<ResidentRun> tasks() throws InterruptedException {
        return assertInstanceOf(Turn.Tasks.class, queue.take(false)).operations().keySet();
    }

    private List<ResidentRun> pass() throws InterruptedException {
        return assertInstanceOf(Turn.Pass.class, queue.take(false)).candidates().stream()
                .map(DeviceExecutor.Candidate::run).toList();
    }

    @Test void aTurnContainsAllOperationsThatAreReadyAtItsStart() throws InterruptedException {
        var first = new ResidentRun(model);
        var second = new ResidentRun(model);
        var third = new ResidentRun(other);
        queue.add(first, evaluate());
        queue.add(third, evaluate());
        queue.add(second, evaluate());
        assertEquals(List.of(first, second), pass(), "of one model");
        queue.launched(List.of(first, second));
        assertEquals(List.of(third), pass());
    }

    @Test void operationsOfARunKeepTheirOrderAndOneOfItIsInAPassAtATime() throws InterruptedException {
        var run = new ResidentRun(model);
        var waiting = new ResidentRun(model);
        QueuedOperation first = evaluate();
        queue.add(run, first);
        queue.add(run, optimize());
        assertEquals(List.of(run), pass());
        queue.launched(List.of(run));
        queue.add(waiting, evaluate());
        assertEquals(List.of(waiting), pass(), "the pass of another run is prepared meanwhile");
        queue.launched(List.of(waiting));
        queue.add(new Turn.Complete(Optional::empty));
        assertInstanceOf(Turn.Complete.class, queue.take(false));
        queue.done(run, first);
        queue.completed(List.of(run));
        assertEquals(Set.of(run), tasks());
    }

    @Test void theRunThatHasWaitedLongestIsFirst() throws InterruptedException {
        var first = new ResidentRun(model);
        var second = new ResidentRun(model);
        queue.add(first, evaluate());
        queue.add(second, evaluate());
        assertEquals(List.of(first, second), pass());
        queue.launched(List.of(first));
        queue.completed(List.of(first));
        assertEquals(List.of(second, first), pass());
    }

    @Test void aRunWaitsForItsPreviousCopyToBeWrittenAndWhileItsStateIsInUse()
            throws InterruptedException {
        var run = new ResidentRun(model);
        var busy = new ResidentRun(model);
        QueuedOperation first = copy();
        queue.add(run, first);
        queue.add(run, copy());
        assertEquals(Set.of(run), tasks());
        queue.copying(run, false);
        queue.done(run, first);
        queue.add(busy, optimize());
        assertEquals(Set.of(busy), tasks(), "one copy is written at a time");
        queue.copied(run, false);
        assertEquals(Set.of(run, busy), tasks());
        queue.copying(run, true);
        assertEquals(Set.of(busy), tasks(), "its state must not change");
        queue.copied(run, true);
        assertEquals(Set.of(run, busy), tasks());
    }

    @Test void callsRunBeforeTurnsAndAStoppedDeviceRunsNoTurns() throws InterruptedException {
        queue.add(new ResidentRun(model), optimize());
        queue.add(NAME, new DeviceExecutor.Ready(null, Optional.empty(), false));
        queue.add(() -> {});
        assertInstanceOf(Work.Call.class, queue.take(false));
        assertInstanceOf(Turn.Sample.class, queue.take(false));
        queue.add(() -> {});
        assertInstanceOf(Work.Call.class, queue.take(true));
        assertInstanceOf(Turn.Tasks.class, queue.take(false));
    }

    @Test void aRequestThatArrivesWhileAStepIsOnTheDeviceIsInTheNextOne() throws InterruptedException {
        var ready = new DeviceExecutor.Ready(null, Optional.empty(), false);
        queue.add(NAME, ready);
        assertEquals(1, assertInstanceOf(Turn.Sample.class, queue.take(false)).added().size());
        queue.launched(NAME);
        queue.add(NAME, ready);
        queue.add(NAME, ready);
        queue.completed(NAME, true);
        assertEquals(2, assertInstanceOf(Turn.Sample.class, queue.take(false)).added().size());
    }
}
