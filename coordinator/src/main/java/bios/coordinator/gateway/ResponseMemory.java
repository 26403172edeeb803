package bios.coordinator.gateway;

import java.time.Duration;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.function.BiFunction;
import java.util.function.Supplier;
import org.apache.pekko.NotUsed;
import org.apache.pekko.actor.Cancellable;
import org.apache.pekko.stream.javadsl.Source;
import org.apache.pekko.util.ByteString;

/// Counts large responses in the memory of all requests: from before they are made until they are written, or
/// until their connection is gone.
final class ResponseMemory {
    /// Responses up to this many bytes are given to the connection as a whole, and do not count.
    static final int SMALL = 1 << 14;
    private static final int BLOCK_BYTES = 1 << 16;
    /// A connection that has not begun to write its response so long after it was made is gone: nothing else
    /// tells it, because the response is dropped.
    static final Duration UNBEGUN = Duration.ofSeconds(10);

    private final RequestMemory memory;
    private final BiFunction<Duration, Runnable, Cancellable> later;

    /// @param later runs a task after a time
    ResponseMemory(RequestMemory memory, BiFunction<Duration, Runnable, Cancellable> later) {
        this.memory = memory;
        this.later = later;
    }

    /// Takes the memory of a response. Throws an [ApiException] (429) if there is none.
    Held hold(long bytes) {
        return new Held(bytes);
    }

    /// The same bytes; `end` runs when they are written, or when their connection is gone.
    <M> Source<ByteString, M> ending(Source<ByteString, M> bytes, Runnable end) {
        Cancellable unbegun = later.apply(UNBEGUN, end);
        return bytes.watchTermination((value, ended) -> {
            unbegun.cancel();
            ended.whenComplete((_, _) -> end.run());
            return value;
        });
    }

    /// The memory of one response.
    final class Held {
        private final long bytes;
        private RequestMemory.Share share;
        private Cancellable expiry;
        private boolean expired;

        private Held(long bytes) {
            this.bytes = bytes;
            this.share = memory.forResponse(bytes);
        }

        /// Gives the memory back; can be repeated.
        synchronized void release() {
            if (expiry != null) expiry.cancel();
            share.release();
        }

        /// The bytes of `response`, which hold the memory until they are written.
        Source<ByteString, NotUsed> written(byte[] response) {
            return written(() -> new Blocks(response));
        }

        /// The blocks, which are made while they are written and hold the memory until then.
        synchronized Source<ByteString, NotUsed> written(Supplier<Iterator<ByteString>> blocks) {
            expiry = later.apply(UNBEGUN, this::expire);
            return Source.fromIterator(() -> {
                begin();
                return blocks.get();
            }).watchTermination((none, ended) -> {
                ended.whenComplete((_, _) -> release());
                return none;
            });
        }

        private synchronized void expire() {
            expired = true;
            share.release();
        }

        /// Takes the memory again if it was given back: the connection was only slow.
        private synchronized void begin() {
            expiry.cancel();
            if (expired) share = memory.forResponse(bytes);
        }
    }

    /// Parts of an array.
    private static final class Blocks implements Iterator<ByteString> {
        private final byte[] all;
        private int at;

        Blocks(byte[] all) {
            this.all = all;
        }

        @Override public boolean hasNext() {
            return at < all.length;
        }

        @Override public ByteString next() {
            if (!hasNext()) throw new NoSuchElementException();
            int length = Math.min(BLOCK_BYTES, all.length - at);
            ByteString block = ByteString.fromArrayUnsafe(all, at, length);
            at += length;
            return block;
        }
    }
}
