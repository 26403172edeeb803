package bios.coordinator.gateway;

import bios.protocol.client.Answer;
import bios.protocol.client.ClientMessage;
import bios.protocol.client.PartReceiver;
import bios.protocol.client.PartSender;
import bios.protocol.wire.ClientSerializer;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.LongSupplier;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.PostStop;
import org.apache.pekko.actor.typed.javadsl.ActorContext;
import org.apache.pekko.actor.typed.javadsl.Behaviors;

/// The gateway's end of one client's connection. What it holds is bounded: requests in progress in number,
/// payloads by the memory of all requests of the node, what the client has not read in bytes, and everything
/// by the silence of the client. Only a client that was given its random name can reach it.
final class ActorSession {
    private static final Duration TICK = Duration.ofSeconds(1);
    private static final long PART_NANOS = Duration.ofSeconds(3).toNanos();
    private static final long TRANSFER_NANOS = Duration.ofSeconds(30).toNanos();
    /// The session of a client that reads nothing for this time is ended.
    private static final long READ_NANOS = Duration.ofMinutes(1).toNanos();
    /// Parts that wait until the client has read others; further ones are asked for again.
    private static final int MOST_WAITING_PARTS = 256;
    /// What a byte of a request takes on the heap: itself, decoded, in its packed form, and as the operation.
    private static final int HEAP_FACTOR = 4;

    private record Tick() {}

    private record Answered(long id, byte[] answer) {}

    /// An answer that waits until the client has read others.
    private record Waiting(Answered answered, RequestMemory.Share share) {}

    private final ActorContext<Object> context;
    private final ActorGateway.Settings settings;
    private final ActorCalls calls;
    private final RequestMemory memory;
    private final GatewaySettings limits;
    private final LongSupplier nanos;
    private final Optional<String> key;
    private final ActorRef<ClientMessage> client;
    private final Set<Long> inProgress = new HashSet<>();
    private final PartReceiver receiver = new PartReceiver();
    private final Map<Long, RequestMemory.Share> fetching = new HashMap<>();
    private final Map<Long, RequestMemory.Share> offered = new HashMap<>();
    private final PartSender sender = new PartSender(Long.MAX_VALUE, id -> offered.remove(id).release());
    private final UnreadBytes unread;
    private final Deque<Waiting> waiting = new ArrayDeque<>();
    private final Deque<ClientMessage.Fetch> waitingParts = new ArrayDeque<>();
    private long heardNanos;
    private boolean reported;

    private ActorSession(ActorContext<Object> context, ActorGateway gateway, ClientMessage.Connect opening) {
        this.context = context;
        this.settings = gateway.settings();
        this.calls = gateway.calls();
        this.memory = gateway.memory();
        this.limits = gateway.limits();
        this.nanos = gateway.nanos();
        this.key = opening.key();
        this.client = opening.replyTo();
        this.unread = new UnreadBytes(settings.unreadBytes(), () -> offerId(gateway.names().get()), memory);
        this.heardNanos = nanos.getAsLong();
    }

    /// The id of an offer, made from a random name: a negative number, which no request has.
    private static long offerId(String name) {
        return Long.MIN_VALUE | Long.parseUnsignedLong(name.substring(0, 16), 16);
    }

    static Behavior<Object> create(ActorGateway gateway, ClientMessage.Connect opening) {
        return Behaviors.setup(context -> Behaviors.withTimers(timers -> {
            timers.startTimerWithFixedDelay(new Tick(), TICK);
            var session = new ActorSession(context, gateway, opening);
            return Behaviors.receive(Object.class)
                    .onMessage(ClientMessage.Close.class, _ -> Behaviors.stopped())
                    .onMessage(Tick.class, _ -> session.tick())
                    .onAnyMessage(message -> {
                        session.on(message);
                        return Behaviors.same();
                    })
                    .onSignal(PostStop.class, _ -> {
                        session.release();
                        return Behaviors.same();
                    }).build();
        }));
    }

    /// Any message of the protocol may arrive here.
    private void on(Object message) {
        switch (message) {
            case Answered answered -> send(answered);
            case ClientMessage.Payload(long id, var request) -> {
                heard();
                if (!isKnown(id)) call(id, request, memory.new Share());
            }
            case ClientMessage.Offer offer -> fetch(offer);
            case ClientMessage.Part part -> add(part);
            case ClientMessage.Fetch wanted -> {
                heard();
                send(wanted);
            }
            case ClientMessage.Fetched(long id) -> {
                sender.drop(id);
                unread.declined(id);
                sendWaiting();
            }
            case ClientMessage.Ping _ -> {
                heard();
                client.tell(new ClientMessage.Pong());
            }
            case ClientMessage.Unreadable(var why) -> {
                if (!reported) context.getLog().warn("a client sent what cannot be read: {}", why);
                reported = true;
            }
            case Object _ -> { }
        }
    }

    private void heard() {
        heardNanos = nanos.getAsLong();
    }

    /// Whether the request is being received or answered; it is answered once.
    private boolean isKnown(long id) {
        return inProgress.contains(id) || receiver.has(id);
    }

    private void refuse(long id, RuntimeException why) {
        client.tell(new ClientMessage.Payload(id,
                ClientSerializer.encode(new Answer.Refused(ActorCalls.problem("session", why)))));
    }

    /// Takes memory for a request of this many bytes, or refuses it.
    private boolean admit(long id, int bytes, RequestMemory.Share share) {
        try {
            if (bytes > limits.maxBodyBytes())
                throw new ApiException(ErrorCode.BODY_TOO_LARGE, "the request is larger than "
                        + limits.maxBodyBytes() + " bytes; send the batch in several requests");
            if (inProgress.size() + fetching.size() >= settings.maxRequests())
                throw new ApiException(ErrorCode.BUSY, settings.maxRequests()
                        + " requests of this client are in progress; retry later");
            share.take((long) HEAP_FACTOR * bytes);
            return true;
        } catch (ApiException refused) {
            refuse(id, refused);
            return false;
        }
    }

    private void call(long id, byte[] request, RequestMemory.Share share) {
        if (!admit(id, request.length, share)) return;
        start(id, request, share);
    }

    private void start(long id, byte[] request, RequestMemory.Share share) {
        inProgress.add(id);
        context.pipeToSelf(calls.answer(key, request, share::take).whenComplete((_, _) -> share.release()),
                (answer, failed) -> {
                    if (failed != null) throw new IllegalStateException(failed);
                    return new Answered(id, answer);
                });
    }

    /// Sends an answer, or keeps it until the client has read more. It is in progress until then.
    private void send(Answered answered) {
        RequestMemory.Share share = memory.new Share();
        try {
            if (unread.hasRoom() && waiting.isEmpty()) {
                sendNow(answered, share);
            } else {
                share.take(answered.answer.length);
                waiting.add(new Waiting(answered, share));
            }
        } catch (ApiException refused) {
            inProgress.remove(answered.id);
            refuse(answered.id, refused);
        }
    }

    /// @param share of the answer's memory, from which nothing is taken yet
    private void sendNow(Answered answered, RequestMemory.Share share) {
        long id = answered.id;
        byte[] answer = answered.answer;
        if (answer.length > ClientMessage.PART_BYTES) {
            sender.drop(id);
            share.take(answer.length);
            offered.put(id, share);
        } else {
            unread.add(answer.length);
        }
        inProgress.remove(id);
        client.tell(sender.send(id, answer, nanos.getAsLong()));
        unread.markerAfterAQuarter(nanos.getAsLong()).ifPresent(this::offerNothing);
    }

    private void offerNothing(long id) {
        client.tell(new ClientMessage.Offer(id, 0));
    }

    private void send(ClientMessage.Fetch wanted) {
        if (!unread.hasRoom()) {
            if (waitingParts.size() < MOST_WAITING_PARTS) waitingParts.add(wanted);
            return;
        }
        sender.part(wanted, nanos.getAsLong()).ifPresent(part -> {
            try {
                unread.add(part.bytes().length);
            } catch (ApiException _) {
                return; // it asks again
            }
            client.tell(part);
            unread.markerAfterAQuarter(nanos.getAsLong()).ifPresent(this::offerNothing);
        });
    }

    private void sendWaiting() {
        while (unread.hasRoom() && !waitingParts.isEmpty()) send(waitingParts.remove());
        while (unread.hasRoom() && !waiting.isEmpty()) {
            Waiting next = waiting.remove();
            next.share.release();
            try {
                sendNow(next.answered, next.share);
            } catch (ApiException refused) {
                inProgress.remove(next.answered.id);
                refuse(next.answered.id, refused);
            }
        }
    }

    private void fetch(ClientMessage.Offer offer) {
        heard();
        if (isKnown(offer.id()) || offer.bytes() <= ClientMessage.PART_BYTES) return;
        RequestMemory.Share share = memory.new Share();
        if (!admit(offer.id(), offer.bytes(), share)) return;
        fetching.put(offer.id(), share);
        receiver.begin(offer, heardNanos).forEach(client::tell);
    }

    private void add(ClientMessage.Part part) {
        heard();
        PartReceiver.Progress progress = receiver.add(part, heardNanos);
        progress.next().forEach(client::tell);
        progress.whole().ifPresent(request -> {
            client.tell(new ClientMessage.Fetched(part.id()));
            start(part.id(), request, fetching.remove(part.id()));
        });
    }

    private Behavior<Object> tick() {
        long now = nanos.getAsLong();
        if (now - heardNanos > settings.silence().toNanos()) return Behaviors.stopped();
        if (unread.isOlderThan(now - READ_NANOS)) {
            context.getLog().warn("a client has not read what was sent to it for {} s, and its session ends",
                    READ_NANOS / 1_000_000_000);
            return Behaviors.stopped();
        }
        unread.markerAgain(now - PART_NANOS, now).ifPresent(this::offerNothing);
        receiver.askAgain(now, PART_NANOS).forEach(client::tell);
        receiver.giveUp(now - TRANSFER_NANOS).forEach(id -> fetching.remove(id).release());
        sender.dropUnaskedSince(now - TRANSFER_NANOS);
        return Behaviors.same();
    }

    private void release() {
        fetching.values().forEach(RequestMemory.Share::release);
        fetching.clear();
        sender.clear();
        unread.release();
        waiting.forEach(one -> one.share.release());
        waiting.clear();
    }
}
