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

/// Tests routes, limits, lost engines and expiry; engines are strings.
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

    private static SampleDispatcher<String> dispatcher(String... engines) {
        var dispatcher = new SampleDispatcher<String>(SETTINGS);
        dispatcher.updateEngines(engine(engines));
        return dispatcher;
    }

    private static List<EngineStatus<String>> engine(String... engines) {
        var all = new ArrayList<EngineStatus<String>>();
        for (String engine : engines) all.add(new EngineStatus<>(engine, Set.of(MODEL), 0));
        return all;
    }

    private static List<String> sent(SampleDispatcher<String> dispatcher, long now) {
        return dispatcher.dispatch(now).stream().map(send -> send.task().id() + ">" + send.engine()).toList();
    }

    @Test void aRequestIsSentToTheEngineWithItsAdapterUnlessThatHasAMuchHigherLoad() {
        var candidates = List.of(new Route.Candidate<>("a", 3, true), new Route.Candidate<>("b", 2, false));
        assertEquals(new Route.To<>("a"), Route.choose(candidates, 10, 2));
        assertEquals(new Route.To<>("b"), Route.choose(candidates, 10, 1));
        assertEquals(new Route.To<>("b"), Route.choose(candidates, 3, 2));
        assertEquals(new Route.Wait<>(), Route.choose(candidates, 2, 2));
        assertEquals(new Route.Wait<>(), Route.choose(List.<Route.Candidate<String>>of(), 2, 2));
        var dispatcher = dispatcher("a", "b");
        for (String[] step : new String[][] {{"1", "x", "a"}, {"2", "y", "b"}, {"3", "y", "b"},
                {"4", "x", "a"}}) {
            dispatcher.submit("me", task(step[0], step[1]));
            assertEquals(List.of(step[0] + ">" + step[2]), sent(dispatcher, 0));
        }
    }

    @Test void aRepeatedRequestIsNotSentAgainAndKeepsItsResult() {
        var dispatcher = dispatcher("a");
        dispatcher.submit("me", task("1", ""));
        assertEquals(List.of("1>a"), sent(dispatcher, 0));
        assertInstanceOf(Submission.Accepted.class, dispatcher.submit("me", task("1", "")));
        assertEquals(List.of(), sent(dispatcher, 0));
        assertTrue(dispatcher.complete("1", result(1), 0));
        assertFalse(dispatcher.complete("1", result(2), 0));
        dispatcher.submit("me", task("1", ""));
        assertEquals(List.of(), sent(dispatcher, 0));
        assertEquals(1,
                ((Status.Completed) dispatcher.status("me", "1")).result().sequences().getFirst().tokens()
                        .length);
        assertInstanceOf(Status.NotOwned.class, dispatcher.status("you", "1"));
        assertInstanceOf(Status.Unknown.class, dispatcher.status("me", "2"));
    }

    @Test void requestsOfALostEngineAreSentFirstAndInOrderToAnotherAndNoneFailsForIt() {
        var dispatcher = dispatcher("a");
        dispatcher.submit("me", task("1", ""));
        dispatcher.submit("me", task("2", ""));
        assertEquals(List.of("1>a", "2>a"), sent(dispatcher, 0));
        dispatcher.submit("me", task("3", ""));
        dispatcher.handleEngineLoss("a", 0);
        assertEquals(List.of(), sent(dispatcher, 0));
        dispatcher.updateEngines(engine("b"));
        assertEquals(List.of("1>b", "2>b", "3>b"), sent(dispatcher, 0));
        assertTrue(dispatcher.complete("2", result(1), 0));
        long now = 0;
        for (long delay : new long[] {1000, 4000, 16_000, 60_000, 60_000}) {
            dispatcher.handleEngineLoss("b", now);
            dispatcher.updateEngines(engine("b"));
            sent(dispatcher, now);
            dispatcher.requeueDeferred(now + delay - 1);
            assertFalse(sent(dispatcher, now + delay - 1).contains("1>b"));
            now += delay;
            dispatcher.requeueDeferred(now);
            assertTrue(sent(dispatcher, now).contains("1>b"), "after " + delay + " ms");
        }
        assertInstanceOf(Status.Waiting.class, dispatcher.status("me", "1"));
        assertTrue(dispatcher.complete("1", result(1), now));
    }

    @Test void aRequestThatEndedItsWorkersFailsAtOnceAndAStoreIsWaitedFor() {
        var dispatcher = dispatcher("a");
        dispatcher.submit("me", task("1", ""));
        dispatcher.submit("me", task("2", ""));
        dispatcher.dispatch(0);
        assertTrue(dispatcher.handleFailure("1", Fault.server(SampleTask.WORKER_LOST, "it ends workers"), 0));
        long now = 0;
        for (int times = 0; times < 20; times++) {
            assertFalse(dispatcher.handleFailure("2", Fault.server("store_failed", "no answer"), now));
            assertTrue(((Status.Waiting) dispatcher.status("me", "2")).state().contains("no answer"));
            dispatcher.requeueDeferred(now += 60_000);
            assertEquals(List.of("2>a"), sent(dispatcher, now));
        }
        assertFalse(dispatcher.handleFailure("2", Fault.server("engine_failed", "x"), now));
        dispatcher.requeueDeferred(now += 60_000);
        dispatcher.dispatch(now);
        assertFalse(dispatcher.handleFailure("2", Fault.server("out_of_memory", "x"), now), "another fault");
        assertEquals(1, dispatcher.unfinished());
    }

    /// More small workers than attempts: the one with room is found, also while it is busy.
    @Test void aRequestWithoutRoomOnOneWorkerGoesToEachOtherBeforeItFails() {
        Fault full = Fault.server("out_of_memory", "its cache holds 64 tokens");
        var dispatcher = dispatcher("a", "b", "c", "d", "large");
        dispatcher.submit("me", task("1", ""));
        for (String small : List.of("a", "b", "c", "d")) {
            assertEquals(List.of("1>" + small), sent(dispatcher, 0));
            assertFalse(dispatcher.handleFailure("1", full, 0), small);
            dispatcher.requeueDeferred(0);
        }
        dispatcher.updateEngines(List.of(new EngineStatus<>("a", Set.of(MODEL), 0),
                new EngineStatus<>("large", Set.of(MODEL), 4)));
        dispatcher.submit("me", task("2", ""));
        assertEquals(List.of("2>a"), sent(dispatcher, 0), "the first waits for the large one");
        dispatcher.updateEngines(engine("a", "large"));
        assertEquals(List.of("1>large"), sent(dispatcher, 0));
        assertTrue(dispatcher.complete("1", result(1), 0));
    }

    @Test void aRequestThatHasRoomOnNoWorkerFailsWithTheReason() {
        Fault full = Fault.server("adapter_too_large", "no");
        var dispatcher = dispatcher("a", "b");
        dispatcher.submit("me", task("1", ""));
        long now = 0;
        for (String engine : List.of("a", "b")) {
            assertEquals(List.of("1>" + engine), sent(dispatcher, now));
            assertFalse(dispatcher.handleFailure("1", full, now));
            dispatcher.requeueDeferred(now += 60_000);
        }
        dispatcher.updateEngines(engine("a"));
        assertEquals(List.of("1>a"), sent(dispatcher, now));
        assertTrue(dispatcher.handleFailure("1", full, now));
        assertEquals(full, ((Status.Failed) dispatcher.status("me", "1")).fault());
    }

    @Test void requestsAboveTheTotalTheAccountsAndTheByteLimitAreRefused() {
        var dispatcher = dispatcher();
        for (int i = 0; i < 5; i++)
            assertInstanceOf(Submission.Accepted.class, dispatcher.submit("me", task("m" + i, "")));
        var mine = assertInstanceOf(Submission.QueueFull.class, dispatcher.submit("me", task("more", "")));
        assertEquals("queue_full", mine.fault().code());
        for (int i = 0; i < 5; i++)
            assertInstanceOf(Submission.Accepted.class, dispatcher.submit("you", task("y" + i, "")));
        assertInstanceOf(Submission.QueueFull.class, dispatcher.submit("they", task("t", "")));
        dispatcher.updateEngines(engine("a"));
        assertEquals(4, dispatcher.dispatch(0).size());
        assertTrue(dispatcher.complete("m0", result(1), 0));
        assertInstanceOf(Submission.Accepted.class, dispatcher.submit("me", task("more", "")));
        var long1 = new SampleTask("long", MODEL, Optional.empty(), new int[30_000], PARAMS, 1, 0, false, 0);
        assertInstanceOf(Submission.QueueFull.class, dispatcher().submit("me", long1));
    }

    @Test void resultsAreForgottenWhenTheyAreOldOrTooLargeTogether() {
        var dispatcher = dispatcher("a");
        for (String id : List.of("1", "2", "3")) dispatcher.submit("me", task(id, ""));
        dispatcher.dispatch(0);
        dispatcher.complete("1", result(700), 0);
        dispatcher.complete("2", result(100), 400);
        assertInstanceOf(Status.Unknown.class, dispatcher("a").status("me", "1"));
        assertInstanceOf(Status.Completed.class, dispatcher.status("me", "1"));
        dispatcher.complete("3", result(700), 500);
        assertInstanceOf(Status.Unknown.class, dispatcher.status("me", "1"));
        assertInstanceOf(Status.Completed.class, dispatcher.status("me", "2"));
        assertEquals(List.of("1"), dispatcher.takeExpired());
        dispatcher.expire(1401);
        assertEquals(List.of("2"), dispatcher.takeExpired());
        assertEquals(List.of(), dispatcher.takeExpired());
        assertInstanceOf(Status.Unknown.class, dispatcher.status("me", "2"));
        assertInstanceOf(Status.Completed.class, dispatcher.status("me", "3"));
    }

    @Test void theLogProbabilitiesUnderTheModelCountInTheSizeOfAResult() {
        var dispatcher = dispatcher("a");
        var sequence = new SampleResult.Sequence(new int[450], new float[450],
                SampleResult.StopReason.LENGTH, Optional.of(new float[450]));
        for (String id : List.of("1", "2")) dispatcher.submit("me", task(id, ""));
        dispatcher.dispatch(0);
        for (String id : List.of("1", "2")) dispatcher.complete(id,
                new SampleResult(List.of(sequence), Optional.empty(), Optional.empty()), 0);
        assertInstanceOf(Status.Unknown.class, dispatcher.status("me", "1"));
        assertInstanceOf(Status.Completed.class, dispatcher.status("me", "2"));
    }

    @Test void aUserFaultFailsARequestAndAServerFaultIsRetried() {
        var dispatcher = dispatcher("a");
        dispatcher.submit("me", task("1", ""));
        dispatcher.submit("me", task("2", ""));
        dispatcher.dispatch(0);
        assertTrue(dispatcher.handleFailure("1", Fault.user("weights_only", "no"), 0));
        assertFalse(dispatcher.handleFailure("2", Fault.server("queue_full", "busy"), 0));
        assertEquals(List.of(), sent(dispatcher, 0));
        for (int again = 0; again < 2; again++) {
            dispatcher.requeueDeferred(again * 10_000);
            assertEquals(List.of("2>a"), sent(dispatcher, 0));
            assertFalse(dispatcher.handleFailure("2", Fault.server("blob_missing", "not there"),
                    again * 10_000));
        }
        dispatcher.requeueDeferred(13_999);
        assertEquals(List.of(), sent(dispatcher, 0));
        dispatcher.requeueDeferred(14_000);
        assertEquals(List.of("2>a"), sent(dispatcher, 0));
        assertTrue(dispatcher.handleFailure("2", Fault.server("blob_missing", "not there"), 0));
        assertEquals(0, dispatcher.unfinished());
    }

    @Test void anEngineWithoutAnswerGetsTheRequestAgainAndAnEngineMissingFromTheFleetKeepsItsRequests() {
        var dispatcher = dispatcher("a");
        dispatcher.submit("me", task("1", ""));
        dispatcher.dispatch(0);
        assertEquals(List.of(), dispatcher.resendOverdue(500));
        assertEquals(1, dispatcher.resendOverdue(501).size());
        assertEquals(List.of(), dispatcher.resendOverdue(502));
        dispatcher.updateEngines(List.of());
        dispatcher.submit("me", task("2", ""));
        assertEquals(List.of(), sent(dispatcher, 0));
        assertTrue(dispatcher.complete("1", result(1), 0));
        dispatcher.updateEngines(engine("a"));
        assertEquals(List.of("2>a"), sent(dispatcher, 0));
    }

    /// Mutations tried: not queueing the request of a lost engine again, `release` without `sent -=`,
    /// dispatch beyond the window.
    @Test void underAnyHistoryEveryRequestEndsOnceAndNoEngineHasMoreThanItsWindow() {
        for (long seed = 0; seed < 200; seed++) {
            var random = new Random(seed);
            var dispatcher = dispatcher("a", "b");
            Map<String, Set<String>> at = new HashMap<>(Map.of("a", new HashSet<>(), "b", new HashSet<>()));
            var ended = new HashSet<String>();
            int next = 0;
            for (int step = 0; step < 300; step++) {
                long now = step * 1000L;
                String engine = random.nextBoolean() ? "a" : "b";
                Optional<String> running = at.get(engine).stream().sorted().skip(random.nextInt(4))
                        .findFirst();
                switch (random.nextInt(12)) {
                    case 0 -> {
                        dispatcher.handleEngineLoss(engine, now);
                        at.get(engine).clear();
                        dispatcher.updateEngines(engine("a", "b"));
                    }
                    case 1 -> dispatcher.requeueDeferred(now);
                    case 2 -> running.ifPresent(id -> {
                        at.values().forEach(tasks -> tasks.remove(id));
                        if (dispatcher.handleFailure(id, Fault.server("x", "y"), now))
                            assertTrue(ended.add(id));
                    });
                    case 3, 4, 5, 6 -> running.ifPresent(id -> {
                        at.values().forEach(tasks -> tasks.remove(id));
                        if (dispatcher.complete(id, result(1), 0)) assertTrue(ended.add(id));
                    });
                    default ->
                            dispatcher.submit("u" + random.nextInt(3),
                                    task("t" + next++, random.nextInt(3) + ""));
                }
                dispatcher.dispatch(0)
                        .forEach(send -> assertTrue(at.get(send.engine()).add(send.task().id())));
                at.forEach((_, tasks) -> assertTrue(tasks.size() <= 4, () -> "an engine has " + tasks));
                assertTrue(dispatcher.unfinished() <= 10);
            }
            for (int i = 0; i < 100 && dispatcher.unfinished() > 0; i++) {
                dispatcher.requeueDeferred(Long.MAX_VALUE);
                dispatcher.dispatch(0).forEach(send -> at.get(send.engine()).add(send.task().id()));
                at.values().forEach(tasks -> {
                    tasks.forEach(id -> {
                        if (dispatcher.complete(id, result(1), 0)) assertTrue(ended.add(id));
                    });
                    tasks.clear();
                });
            }
            assertEquals(0, dispatcher.unfinished(), "seed " + seed);
        }
    }
}
