package bios.coordinator.run;

import bios.coordinator.run.Results.Kept;
import bios.protocol.run.RunCommand.RunReply;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.LongFunction;
import org.apache.pekko.actor.typed.ActorRef;

/// Who waits for the outcome of which request. Each is answered once: with the outcome, or when its time is
/// over. Belongs to one actor.
final class Waiters {
    private record Waiter(long id, ActorRef<RunReply> replyTo) {}

    private final RunContext context;
    private final Map<Long, List<Waiter>> bySeq = new HashMap<>();
    private long next;

    Waiters(RunContext context) {
        this.context = context;
    }

    /// Lets one wait for `seq`; [Internal.WaitOver] says when its time is over.
    void add(long seq, ActorRef<RunReply> replyTo, Duration time) {
        var waiter = new Waiter(next++, replyTo);
        bySeq.computeIfAbsent(seq, _ -> new ArrayList<>()).add(waiter);
        context.after(time, waiter.id(), new Internal.WaitOver(seq, waiter.id()));
    }

    int count() {
        return bySeq.values().stream().mapToInt(List::size).sum();
    }

    boolean isEmpty() {
        return bySeq.isEmpty();
    }

    /// What they wait for.
    List<Long> seqs() {
        return List.copyOf(bySeq.keySet());
    }

    /// The outcome is there: each who waited for it gets an [Internal.Answer].
    void wake(Kept kept) {
        for (Waiter waiter : all(kept.seq())) context.tell(new Internal.Answer(kept, waiter.replyTo()));
    }

    /// Answers all who wait for `seq`.
    void answer(long seq, RunReply reply) {
        for (Waiter waiter : all(seq)) waiter.replyTo().tell(reply);
    }

    /// Answers all.
    void answerAll(LongFunction<RunReply> reply) {
        for (long seq : seqs()) answer(seq, reply.apply(seq));
    }

    private List<Waiter> all(long seq) {
        List<Waiter> waited = Optional.ofNullable(bySeq.remove(seq)).orElse(List.of());
        for (Waiter waiter : waited) context.cancel(waiter.id());
        return waited;
    }

    /// A waiter's time is over: whom to tell so, unless it was answered.
    Optional<ActorRef<RunReply>> over(long seq, long id) {
        List<Waiter> waited = bySeq.getOrDefault(seq, List.of());
        Optional<Waiter> over = waited.stream().filter(w -> w.id() == id).findFirst();
        over.ifPresent(waited::remove);
        if (waited.isEmpty()) bySeq.remove(seq);
        return over.map(Waiter::replyTo);
    }
}
