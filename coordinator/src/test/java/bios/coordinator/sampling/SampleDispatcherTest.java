package bios.coordinator.sampling;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.sampling.SampleDispatcher.EngineStatus;
import bios.coordinator.sampling.SampleDispatcher.Status;
import bios.coordinator.sampling.SampleDispatcher.Submission;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingParams;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;

/// The dispatcher: routes, limits, lost engines, expiry. Engines are strings.
class SampleDispatcherTest {
    private static final ModelName MODEL = new ModelName("m");
    private static final SamplingSettings SETTINGS = new SamplingSettings(10, 5, 100_000, 10_000,
            Duration.ofMillis(1000), 4, 2, 3, Duration.ofDays(1), Duration.ofMillis(500));
    private static final SamplingParams PARAMS = new SamplingParams(Optional.empty(), Optional.empty(),
            List.of(), List.of(), 1, -1, 1);

    static SampleTask task(String id, String adapter) {
        Optional<SampleTask.Adapter> weights = adapter.isEmpty()
                ? Optional.empty() : Optional.of(new SampleTask.Adapter(adapter, new LoraSpec(8, 8, 0,
                        List.copyOf(LoraSpec.ALL_LINEAR)), new BlobRef(new BlobId("x", "0".repeat(64)), 1)));
        return new SampleTask(id, MODEL, weights, new int[] {1}, PARAMS, 1, 42, false, 0);
    }

    private static SampleResult result(int tokens) {
        return new SampleResult(List.of(new SampleResult.Sequence(new int[tokens], new float[tokens],
                SampleResult.StopReason.LENGTH)), Optional.empty(), Optional.empty());
    }

    private static SampleDispatcher<String> desk(String... engines) {
        var desk = new SampleDispatcher<String>(SETTINGS);
        desk.updateEngines(engine(engines));
        return desk;
    }

    private static List<EngineStatus<String>> engine(String... engines) {
        var all = new ArrayList<EngineStatus<String>>();
        for (String engine : engines) all.add(new EngineStatus<>(engine, Set.of(MODEL), 0));
        return all;
    }

    private static List<String> sent(SampleDispatcher<String> desk, long now) {
        return desk.dispatch(now).stream().map(send -> send.task().id() + ">" + send.engine()).toList();
    }

    @Test void aRequestGoesWhereItsAdapterIsUnlessThatEngineHasMuchMore() {
        var candidates = List.of(new Route.Candidate<>("a", 3, true), new Route.Candidate<>("b", 2, false));
        assertEquals(new Route.To<>("a"), Route.choose(candidates, 10, 2));
        assertEquals(new Route.To<>("b"), Route.choose(candidates, 10, 1));
        assertEquals(new Route.To<>("b"), Route.choose(candidates, 3, 2));
        assertEquals(new Route.Wait<>(), Route.choose(candidates, 2, 2));
        assertEquals(new Route.Wait<>(), Route.choose(List.<Route.Candidate<String>>of(), 2, 2));
        var desk = desk("a", "b");
        for (String[] step : new String[][] {{"1", "x", "a"}, {"2", "y", "b"}, {"3", "y", "b"},
                {"4", "x", "a"}}) {
            desk.submit("me", task(step[0], step[1]));
            assertEquals(List.of(step[0] + ">" + step[2]), sent(desk, 0));
        }
    }

    @Test void aRepeatedRequestIsNotSentAgainAndKeepsItsResult() {
        var desk = desk("a");
        desk.submit("me", task("1", ""));
        assertEquals(List.of("1>a"), sent(desk, 0));
        assertInstanceOf(Submission.Accepted.class, desk.submit("me", task("1", "")));
        assertEquals(List.of(), sent(desk, 0));
        assertTrue(desk.completed("1", result(1), 0));
        assertFalse(desk.completed("1", result(2), 0));
        desk.submit("me", task("1", ""));
        assertEquals(List.of(), sent(desk, 0));
        assertEquals(1,
                ((Status.Completed) desk.status("me", "1")).result().sequences().getFirst().tokens().length);
        assertInstanceOf(Status.NotOwned.class, desk.status("you", "1"));
        assertInstanceOf(Status.Unknown.class, desk.status("me", "2"));
    }

    @Test void requestsOfADeadEngineGoElsewhereFirstAndInOrderUntilTheyHaveKilledTooMany() {
        var desk = desk("a");
        desk.submit("me", task("1", ""));
        desk.submit("me", task("2", ""));
        assertEquals(List.of("1>a", "2>a"), sent(desk, 0));
        desk.submit("me", task("3", ""));
        assertEquals(List.of(), desk.engineLost("a", 0));
        assertEquals(List.of(), sent(desk, 0));
        desk.updateEngines(engine("b"));
        assertEquals(List.of("1>b", "2>b", "3>b"), sent(desk, 0));
        assertTrue(desk.completed("2", result(1), 0));
        assertEquals(List.of(), desk.engineLost("b", 0));
        desk.updateEngines(engine("c"));
        assertEquals(List.of("1>c", "3>c"), sent(desk, 0));
        assertEquals(List.of("1"), desk.engineLost("c", 0));
        assertEquals("sampling_failed", ((Status.Failed) desk.status("me", "1")).fault().code());
    }

    @Test void tooMuchIsRefusedInAllAndForOneAccountAndInBytes() {
        var desk = desk();
        for (int i = 0; i < 5; i++)
            assertInstanceOf(Submission.Accepted.class, desk.submit("me", task("m" + i, "")));
        var mine = assertInstanceOf(Submission.QueueFull.class, desk.submit("me", task("more", "")));
        assertEquals("queue_full", mine.fault().code());
        for (int i = 0; i < 5; i++)
            assertInstanceOf(Submission.Accepted.class, desk.submit("you", task("y" + i, "")));
        assertInstanceOf(Submission.QueueFull.class, desk.submit("they", task("t", "")));
        desk.updateEngines(engine("a"));
        assertEquals(4, desk.dispatch(0).size());
        assertTrue(desk.completed("m0", result(1), 0));
        assertInstanceOf(Submission.Accepted.class, desk.submit("me", task("more", "")));
        var long1 = new SampleTask("long", MODEL, Optional.empty(), new int[30_000], PARAMS, 1, 0, false, 0);
        assertInstanceOf(Submission.QueueFull.class, desk().submit("me", long1));
    }

    @Test void resultsAreForgottenWhenTheyAreOldOrTooLargeTogether() {
        var desk = desk("a");
        for (String id : List.of("1", "2", "3")) desk.submit("me", task(id, ""));
        desk.dispatch(0);
        desk.completed("1", result(700), 0);
        desk.completed("2", result(100), 400);
        assertInstanceOf(Status.Unknown.class, desk("a").status("me", "1"));
        assertInstanceOf(Status.Completed.class, desk.status("me", "1"));
        desk.completed("3", result(700), 500);
        assertInstanceOf(Status.Unknown.class, desk.status("me", "1"));
        assertInstanceOf(Status.Completed.class, desk.status("me", "2"));
        desk.expire(1401);
        assertInstanceOf(Status.Unknown.class, desk.status("me", "2"));
        assertInstanceOf(Status.Completed.class, desk.status("me", "3"));
    }

    @Test void aUsersFaultEndsARequestAndTheServersIsTriedAgainLater() {
        var desk = desk("a");
        desk.submit("me", task("1", ""));
        desk.submit("me", task("2", ""));
        desk.dispatch(0);
        assertTrue(desk.failed("1", Fault.user("weights_only", "no"), 0));
        assertFalse(desk.failed("2", Fault.server("queue_full", "busy"), 0));
        assertEquals(List.of(), sent(desk, 0));
        for (int again = 0; again < 2; again++) {
            desk.requeueDeferred();
            assertEquals(List.of("2>a"), sent(desk, 0));
            assertFalse(desk.failed("2", Fault.server("blob_missing", "not there"), 0));
        }
        desk.requeueDeferred();
        assertEquals(List.of("2>a"), sent(desk, 0));
        assertTrue(desk.failed("2", Fault.server("blob_missing", "not there"), 0));
        assertEquals(0, desk.unfinished());
    }

    @Test void aSilentEngineIsAskedAgainAndOneThatIsOnlyOutOfSightKeepsItsRequests() {
        var desk = desk("a");
        desk.submit("me", task("1", ""));
        desk.dispatch(0);
        assertEquals(List.of(), desk.resendOverdue(500));
        assertEquals(1, desk.resendOverdue(501).size());
        assertEquals(List.of(), desk.resendOverdue(502));
        desk.updateEngines(List.of());
        desk.submit("me", task("2", ""));
        assertEquals(List.of(), sent(desk, 0));
        assertTrue(desk.completed("1", result(1), 0));
        desk.updateEngines(engine("a"));
        assertEquals(List.of("2>a"), sent(desk, 0));
    }

    /// Mutations tried: not queueing the request of a lost engine again, `release` without `sent -=`,
    /// dispatch beyond the window.
    @Test void underAnyHistoryEveryRequestEndsOnceAndNoEngineHasMoreThanItsWindow() {
        for (long seed = 0; seed < 200; seed++) {
            var random = new Random(seed);
            var desk = desk("a", "b");
            Map<String, Set<String>> at = new HashMap<>(Map.of("a", new HashSet<>(), "b", new HashSet<>()));
            var ended = new HashSet<String>();
            int next = 0;
            for (int step = 0; step < 300; step++) {
                String engine = random.nextBoolean() ? "a" : "b";
                Optional<String> running = at.get(engine).stream().sorted().skip(random.nextInt(4))
                        .findFirst();
                switch (random.nextInt(12)) {
                    case 0 -> {
                        ended.addAll(desk.engineLost(engine, 0));
                        at.get(engine).clear();
                        desk.updateEngines(engine("a", "b"));
                    }
                    case 1 -> desk.requeueDeferred();
                    case 2 -> running.ifPresent(id -> {
                        at.values().forEach(tasks -> tasks.remove(id));
                        if (desk.failed(id, Fault.server("x", "y"), 0)) assertTrue(ended.add(id));
                    });
                    case 3, 4, 5, 6 -> running.ifPresent(id -> {
                        at.values().forEach(tasks -> tasks.remove(id));
                        if (desk.completed(id, result(1), 0)) assertTrue(ended.add(id));
                    });
                    default ->
                            desk.submit("u" + random.nextInt(3), task("t" + next++, random.nextInt(3) + ""));
                }
                desk.dispatch(0).forEach(send -> assertTrue(at.get(send.engine()).add(send.task().id())));
                at.forEach((_, tasks) -> assertTrue(tasks.size() <= 4, () -> "an engine has " + tasks));
                assertTrue(desk.unfinished() <= 10);
            }
            for (int i = 0; i < 100 && desk.unfinished() > 0; i++) {
                desk.requeueDeferred();
                desk.dispatch(0).forEach(send -> at.get(send.engine()).add(send.task().id()));
                at.values().forEach(tasks -> {
                    tasks.forEach(id -> {
                        if (desk.completed(id, result(1), 0)) assertTrue(ended.add(id));
                    });
                    tasks.clear();
                });
            }
            assertEquals(0, desk.unfinished(), "seed " + seed);
        }
    }
}
