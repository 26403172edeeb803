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

    @Test void idleRunsGoInTheOrderOfTheirLastUseAndBusyOnesOnlyForTheFirstWhoWaits() {
        var shelf = new RunAdmission(100, 10);
        for (int i = 0; i < 4; i++) {
            assertInstanceOf(RunAdmission.Answer.Granted.class, shelf.want(run(i), 25));
            shelf.worked(run(i));
        }
        shelf.used(run(0));
        assertEquals(List.of(), shelf.crowded(_ -> true), "nobody waits");
        assertInstanceOf(RunAdmission.Answer.Waits.class, shelf.want(run(5), 25));
        assertInstanceOf(RunAdmission.Answer.Waits.class, shelf.want(run(6), 25));
        assertInstanceOf(RunAdmission.Answer.TooLarge.class, shelf.want(run(7), 101));
        assertEquals(List.of(run(1)), shelf.crowded(_ -> false), "the first who waits has a busy one go");
        assertEquals(List.of(run(2)), shelf.crowded(_ -> true));
        assertEquals(List.of(), shelf.crowded(_ -> true), "each is asked once");
        shelf.left(run(1));
        assertEquals(List.of(run(5)), shelf.granted());
        assertEquals(List.of(), shelf.granted());
        shelf.left(run(2));
        assertEquals(List.of(run(6)), shelf.granted());
    }

    @Test void aRunThatGrowsBeyondTheLimitHasOthersGo() {
        var shelf = new RunAdmission(100, 10);
        shelf.want(run(1), 40);
        shelf.want(run(2), 40);
        assertTrue(shelf.grow(run(2), 90));
        assertTrue(!shelf.grow(run(2), 101));
        assertEquals(List.of(run(1)), shelf.crowded(r -> r.equals(run(1))));
    }

    @Test void nobodyWaitsForEverAndTheLimitHolds() {
        for (int seed = 0; seed < 200; seed++) {
            var random = new Random(seed);
            var shelf = new RunAdmission(100, 1000);
            Map<RunId, Integer> held = new HashMap<>();
            Map<RunId, Integer> waiting = new HashMap<>();
            Set<RunId> leaving = new HashSet<>();
            for (int i = 0; i < 400; i++) {
                RunId run = run(random.nextInt(12));
                if (held.containsKey(run)) {
                    shelf.used(run);
                    if (random.nextBoolean()) shelf.worked(run);
                } else if (!waiting.containsKey(run)) {
                    int size = 1 + random.nextInt(60);
                    switch (shelf.want(run, size)) {
                        case RunAdmission.Answer.Granted() -> held.put(run, size);
                        case RunAdmission.Answer.Waits() -> waiting.put(run, size);
                        default -> throw new AssertionError();
                    }
                }
                leaving.addAll(shelf.crowded(_ -> random.nextBoolean()));
                if (random.nextInt(3) == 0) leave(shelf, held, waiting, leaving);
                assertTrue(held.values().stream().mapToInt(v -> v).sum() <= 100);
                assertEquals(held.values().stream().mapToInt(v -> v).sum(), shelf.bytes());
            }
            for (int i = 0; i < 50 && !waiting.isEmpty(); i++) {
                held.keySet().forEach(shelf::worked);
                leaving.addAll(shelf.crowded(_ -> false));
                leave(shelf, held, waiting, leaving);
            }
            assertEquals(Map.of(), waiting, "seed " + seed);
        }
    }

    private static void leave(RunAdmission shelf, Map<RunId, Integer> held, Map<RunId, Integer> waiting,
            Set<RunId> leaving) {
        for (RunId gone : leaving) {
            assertTrue(held.containsKey(gone), "only those who have a place are asked");
            shelf.left(gone);
            held.remove(gone);
        }
        leaving.clear();
        for (RunId next : shelf.granted()) held.put(next, waiting.remove(next));
    }
}
