package bios.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.client.ScriptedGateway.Caller;
import bios.protocol.Fault;
import bios.protocol.client.Answer;
import bios.protocol.client.ClientMessage;
import bios.protocol.client.Problem;
import bios.protocol.client.Request;
import bios.protocol.run.AdamParams;
import bios.protocol.run.RunId;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/// The client at gateways that answer late, wrongly or much.
class BiosClientTest {
    private static final RunId RUN = new RunId("usf-tiny-0123456789ab");

    private static <T> T get(CompletionStage<T> stage) throws Exception {
        return stage.toCompletableFuture().get(60, TimeUnit.SECONDS);
    }

    private static String code(CompletionStage<?> stage) {
        var failed = assertThrows(ExecutionException.class, () -> get(stage));
        return assertInstanceOf(BiosException.class, failed.getCause()).code();
    }

    /// Accepts operations only up to a number; all that are accepted are done.
    private static final class Accepting implements ScriptedGateway.Session {
        private final List<Long> arrived = new ArrayList<>();
        private final List<Runnable> held = new ArrayList<>();
        private long most;

        @Override public synchronized void on(Caller caller, Request request) {
            switch (request) {
                case Request.Submit submit -> {
                    arrived.add(submit.seq());
                    Runnable answer = () -> caller.answer(new Answer.Submitted("" + submit.seq(),
                            Optional.of(submit.run())));
                    if (submit.seq() <= most) answer.run();
                    else held.add(answer);
                }
                case Request.Retrieve _ -> caller.answer(new Answer.Stepped(1, Map.of()));
                case Request other -> caller.answer(new Answer.Models(List.of()));
            }
        }

        /// Accepts those that have come, and further ones up to a number.
        synchronized void accept(long upTo) {
            most = upTo;
            held.forEach(Runnable::run);
            held.clear();
        }

        synchronized List<Long> arrived() {
            return List.copyOf(arrived);
        }
    }

    @Test void operationsBehindOneThatWasRefusedKeepTheirOrder() throws Exception {
        var session = new Accepting();
        try (var gateway = new ScriptedGateway(ClientMessage.MINOR, session);
                BiosClient client = BiosClient.connect(ClientSettings.of(gateway.address())
                        .withMaxOperations(3).withMaxWaiting(4, 1 << 20))) {
            TrainingRun run = client.run(RUN, 1);
            var steps = IntStream.range(0, 7).mapToObj(_ -> run.optimStep(AdamParams.DEFAULT)).toList();
            assertEquals("client_full", code(run.optimStep(AdamParams.DEFAULT)));
            while (session.arrived().isEmpty()) get(client.models());
            session.accept(5);
            get(steps.get(4));
            while (session.arrived().size() < 6) get(client.models());
            // one more may run, and the sixth is not accepted yet
            var last = run.optimStep(AdamParams.DEFAULT);
            get(client.models());
            session.accept(99);
            get(last);
            for (var step : steps) get(step);
            assertEquals(List.of(1L, 2L, 3L, 4L, 5L, 6L, 7L, 9L), session.arrived());
        }
    }

    @Test void batchesThatAreNotAcceptedAreBoundedInBytes() throws Exception {
        var session = new Accepting();
        Batch batch = Batch.ofTexts(List.of(new int[100]));
        try (var gateway = new ScriptedGateway(ClientMessage.MINOR, session);
                BiosClient client = BiosClient.connect(ClientSettings.of(gateway.address())
                        .withMaxWaiting(100, 100))) {
            TrainingRun run = client.run(RUN, 1);
            var first = run.submit(Answer.Stepped.class, batch.operation(false));
            assertEquals("client_full", code(run.submit(Answer.Stepped.class, batch.operation(false))));
            assertEquals(2, run.nextSeq(), "nothing was counted");
            session.accept(9);
            get(first);
            get(run.submit(Answer.Stepped.class, batch.operation(false)));
            assertEquals(List.of(1L, 2L), session.arrived());
        }
    }

    /// Holds all answers until the client has pinged twice.
    private static final class Holding implements ScriptedGateway.Session {
        private final List<Caller> held = new ArrayList<>();
        private int pings;
        private int most;

        @Override public synchronized void on(Caller caller, Request request) {
            if (pings < 2) held.add(caller);
            else caller.answer(new Answer.Models(List.of()));
        }

        @Override public synchronized void pinged() {
            if (++pings != 2) return;
            most = held.size();
            held.forEach(caller -> caller.answer(new Answer.Models(List.of())));
        }
    }

    @Test void manyRequestsAreSentAFewAtATimeAndAllAreAnswered() throws Exception {
        var session = new Holding();
        try (var gateway = new ScriptedGateway(ClientMessage.MINOR, session);
                BiosClient client = BiosClient.connect(ClientSettings.of(gateway.address()))) {
            for (var models : IntStream.range(0, 5000).mapToObj(_ -> client.models()).toList()) get(models);
        }
        assertEquals(512, session.most);
    }

    @Test void whatOneGatewayRefusesAnotherMayServe() throws Exception {
        var why = new Problem(Fault.Kind.USER, "unsupported", "another version", Optional.empty(),
                Optional.empty(), 0);
        try (var refusing = ScriptedGateway.refusing(why);
                var serving = new ScriptedGateway(ClientMessage.MINOR, (caller, _) ->
                        caller.answer(new Answer.Models(List.of())));
                BiosClient client = BiosClient.connect(ClientSettings.of(refusing.address(),
                        serving.address()));
                BiosClient hopeless = BiosClient.connect(ClientSettings.of(refusing.address()))) {
            assertEquals(List.of(), get(client.models()));
            assertEquals("unsupported", code(hopeless.models()));
        }
    }

    @Test void aListenerThatFailsStopsNothing() throws Exception {
        var asked = new AtomicInteger();
        try (var gateway = new ScriptedGateway(ClientMessage.MINOR, (caller, request) -> {
            if (request instanceof Request.Submit submit)
                caller.answer(new Answer.Submitted("r", Optional.of(submit.run())));
            else caller.answer(asked.incrementAndGet() < 3 ? new Answer.Pending("it waits", false)
                    : new Answer.Stepped(7, Map.of()));
        }); BiosClient client = BiosClient.connect(ClientSettings.of(gateway.address()).onWait(why -> {
            throw new IllegalStateException(why);
        }))) {
            assertEquals(7, get(client.run(RUN, 1).optimStep(AdamParams.DEFAULT)).step());
        }
    }

    @Test void anAnswerThatIsTooLargeFailsItsRequestAlone() throws Exception {
        var asked = new AtomicInteger();
        try (var gateway = new ScriptedGateway(ClientMessage.MINOR, (caller, _) -> {
            if (asked.incrementAndGet() == 1)
                caller.client().tell(new ClientMessage.Offer(caller.id(), Integer.MAX_VALUE));
            else caller.answer(new Answer.Models(List.of()));
        }); BiosClient client = BiosClient.connect(ClientSettings.of(gateway.address()))) {
            assertEquals("client_full", code(client.models()));
            assertEquals(List.of(), get(client.models()));
        }
    }

    @Test void whoDoesNotKnowTheNumberOfARequestCannotAnswerIt() throws Exception {
        var ids = new ArrayList<Long>();
        try (var gateway = new ScriptedGateway(ClientMessage.MINOR, (caller, _) -> {
            ids.add(caller.id());
            caller.answer(new Answer.Models(List.of()));
        })) {
            for (int i = 0; i < 2; i++)
                try (BiosClient client = BiosClient.connect(ClientSettings.of(gateway.address()))) {
                    get(client.models());
                }
        }
        assertNotEquals(ids.get(0), ids.get(1));
        ids.forEach(id -> assertTrue(id > 1 << 20, () -> "" + id));
    }

    private static Answer.Run described(Optional<Answer.Waiting> waiting) {
        return new Answer.Run(RUN.value(), "m", 8, 32, List.of(), 0, 7, List.of(), false, "{}",
                Optional.empty(), Optional.empty(), waiting);
    }

    /// What a gateway is asked to try again, or to give up.
    private static final class Deciding implements ScriptedGateway.Session {
        private final Optional<Answer.Waiting> waiting;
        private final Consumer<Caller> decided;
        private final List<Request> asked = new CopyOnWriteArrayList<>();

        Deciding(Optional<Answer.Waiting> waiting, Consumer<Caller> decided) {
            this.waiting = waiting;
            this.decided = decided;
        }

        @Override public void on(Caller caller, Request request) {
            if (request instanceof Request.TryAgain || request instanceof Request.GiveUp) {
                asked.add(request);
                decided.accept(caller);
            } else caller.answer(described(waiting));
        }
    }

    /// Asks a gateway that ends before it answers, in a session with another one behind it.
    ///
    /// @param minor version of the other gateway
    /// @return what both were asked
    private static List<Request> answerLost(Optional<Answer.Waiting> waiting, int minor,
            Function<TrainingRun, CompletionStage<Void>> question, Optional<String> code) throws Exception {
        var ending = new AtomicReference<ScriptedGateway>();
        var first = new Deciding(waiting, _ -> ending.get().close());
        var second = new Deciding(waiting, caller -> caller.answer(new Answer.Done()));
        try (var lost = new ScriptedGateway(ClientMessage.MINOR, first);
                var next = new ScriptedGateway(minor, second);
                BiosClient client = BiosClient.connect(ClientSettings.of(lost.address(), next.address())
                        .withSilence(Duration.ofSeconds(2)))) {
            ending.set(lost);
            CompletionStage<Void> told = question.apply(client.run(RUN, 1));
            if (code.isPresent()) assertEquals(code.get(), code(told));
            else get(told);
            return Stream.concat(first.asked.stream(), second.asked.stream()).toList();
        }
    }

    @Test void aDecisionIsRepeatedOnlyIfItNamesItsOperation() throws Exception {
        var aside = Optional.of(new Answer.Waiting(7, "optim_step", true, "out_of_memory", "no room"));
        var store = Optional.of(new Answer.Waiting(8, "forward", false, "store_failed", "away"));
        var again = new Request.TryAgain(RUN.value(), Optional.of(7L));
        assertEquals(List.of(again, again), answerLost(aside, ClientMessage.MINOR, TrainingRun::tryAgain,
                Optional.empty()));
        var up = new Request.GiveUp(RUN.value(), Optional.of(8L));
        assertEquals(List.of(up, up), answerLost(store, ClientMessage.MINOR, TrainingRun::giveUp,
                Optional.empty()));
        assertEquals(List.of(new Request.TryAgain(RUN.value(), Optional.empty())), answerLost(store,
                ClientMessage.MINOR, TrainingRun::tryAgain, Optional.of("answer_lost")));
        assertEquals(List.of(again), answerLost(aside, 1, run -> run.tryAgain(7), Optional.of("answer_lost")),
                "the other gateway would not read the number");
    }

    @Test void aRefusalForNowOfWhatMayNotBeRepeatedIsTold() throws Exception {
        var busy = new Problem(Fault.Kind.SERVER, "unavailable", "it does not answer", Optional.empty(),
                Optional.empty(), 1);
        var session = new Deciding(Optional.empty(), caller -> caller.answer(new Answer.Refused(busy)));
        try (var gateway = new ScriptedGateway(ClientMessage.MINOR, session);
                BiosClient client = BiosClient.connect(ClientSettings.of(gateway.address()))) {
            assertEquals("unavailable", code(client.run(RUN, 1).giveUp()));
            assertEquals(1, session.asked.size());
        }
    }

    @Test void numbersOfWhatIsOpenedAndAskedFollowFromTheContent() {
        var snapshot = new Request.Snapshot("run", 3, 0);
        assertEquals(BiosClient.number(snapshot), BiosClient.number(new Request.Snapshot("run", 3, 0)));
        assertNotEquals(BiosClient.number(snapshot), BiosClient.number(new Request.Snapshot("run", 4, 0)));
        assertNotEquals(BiosClient.number(snapshot), BiosClient.number(new Request.Snapshot("other", 3, 0)));
        for (int i = 0; i < 100; i++) {
            long number = BiosClient.number(new Request.Snapshot("run", i, 0));
            assertTrue(number >= 0 && number < 1_000_000_000_000_000_000L);
        }
    }
}
