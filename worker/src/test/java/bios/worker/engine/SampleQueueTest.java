package bios.worker.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.persistence.marks.ExecutionMarks;
import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelName;
import bios.protocol.run.RunId;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingParams;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.apache.pekko.actor.testkit.typed.javadsl.TestInbox;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Requests during which workers died are decoded alone, and refused when they died of them.
class SampleQueueTest {
    private static final ModelName MODEL = new ModelName("m");
    @TempDir Path folder;
    private final TestInbox<EngineReply> client = TestInbox.create();
    private final DeviceQueue device = new DeviceQueue(1);
    private Path data;
    private int process;

    /// The marks of a process that follows one which has ended without a shutdown.
    private ExecutionMarks nextProcess() throws Exception {
        Path after = Files.createDirectories(folder.resolve("process-" + process++));
        if (data != null) for (Path file : Files.list(data).toList())
            Files.copy(file, after.resolve(file.getFileName()));
        data = after;
        return ExecutionMarks.open(after);
    }

    private SampleQueue queue(ExecutionMarks marks) {
        return new SampleQueue(new AdapterCache(1), device, (_, _) -> { }, 100, marks);
    }

    private Optional<Fault> add(SampleQueue queue, String id) {
        var params = new SamplingParams(Optional.empty(), Optional.empty(), List.of(), List.of(), 1, -1, 1);
        return queue.add(new PendingSample(new SampleTask(id, MODEL, Optional.empty(), new int[] {1}, params,
                1, 42, false, 0), client.getRef()));
    }

    /// The requests that the device gets, until it has all; each turn's are done before the next.
    private List<List<String>> turns(SampleQueue queue) throws InterruptedException {
        var turns = new ArrayList<List<String>>();
        while (queue.sequences() > 0) {
            var turn = assertInstanceOf(DeviceQueue.Turn.Sample.class, device.take(false));
            turns.add(turn.added().stream().map(ready -> ready.request().task().id()).toList());
            device.launched(MODEL);
            device.completed(MODEL, false);
            queue.finished(turn.added().stream().<DeviceExecutor.SampleOutcome>map(ready ->
                    new DeviceExecutor.SampleOutcome.Drawn(ready.request(), new SampleResult(List.of(),
                            Optional.empty(), Optional.empty()))).toList());
        }
        return turns;
    }

    @Test void afterTwoEndsInCompanyRequestsAreDecodedAloneAndInTheirOrder() throws Exception {
        nextProcess().beginSamples(List.of("b", "c"));
        ExecutionMarks once = nextProcess();
        SampleQueue queue = queue(once);
        for (String id : List.of("a", "b", "c", "d")) assertEquals(Optional.empty(), add(queue, id));
        assertEquals(List.of(List.of("a", "b", "c", "d")), turns(queue), "one end is no suspicion");

        var other = new SampleQueueTest();
        other.folder = Files.createDirectories(folder.resolve("other"));
        other.nextProcess().beginSamples(List.of("b", "c"));
        other.nextProcess().beginSamples(List.of("b", "c"));
        SampleQueue suspicious = other.queue(other.nextProcess());
        for (String id : List.of("a", "b", "c", "d", "e")) other.add(suspicious, id);
        assertEquals(List.of(List.of("a"), List.of("b"), List.of("c"), List.of("d", "e")),
                other.turns(suspicious));
        for (String id : List.of("b", "c")) other.add(suspicious, id);
        assertEquals(List.of(List.of("b", "c")), other.turns(suspicious), "they have been decoded since");
    }

    @Test void aRequestThatEndedItsWorkerThreeTimesAloneIsRefusedAndNoOther() throws Exception {
        for (int times = 0; times < 3; times++) {
            ExecutionMarks marks = nextProcess();
            assertEquals(Optional.empty(), add(queue(marks), "deadly"), "after " + times);
            marks.beginSamples(List.of("deadly"));
        }
        SampleQueue queue = queue(nextProcess());
        Fault refused = add(queue, "deadly").orElseThrow();
        assertEquals(SampleTask.WORKER_LOST, refused.code());
        assertTrue(refused.message().contains("3 times"), refused::message);
        assertEquals(Optional.empty(), add(queue, "other"));
        nextProcess();
        assertEquals(Optional.empty(), add(queue(nextProcess()), "deadly"),
                "a process that was idle has ended too");
    }

    @Test void whileASuspectIsDecodedNothingElseIsInFlight() throws Exception {
        for (int times = 0; times < 2; times++) nextProcess().beginSamples(List.of("suspect"));
        SampleQueue queue = queue(nextProcess());
        add(queue, "suspect");
        assertInstanceOf(DeviceQueue.Turn.Sample.class, device.take(false));
        device.launched(MODEL);
        device.add(new ResidentRun(null), operation());
        device.add(new DeviceQueue.Turn.Complete(Optional::empty));
        assertInstanceOf(DeviceQueue.Turn.Complete.class, device.take(false), "and no task of a run");
        device.completed(MODEL, false);
        assertInstanceOf(DeviceQueue.Turn.Tasks.class, device.take(false));
    }

    private static QueuedOperation operation() {
        var operation = new QueuedOperation(new EngineCommand.CloseRun(
                new RunId("m-%012x".formatted(1))), 1, null);
        operation.decoded(new DeviceTask.Copy(new DeviceTask.Purpose.Recovery()));
        return operation;
    }
}
