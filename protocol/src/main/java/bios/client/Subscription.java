package bios.client;

import bios.protocol.Fault;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;
import java.util.function.LongFunction;
import java.util.function.ToLongFunction;

/// Follows what is added to a run. Asks for what is newer than the last number; the gateway answers when
/// there is something. So one question is on its way at a time, a listener that is slow gets more at once,
/// and the number survives gateways, moves of the run and this program. Ends when it is closed, with the
/// client, and when the service refuses it. The listener is called by one thread at a time.
public final class Subscription implements AutoCloseable {
    /// Before the next question, if the last one brought nothing.
    private static final long PAUSE_MILLIS = 200;
    private static final long RETRY_MILLIS = 1000;

    private final CompletableFuture<Void> ended = new CompletableFuture<>();
    private final AtomicLong last;

    private Subscription(long after) {
        last = new AtomicLong(after);
    }

    /// @param newer what is newer than a number
    /// @param number of an entry
    static <E> Subscription start(LongFunction<CompletionStage<List<E>>> newer, ToLongFunction<E> number,
            long after, Consumer<E> listener) {
        var subscription = new Subscription(after);
        subscription.ask(newer, number, listener);
        return subscription;
    }

    private <E> void ask(LongFunction<CompletionStage<List<E>>> newer, ToLongFunction<E> number,
            Consumer<E> listener) {
        if (ended.isDone()) return;
        newer.apply(last.get()).whenComplete((entries, failed) -> {
            Throwable cause = BiosClient.cause(failed);
            if (failed != null && !passes(cause)) {
                ended.completeExceptionally(cause);
                return;
            }
            boolean nothing = failed != null || entries.isEmpty();
            if (!nothing && !passOn(entries, number, listener)) return;
            if (!nothing) ask(newer, number, listener);
            else CompletableFuture.delayedExecutor(failed == null ? PAUSE_MILLIS : RETRY_MILLIS,
                    TimeUnit.MILLISECONDS).execute(() -> ask(newer, number, listener));
        });
    }

    /// Whether a failure is one of the service, which it may overcome.
    private static boolean passes(Throwable failed) {
        return failed instanceof BiosException.Refused refused
                && refused.problem().kind() == Fault.Kind.SERVER;
    }

    private <E> boolean passOn(List<E> entries, ToLongFunction<E> number, Consumer<E> listener) {
        try {
            for (E entry : entries) {
                if (ended.isDone()) return false;
                listener.accept(entry);
                last.set(number.applyAsLong(entry));
            }
            return true;
        } catch (RuntimeException | Error thrown) { // the listener's
            ended.completeExceptionally(thrown);
            return false;
        }
    }

    /// The number of the last entry that the listener has got: a later subscription goes on from it.
    public long last() {
        return last.get();
    }

    /// Completes when it was closed; fails with the [BiosException] that ended it, or with what the listener
    /// has thrown.
    public CompletionStage<Void> ended() {
        return ended.minimalCompletionStage();
    }

    /// Ends the subscription; the listener is not called for further entries.
    @Override public void close() {
        ended.complete(null);
    }
}
