package bios.worker.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.engine.EngineCommand;
import bios.protocol.model.ModelName;
import bios.protocol.run.Operation;
import bios.protocol.run.RunId;
import bios.protocol.stored.StoredOperations;
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

    private static QueuedOperation alone(DeviceTask task) {
        var run = new RunId("m-%012x".formatted(1));
        var operation = new QueuedOperation(new EngineCommand.Execute(run, 1, StoredOperations.inline(
                EngineHarness.gradient(1, 1)), Optional.empty(), 0, true, null), 1, null);
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

    /// The device's thread would wait.
    private void requireNothingReady(String why) {
        Thread.currentThread().interrupt();
        assertThrows(InterruptedException.class, () -> queue.take(false), why);
    }

    /// A pass with the last micro-batches of runs is launched.
    private void launched(ResidentRun... runs) {
        queue.launched(List.of(runs), List.of(runs));
    }

    /// The operations of the next pass.
    private List<QueuedOperation> operations() throws InterruptedException {
        return assertInstanceOf(Turn.Pass.class, queue.take(false)).candidates().stream()
                .map(DeviceExecutor.Candidate::operation).toList();
    }

    private QueuedOperation added(ResidentRun run) {
        QueuedOperation evaluation = evaluate();
        queue.add(run, evaluation);
        return evaluation;
    }

    @Test void aTurnContainsAllOperationsThatAreReadyAtItsStart() throws InterruptedException {
        var first = new ResidentRun(model);
        var second = new ResidentRun(model);
        var third = new ResidentRun(other);
        queue.add(first, evaluate());
        queue.add(third, evaluate());
        queue.add(second, evaluate());
        assertEquals(List.of(first, second), pass(), "of one model");
        launched(first, second);
        assertEquals(List.of(third), pass());
    }

    @Test void operationsOfARunKeepTheirOrderAndAStepWaitsForTheResultsBeforeIt()
            throws InterruptedException {
        var run = new ResidentRun(model);
        var waiting = new ResidentRun(model);
        QueuedOperation first = evaluate();
        queue.add(run, first);
        queue.add(run, optimize());
        assertEquals(List.of(run), pass());
        launched(run);
        queue.add(waiting, evaluate());
        assertEquals(List.of(waiting), pass(), "the pass of another run is prepared meanwhile");
        launched(waiting);
        queue.add(new Turn.Complete(Optional::empty));
        assertInstanceOf(Turn.Complete.class, queue.take(false));
        queue.done(run, first);
        queue.completed(List.of(run));
        assertEquals(Set.of(run), tasks());
    }

    @Test void theNextMicroBatchIsLaunchedWhileTheLastIsOnTheDevice() throws InterruptedException {
        var run = new ResidentRun(model);
        QueuedOperation first = evaluate();
        queue.add(run, first);
        for (int i = 0; i < 2; i++) {
            assertEquals(List.of(first), operations());
            queue.launched(List.of(run), List.of());
        }
        requireNothingReady("two passes are in flight");
        queue.completed(List.of(run));
        assertEquals(List.of(first), operations());
        launched(run);
        queue.completed(List.of(run));
        requireNothingReady("its last micro-batch is launched");
        queue.completed(List.of(run));
        queue.done(run, first);
        queue.add(run, evaluate());
        assertEquals(List.of(run), pass());
    }

    @Test void evaluationsAreLaunchedBehindAnEvaluationOrAStepAndNothingElseIs() throws InterruptedException {
        var run = new ResidentRun(model);
        QueuedOperation step = optimize();
        QueuedOperation first = evaluate();
        QueuedOperation second = evaluate();
        List.of(step, first, second, copy()).forEach(operation -> queue.add(run, operation));
        assertEquals(Set.of(run), tasks());
        queue.stepping(run);
        for (QueuedOperation each : List.of(first, second)) {
            assertEquals(List.of(each), operations());
            launched(run);
        }
        queue.stepped(run);
        queue.done(run, step);
        queue.completed(List.of(run));
        queue.done(run, first);
        requireNothingReady("a copy waits for all results before it");
        queue.completed(List.of(run));
        queue.done(run, second);
        assertEquals(Set.of(run), tasks());
    }

    @Test void whatCouldNotBeLaunchedAheadWaitsForTheResultsBeforeIt() throws InterruptedException {
        var run = new ResidentRun(model);
        QueuedOperation first = added(run);
        QueuedOperation second = added(run);
        assertEquals(List.of(first), operations());
        launched(run);
        assertTrue(queue.ahead(run));
        assertEquals(List.of(second), operations());
        queue.again(run, second);
        requireNothingReady("it waits");
        queue.completed(List.of(run));
        queue.done(run, first);
        assertFalse(queue.ahead(run));
        assertEquals(List.of(second), operations());
    }

    @Test void whatWasLaunchedBehindAFailedOperationIsLaunchedAgain() throws InterruptedException {
        var run = new ResidentRun(model);
        QueuedOperation first = added(run);
        QueuedOperation second = added(run);
        for (QueuedOperation each : List.of(first, second)) {
            assertEquals(List.of(each), operations());
            launched(run);
        }
        queue.completed(List.of(run));
        queue.failed(run, first);
        requireNothingReady("its pass is still on the device");
        queue.completed(List.of(run));
        assertEquals(List.of(second), operations());
    }

    @Test void nothingIsLaunchedWithAnOperationThatMayHaveEndedProcesses() throws InterruptedException {
        var run = new ResidentRun(model);
        var other = new ResidentRun(model);
        QueuedOperation first = evaluate();
        QueuedOperation suspected = alone(optimize().task());
        queue.add(run, first);
        queue.add(run, suspected);
        queue.add(run, evaluate());
        assertEquals(List.of(first), operations());
        launched(run);
        requireNothingReady("it is not launched ahead");
        queue.add(other, evaluate());
        assertEquals(List.of(other), pass());
        launched(other);
        queue.completed(List.of(run));
        queue.done(run, first);
        requireNothingReady("another run is on the device");
        queue.completed(List.of(other));
        queue.remove(other);
        assertEquals(Set.of(run), tasks());
        queue.stepping(run);
        queue.add(other, evaluate());
        requireNothingReady("it is on the device alone");
        queue.stepped(run);
        queue.done(run, suspected);
        assertEquals(List.of(other, run), pass().reversed());
    }

    @Test void theRunThatHasWaitedLongestIsFirst() throws InterruptedException {
        var first = new ResidentRun(model);
        var second = new ResidentRun(model);
        queue.add(first, evaluate());
        queue.add(second, evaluate());
        assertEquals(List.of(first, second), pass());
        queue.launched(List.of(first), List.of());
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
