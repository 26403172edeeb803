package bios.worker.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.run.RunId;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;

class RunAdmissionTest {
    private static RunId run(int number) {
        return new RunId("m-%012x".formatted(number));
    }

    @Test void idleRunsAreEvictedInTheOrderOfTheirLastUseAndBusyOnesOnlyForTheFirstInTheQueue() {
        var admission = new RunAdmission(100, 10);
        for (int i = 0; i < 4; i++) {
            assertInstanceOf(RunAdmission.Answer.Granted.class, admission.request(run(i), 25));
            admission.executed(run(i));
        }
        admission.touch(run(0));
        assertEquals(List.of(), admission.selectEvictions(_ -> true), "no run waits");
        assertInstanceOf(RunAdmission.Answer.Queued.class, admission.request(run(5), 25));
        assertInstanceOf(RunAdmission.Answer.Queued.class, admission.request(run(6), 25));
        assertInstanceOf(RunAdmission.Answer.TooLarge.class, admission.request(run(7), 101));
        assertEquals(List.of(run(1)), admission.selectEvictions(_ -> false),
                "a busy run is evicted only for the first in the queue");
        assertEquals(List.of(run(2)), admission.selectEvictions(_ -> true));
        assertEquals(List.of(), admission.selectEvictions(_ -> true), "each is selected once");
        admission.remove(run(1));
        assertEquals(List.of(run(5)), admission.admitWaiting());
        assertEquals(List.of(), admission.admitWaiting());
        admission.remove(run(2));
        assertEquals(List.of(run(6)), admission.admitWaiting());
    }

    @Test void aRunThatGrowsBeyondTheLimitHasOthersEvicted() {
        var admission = new RunAdmission(100, 10);
        admission.request(run(1), 40);
        admission.request(run(2), 40);
        assertTrue(admission.resize(run(2), 90));
        assertTrue(!admission.resize(run(2), 101));
        assertEquals(List.of(run(1)), admission.selectEvictions(r -> r.equals(run(1))));
    }

    @Test void noRunWaitsForeverAndTheLimitIsKept() {
        for (int seed = 0; seed < 200; seed++) {
            var random = new Random(seed);
            var admission = new RunAdmission(100, 1000);
            Map<RunId, Integer> admitted = new HashMap<>();
            Map<RunId, Integer> waiting = new HashMap<>();
            Set<RunId> evicted = new HashSet<>();
            for (int i = 0; i < 400; i++) {
                RunId run = run(random.nextInt(12));
                if (admitted.containsKey(run)) {
                    admission.touch(run);
                    if (random.nextBoolean()) admission.executed(run);
                } else if (!waiting.containsKey(run)) {
                    int size = 1 + random.nextInt(60);
                    switch (admission.request(run, size)) {
                        case RunAdmission.Answer.Granted() -> admitted.put(run, size);
                        case RunAdmission.Answer.Queued() -> waiting.put(run, size);
                        default -> throw new AssertionError();
                    }
                }
                evicted.addAll(admission.selectEvictions(_ -> random.nextBoolean()));
                if (random.nextInt(3) == 0) closeRun(admission, admitted, waiting, evicted);
                assertTrue(admitted.values().stream().mapToInt(v -> v).sum() <= 100);
                assertEquals(admitted.values().stream().mapToInt(v -> v).sum(), admission.bytes());
            }
            for (int i = 0; i < 50 && !waiting.isEmpty(); i++) {
                admitted.keySet().forEach(admission::executed);
                evicted.addAll(admission.selectEvictions(_ -> false));
                closeRun(admission, admitted, waiting, evicted);
            }
            assertEquals(Map.of(), waiting, "seed " + seed);
        }
    }

    private static void closeRun(RunAdmission admission, Map<RunId, Integer> admitted, Map<RunId,
            Integer> waiting,
            Set<RunId> evicted) {
        for (RunId gone : evicted) {
            assertTrue(admitted.containsKey(gone), "only admitted runs are selected");
            admission.remove(gone);
            admitted.remove(gone);
        }
        evicted.clear();
        for (RunId next : admission.admitWaiting()) admitted.put(next, waiting.remove(next));
    }
}
