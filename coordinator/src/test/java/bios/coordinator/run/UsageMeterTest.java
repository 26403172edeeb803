package bios.coordinator.run;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.run.RunEvent.UsageCounted;
import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunUsage;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;

/// What operations use is counted once, however often they are executed.
class UsageMeterTest {
    private static final long HOUR = 3_600_000;

    private static FinishedOperation pass(long position, int tokens) {
        return new FinishedOperation(position, position, "d", Optional.of(new OperationResult.Evaluated(
                List.of(new float[tokens]), Map.of())), Optional.empty());
    }

    private static void execute(UsageMeter meter, long from, long to) {
        for (long at = from; at <= to; at++) {
            meter.measured(at, 1000);
            meter.finished(at % 2 == 0 ? OperationKind.FORWARD : OperationKind.FORWARD_BACKWARD,
                    pass(at, 10));
        }
    }

    private static TrainingRun run(UsageCounted... events) {
        TrainingRun run = TrainingRun.NONE.apply(new RunEvent.RunCreated(RunHarness.config(true)));
        for (UsageCounted event : events) run = run.apply(event);
        return run;
    }

    @Test void aReplayAfterARecoveryPointCountsNothingTwice() {
        var meter = new UsageMeter();
        meter.begin(run());
        execute(meter, 1, 6);
        UsageCounted first = meter.upTo(4, HOUR).orElseThrow();
        assertEquals(new UsageCounted(4, 20, 20, 4000, HOUR), first);
        meter.stored(run(first));
        assertEquals(Optional.empty(), meter.upTo(4, HOUR));
        // The entity starts again: what was behind the recovery point is executed again, on another node.
        var other = new UsageMeter();
        other.begin(run(first));
        assertEquals(40, other.tokens());
        execute(other, 5, 6);
        execute(other, 5, 6);
        execute(other, 3, 4);
        assertEquals(60, other.tokens());
        RunUsage now = other.now(3 * HOUR);
        assertEquals(30, now.trainedTokens());
        assertEquals(30, now.evaluatedTokens());
        assertEquals(6000, now.deviceNanos());
        UsageCounted second = other.upTo(Long.MAX_VALUE, 3 * HOUR).orElseThrow();
        assertEquals(now.trainedTokens(), run(first, second).usage().orElseThrow().trainedTokens());
        assertEquals(List.of(1L, 3L), now.hours().stream().map(RunUsage.Hour::hour).toList());
    }

    @Test void theHoursAreBoundedAndAClockThatIsSetBackOpensNone() {
        RunUsage usage = RunUsage.NONE;
        for (int i = 0; i < 2 * RunUsage.MOST_HOURS; i++) usage = usage.plus(i, 1, 0, 0, i * HOUR);
        assertEquals(RunUsage.MOST_HOURS, usage.hours().size());
        RunUsage back = usage.plus(9999, 5, 0, 0, 0);
        assertEquals(usage.hours().size(), back.hours().size());
        assertEquals(6, back.hours().getLast().trainedTokens());
        assertTrue(RunUsage.NONE.none() && !back.none());
    }

    @Test void aPositionWithSeveralTargetsIsOnePosition() {
        var meter = new UsageMeter();
        meter.begin(run());
        meter.finished(OperationKind.FORWARD, new FinishedOperation(1, 1, "d", Optional.of(
                new OperationResult.EvaluatedMatrix(new OperationResult.Evaluated(List.of(new float[12],
                        new float[5]), Map.of()), List.of(3, 0))), Optional.empty()));
        assertEquals(9, meter.now(0).evaluatedTokens());
    }

    @Test void failedOperationsHaveNoTokens() {
        var meter = new UsageMeter();
        meter.begin(run());
        meter.finished(OperationKind.FORWARD_BACKWARD, new FinishedOperation(1, 1, "d", Optional.empty(),
                Optional.of(bios.protocol.Fault.user("bad", "why"))));
        assertEquals(Optional.empty(), meter.upTo(1, 0));
    }
}
