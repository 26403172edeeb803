package bios.protocol.wire;

import java.time.Duration;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.Extension;
import org.apache.pekko.actor.typed.ExtensionId;
import org.apache.pekko.actor.typed.Props;
import org.apache.pekko.actor.typed.javadsl.AskPattern;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.actor.typed.javadsl.TimerScheduler;
import org.apache.pekko.serialization.SerializationExtension;

/// Replies of this process that are larger than a frame, until their receivers have fetched them in parts.
/// Bounded in bytes (`bios.wire.outbox-bytes`) and time; a reply that is dropped here is like a message that
/// was lost: its receiver asks again.
public final class Outbox implements Extension {
    /// Bytes of a part: below the smallest frame that is configured.
    static final int PART_BYTES = 512 << 10;
    private static final Duration FETCHED_WITHIN = Duration.ofSeconds(30);
    private static final Duration AFTER_THE_LAST = Duration.ofSeconds(2);
    private static final Duration PART_TIMEOUT = Duration.ofSeconds(5);
    private static final int TRIES = 3;

    private final ActorRef<Command> keeper;
    private final AtomicLong ids = new AtomicLong();

    /// Messages of the actor that keeps the replies.
    public sealed interface Command {}

    private record Keep(long id, byte[] reply) implements Command {}

    private record Expire(long id) implements Command {}

    /// Asks for one part of a reply, from 0. Reply: [Part].
    public record FetchPart(long id, int index, ActorRef<Part> replyTo) implements Command, Message {}

    /// A part of a reply; empty if the reply is not here any more.
    public record Part(long id, int index, byte[] bytes) implements Message {}

    private Outbox(ActorSystem<?> system) {
        long given = system.settings().config().getBytes("bios.wire.outbox-bytes");
        long limit = given > 0 ? given : Runtime.getRuntime().maxMemory() / 16;
        keeper = system.systemActorOf(Behaviors.withTimers(timers -> new Keeper(limit, timers).behavior()),
                "bios-outbox", Props.empty());
    }

    private static final ExtensionId<Outbox> ID = new ExtensionId<>() {
        @Override public Outbox createExtension(ActorSystem<?> system) {
            return new Outbox(system);
        }
    };

    static Outbox of(ActorSystem<?> system) {
        return ID.apply(system);
    }

    /// Keeps an encoded reply; the result is sent in its place.
    LargeReply keep(byte[] reply) {
        long id = ids.incrementAndGet();
        keeper.tell(new Keep(id, reply));
        return new LargeReply(id, reply.length, keeper);
    }

    /// Fetches the reply that `large` stands for; fails with a [TimeoutException] if it cannot be had.
    public static CompletionStage<Object> fetch(LargeReply large, ActorSystem<?> system) {
        return fetchFrom(0, large, new byte[large.bytes()], system).thenApply(bytes ->
                SerializationExtension.get(system).deserialize(bytes, WireSerializer.IDENTIFIER,
                        WireSerializer.VERSION).get());
    }

    private static CompletionStage<byte[]> fetchFrom(int index, LargeReply large, byte[] all,
            ActorSystem<?> system) {
        int at = Math.multiplyExact(index, PART_BYTES);
        if (at >= all.length) return CompletableFuture.completedStage(all);
        int length = Math.min(PART_BYTES, all.length - at);
        return fetchPart(index, large, system, TRIES).thenCompose(part -> {
            if (part.bytes().length != length)
                return CompletableFuture.failedStage(new TimeoutException(
                        "a reply of " + all.length + " bytes was dropped before it was fetched"));
            System.arraycopy(part.bytes(), 0, all, at, length);
            return fetchFrom(index + 1, large, all, system);
        });
    }

    private static CompletionStage<Part> fetchPart(int index, LargeReply large, ActorSystem<?> system,
            int tries) {
        CompletionStage<Part> part = AskPattern.ask(large.from(),
                replyTo -> new FetchPart(large.id(), index, replyTo), PART_TIMEOUT, system.scheduler());
        return tries == 1 ? part
                : part.exceptionallyCompose(_ -> fetchPart(index, large, system, tries - 1));
    }

    /// The actor's state: replies by id, the oldest first.
    private static final class Keeper {
        private final long limit;
        private final TimerScheduler<Command> timers;
        private final Map<Long, byte[]> replies = new LinkedHashMap<>();
        private long bytes;

        Keeper(long limit, TimerScheduler<Command> timers) {
            this.limit = limit;
            this.timers = timers;
        }

        Behavior<Command> behavior() {
            return Behaviors.receiveMessage(command -> {
                switch (command) {
                    case Keep(long id, var reply) -> keep(id, reply);
                    case Expire(long id) -> drop(id);
                    case FetchPart fetch -> fetch(fetch);
                }
                return Behaviors.same();
            });
        }

        private void keep(long id, byte[] reply) {
            while (!replies.isEmpty() && bytes + reply.length > limit)
                drop(replies.keySet().iterator().next());
            replies.put(id, reply);
            bytes += reply.length;
            timers.startSingleTimer(id, new Expire(id), FETCHED_WITHIN);
        }

        private void drop(long id) {
            byte[] reply = replies.remove(id);
            if (reply == null) return;
            bytes -= reply.length;
            timers.cancel(id);
        }

        private void fetch(FetchPart wanted) {
            byte[] reply = replies.getOrDefault(wanted.id(), new byte[0]);
            long from = Math.min((long) wanted.index() * PART_BYTES, reply.length);
            long to = Math.min(from + PART_BYTES, reply.length);
            wanted.replyTo().tell(new Part(wanted.id(), wanted.index(),
                    Arrays.copyOfRange(reply, (int) from, (int) to)));
            if (reply.length > 0)
                timers.startSingleTimer(wanted.id(), new Expire(wanted.id()),
                        to == reply.length ? AFTER_THE_LAST : FETCHED_WITHIN);
        }
    }
}
