package bios.client;

import bios.protocol.client.Answer;
import bios.protocol.client.ClientMessage;
import bios.protocol.client.ClientTransport;
import bios.protocol.client.PartReceiver;
import bios.protocol.client.PartSender;
import bios.protocol.client.Problem;
import bios.protocol.client.Request;
import bios.protocol.wire.ClientSerializer;
import java.time.Duration;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import org.apache.pekko.actor.ActorRef;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.PostStop;
import org.apache.pekko.actor.typed.javadsl.ActorContext;
import org.apache.pekko.actor.typed.javadsl.Adapter;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.actor.typed.javadsl.TimerScheduler;

/// The client's end of the protocol: keeps one session with one of the gateways, opens another when it is
/// silent, and sends what is unanswered again. What may not be repeated fails instead, and says so.
final class Connection {
    private static final Duration TICK = Duration.ofMillis(250);
    private static final long SECOND = 1_000_000_000;
    /// Longer than the longest wait of the gateway for a result.
    private static final long RESEND_NANOS = 45 * SECOND;
    private static final int MOST_ATTEMPTS = 16;
    private static final long PART_NANOS = 3 * SECOND;
    /// A transfer of which nothing comes for so long begins again.
    private static final long TRANSFER_NANOS = 30 * SECOND;
    /// Requests that are sent and unanswered, beside one for each operation that may be unfinished: more
    /// would overflow the queue of the connection, which drops messages.
    private static final int WINDOW = 256;
    private static final int AT_ONCE = 32;
    private static final long CONNECT_NANOS = 5 * SECOND;
    /// At most; four in the time after which the gateway gives this client up.
    private static final long PING_NANOS = SECOND;

    /// Sends a request.
    ///
    /// @param request encoded
    /// @param repeatable as [Request#repeatable]
    /// @param minor as [Request#minor]
    record Send(byte[] request, CompletableFuture<Answer> answer, boolean repeatable, int minor) {}

    /// Ends the session and the actor system.
    record End() {}

    private record Tick() {}

    /// A request without its answer.
    ///
    /// @param dueNanos when it is sent (again)
    /// @param sent whether it was sent in this session and is not refused
    /// @param left whether it was sent in any session: a gateway may have carried it out
    private record Unanswered(Send given, long dueNanos, boolean sent, boolean left) {
        byte[] request() {
            return given.request();
        }

        CompletableFuture<Answer> answer() {
            return given.answer();
        }

        Unanswered dueAt(long nanos) {
            return new Unanswered(given, nanos, false, left);
        }

        Unanswered sentUntil(long nanos) {
            return new Unanswered(given, nanos, true, true);
        }

        /// Why it is not sent to a gateway of this minor version; empty: it is.
        Optional<BiosException> refused(int gatewayMinor) {
            boolean older = given.minor() > gatewayMinor;
            if (left && (older || !given.repeatable())) return Optional.of(new BiosException.AnswerLost());
            return older ? Optional.of(BiosException.Refused.olderGateway(
                    "does not know the number of an operation here")) : Optional.empty();
        }
    }

    private final ActorContext<Object> context;
    private final ClientSettings settings;
    private final LongSupplier nanos;
    private final Supplier<String> names;
    private final Map<Long, Unanswered> unanswered = new LinkedHashMap<>();
    private final PartSender sender = new PartSender(Long.MAX_VALUE, _ -> { });
    private final PartReceiver receiver = new PartReceiver();
    private long unansweredBytes;
    /// Begins at a random number: who does not know it can answer no request.
    private long lastId;
    private int inFlight;
    private int gateway = -1;
    /// The minor version of the gateway with which there is a session.
    private int minor;
    /// The gateway of each attempt to connect: on a slow machine the reply to an older one comes first.
    private final Map<String, Integer> attempts = new LinkedHashMap<>();
    private final Set<Integer> refusedBy = new HashSet<>();
    private long heardNanos;
    private long pingNanos = PING_NANOS;
    private long pingedNanos;
    private Optional<org.apache.pekko.actor.typed.ActorRef<ClientMessage>> session = Optional.empty();
    private Optional<Problem> hopeless = Optional.empty();

    private Connection(ActorContext<Object> context, ClientSettings settings, LongSupplier nanos,
            Supplier<String> names) {
        this.context = context;
        this.settings = settings;
        this.nanos = nanos;
        this.names = names;
        this.lastId = Long.parseLong(names.get().replace("-", "").substring(0, 15), 16);
    }

    /// Requests that may be sent and unanswered.
    static int window(ClientSettings settings) {
        return settings.maxOperations() + WINDOW;
    }

    /// @param nanos monotonic clock
    /// @param names random names, which cannot be guessed
    static Behavior<Object> create(ClientSettings settings, LongSupplier nanos, Supplier<String> names) {
        return Behaviors.setup(context -> Behaviors.withTimers(timers ->
                new Connection(context, settings, nanos, names).start(timers)));
    }

    private Behavior<Object> start(TimerScheduler<Object> timers) {
        timers.startTimerWithFixedDelay(new Tick(), TICK);
        connect();
        return Behaviors.receive(Object.class).onMessage(End.class, _ -> Behaviors.stopped())
                .onAnyMessage(message -> {
                    on(message);
                    return Behaviors.same();
                }).onSignal(PostStop.class, _ -> {
                    end();
                    return Behaviors.same();
                }).build();
    }

    /// Any message of the protocol may arrive here, from anyone who knows the address.
    private void on(Object message) {
        switch (message) {
            case Send send -> send(send);
            case Tick _ -> tick();
            case ClientMessage.Connected opened -> opened(opened);
            case ClientMessage.Refused refused -> refused(refused);
            case ClientMessage.Pong _ -> heardNanos = nanos.getAsLong();
            case ClientMessage.Payload(long id, var answer) -> answered(id, answer);
            case ClientMessage.Offer offer -> fetch(offer);
            case ClientMessage.Part part -> add(part);
            case ClientMessage.Fetch wanted -> {
                heardNanos = nanos.getAsLong();
                sender.part(wanted, heardNanos).ifPresent(this::tell);
            }
            case ClientMessage.Fetched(long id) -> {
                heardNanos = nanos.getAsLong();
                sender.drop(id);
            }
            case ClientMessage.Unreadable(var why) ->
                    context.getLog().warn("a message of the gateway cannot be read: {}", why);
            case Object _ -> { }
        }
    }

    private void tell(ClientMessage message) {
        session.ifPresent(to -> to.tell(message));
    }

    private void connect() {
        session = Optional.empty();
        receiver.clear();
        sender.clear();
        gateway = (gateway + 1) % settings.gateways().size();
        heardNanos = nanos.getAsLong();
        String attempt = names.get();
        if (attempts.size() == MOST_ATTEMPTS) attempts.remove(attempts.keySet().iterator().next());
        attempts.put(attempt, gateway);
        String protocol = "pekko://" + ClientTransport.SYSTEM + "@" + settings.gateways().get(gateway);
        Adapter.toClassic(context).actorSelection(protocol + ClientTransport.GATEWAY).tell(
                new ClientMessage.Connect(ClientMessage.VERSION, ClientMessage.MINOR, settings.key(),
                        settings.program(), attempt, context.getSelf().narrow()), ActorRef.noSender());
    }

    private void opened(ClientMessage.Connected opened) {
        Integer from = attempts.get(opened.attempt());
        if (from == null || session.isPresent()) { // one session is enough
            if (!session.equals(Optional.of(opened.session())))
                opened.session().tell(new ClientMessage.Close());
            return;
        }
        gateway = from;
        minor = opened.minor();
        attempts.clear();
        refusedBy.clear();
        session = Optional.of(opened.session());
        pingNanos = Math.min(PING_NANOS, opened.silenceMillis() * 250_000);
        heardNanos = nanos.getAsLong();
        unanswered.replaceAll((_, waiting) -> waiting.dueAt(heardNanos));
        inFlight = 0;
        transmit();
    }

    private void refused(ClientMessage.Refused refused) {
        Integer from = attempts.remove(refused.attempt());
        if (session.isPresent() || from == null) return;
        Problem why = refused.why();
        boolean passing = why.retryAfterSeconds() > 0; // tried again after the time of an attempt
        if (!passing) refusedBy.add(from);
        if (passing || refusedBy.size() < settings.gateways().size()) { // another one may be of another build
            settings.waits().accept("gateway " + settings.gateways().get(from) + ": " + why.message());
            if (!passing) connect();
            return;
        }
        hopeless = Optional.of(why);
        unanswered.values().forEach(waiting ->
                waiting.answer().completeExceptionally(new BiosException.Refused(why)));
        unanswered.clear();
        unansweredBytes = 0;
        inFlight = 0;
    }

    private void send(Send send) {
        if (hopeless.isPresent()) {
            send.answer().completeExceptionally(new BiosException.Refused(hopeless.get()));
            return;
        }
        long bytes = unansweredBytes + send.request().length;
        if (!unanswered.isEmpty() && (unanswered.size() >= settings.maxWaiting()
                || bytes > settings.maxWaitingBytes())) {
            send.answer().completeExceptionally(new BiosException.ClientFull(unanswered.size()
                    + " requests with " + unansweredBytes + " bytes are without an answer; send more when"
                    + " some are answered"));
            return;
        }
        unansweredBytes = bytes;
        long id = ++lastId;
        long now = nanos.getAsLong();
        var waiting = new Unanswered(send, now, false, false);
        unanswered.put(id, waiting);
        if (session.isPresent()) transmit(id, waiting, now);
    }

    /// Sends a request (again), unless its answer is arriving or too many are sent.
    private void transmit(long id, Unanswered waiting, long now) {
        if (receiver.has(id)) return;
        Optional<BiosException> why = waiting.refused(minor);
        if (why.isPresent()) {
            remove(id, waiting);
            waiting.answer().completeExceptionally(why.get());
            return;
        }
        if (!waiting.sent()) {
            if (inFlight >= window(settings)) return;
            inFlight++;
        }
        unanswered.put(id, waiting.sentUntil(now + RESEND_NANOS));
        tell(sender.send(id, waiting.request(), now));
    }

    /// Sends what is due.
    private void transmit() {
        if (session.isEmpty()) return;
        long now = nanos.getAsLong();
        unanswered.entrySet().stream().filter(entry -> entry.getValue().dueNanos() - now <= 0)
                .map(Map.Entry::getKey).toList().forEach(id -> Optional.ofNullable(unanswered.get(id))
                        .ifPresent(waiting -> transmit(id, waiting, now)));
    }

    /// A request is answered, or refused for now: others can be sent, some at a time.
    private void landed(Unanswered waiting) {
        if (!waiting.sent()) return;
        inFlight--;
        if (inFlight % AT_ONCE == 0 && unanswered.size() > inFlight) transmit();
    }

    private void answered(long id, byte[] bytes) {
        heardNanos = nanos.getAsLong();
        sender.drop(id);
        Unanswered waiting = unanswered.get(id);
        if (waiting == null) return;
        Object answer;
        try {
            answer = ClientSerializer.decode(bytes);
        } catch (RuntimeException wrong) { // Kryo, and the constructors of records
            context.getLog().error("an answer cannot be read: {}", wrong.getMessage());
            answer = null;
        }
        if (answer instanceof Answer.Refused(var why) && why.retryAfterSeconds() > 0
                && waiting.given().repeatable()) {
            settings.waits().accept(why.message());
            unanswered.put(id, waiting.dueAt(heardNanos + why.retryAfterSeconds() * SECOND));
            landed(waiting);
            return;
        }
        remove(id, waiting);
        if (answer instanceof Answer known) waiting.answer().complete(known);
        else waiting.answer().completeExceptionally(new IllegalStateException(
                "the gateway's answer cannot be read; it may be of a newer version"));
    }

    private void remove(long id, Unanswered waiting) {
        unanswered.remove(id);
        unansweredBytes -= waiting.request().length;
        landed(waiting);
    }

    /// Fetches an answer, from the beginning if another one to the same request is arriving.
    private void fetch(ClientMessage.Offer offer) {
        heardNanos = nanos.getAsLong();
        Unanswered waiting = unanswered.get(offer.id());
        if (waiting == null) {
            tell(new ClientMessage.Fetched(offer.id()));
        } else if (offer.bytes() > settings.maxWaitingBytes()) {
            tell(new ClientMessage.Fetched(offer.id()));
            remove(offer.id(), waiting);
            waiting.answer().completeExceptionally(new BiosException.ClientFull("the answer has "
                    + offer.bytes() + " bytes, and this client takes " + settings.maxWaitingBytes()
                    + ": raise ClientSettings.withMaxWaiting, or ask for less at a time"));
        } else if (offer.bytes() > ClientMessage.PART_BYTES) {
            receiver.begin(offer, heardNanos).forEach(this::tell);
        }
    }

    private void add(ClientMessage.Part part) {
        heardNanos = nanos.getAsLong();
        PartReceiver.Progress progress = receiver.add(part, heardNanos);
        progress.next().forEach(this::tell);
        progress.whole().ifPresent(answer -> {
            tell(new ClientMessage.Fetched(part.id()));
            answered(part.id(), answer);
        });
    }

    private void tick() {
        long now = nanos.getAsLong();
        if (hopeless.isPresent()) return;
        long limit = session.isPresent() ? settings.silence().toNanos() : CONNECT_NANOS;
        if (now - heardNanos > limit) {
            settings.waits().accept("gateway " + settings.gateways().get(gateway) + " is silent");
            connect();
        }
        if (session.isEmpty()) return;
        if (now - pingedNanos > pingNanos) {
            pingedNanos = now;
            tell(new ClientMessage.Ping());
        }
        receiver.askAgain(now, PART_NANOS).forEach(this::tell);
        receiver.giveUp(now - TRANSFER_NANOS).forEach(id -> unanswered.computeIfPresent(id,
                (_, waiting) -> waiting.sent() ? waiting.sentUntil(now) : waiting));
        transmit();
    }

    private void end() {
        tell(new ClientMessage.Close());
        unanswered.values().forEach(waiting ->
                waiting.answer().completeExceptionally(BiosException.Disconnected.closed()));
    }
}
