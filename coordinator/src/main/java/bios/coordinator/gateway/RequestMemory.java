package bios.coordinator.gateway;

import bios.coordinator.Metrics;
import java.util.concurrent.atomic.AtomicLong;

/// The heap that the requests in flight of this node take together: their bodies, what the bodies expand to
/// when they are parsed, and large responses until they are written. An eighth is kept for small requests, so
/// that they are served beside large ones.
public final class RequestMemory {
    /// Heap bytes for each byte of a tensor: in the operation, and as it is stored.
    static final int TENSOR_BYTES_EACH = 3;
    /// Heap bytes for each byte of a string: while it is decoded, and as text.
    static final int STRING_BYTES_EACH = 6;
    /// Requests up to this size may use the part that is kept for small ones.
    private static final long SMALL = 1 << 20;

    private final long most;
    private final long mostOfLarge;
    private final AtomicLong taken = new AtomicLong();

    RequestMemory(long most) {
        this.most = most;
        this.mostOfLarge = most - most / 8;
    }

    /// That of a node whose gateway has these settings.
    public static RequestMemory of(GatewaySettings settings) {
        return new RequestMemory(settings.maxBytesInWork());
    }

    /// The bytes that all requests hold now.
    long taken() {
        return taken.get();
    }

    /// The most bytes that one request can ever have.
    long mostOfOne() {
        return Math.max(mostOfLarge, Math.min(most, SMALL));
    }

    private long add(long bytes) {
        Metrics.REQUEST_BYTES.inc(bytes);
        return taken.addAndGet(bytes);
    }

    /// A share of `bytes` for a response. One that needs more than one request may have takes as much as
    /// that: it can be had while there are few others. Throws an [ApiException] (429) if the others hold too
    /// many.
    Share forResponse(long bytes) {
        var share = new Share();
        share.take(Math.min(bytes, mostOfOne()));
        return share;
    }

    /// The bytes that one request holds.
    final class Share {
        private long bytes;

        /// Takes more bytes. Throws an [ApiException] if one request can never have that many (413), or if
        /// the others hold too many now (429); nothing is taken then.
        void take(long more) {
            requirePossible(more);
            long mine = bytes + more;
            if (add(more) > (mine <= SMALL ? most : mostOfLarge)) {
                add(-more);
                throw new ApiException(ErrorCode.BUSY, "the requests and responses in progress hold the"
                        + " memory that there is for them; retry later");
            }
            bytes = mine;
        }

        /// Throws an [ApiException] (413) if this request can never have so many more bytes.
        void requirePossible(long more) {
            if (bytes + more > mostOfOne())
                throw new ApiException(ErrorCode.BODY_TOO_LARGE, "the request needs more than the "
                        + mostOfLarge + " bytes of memory that one may use here"
                        + " (bios.gateway.max-bytes-in-work); send it in several requests");
        }

        /// Gives back some of the bytes.
        void giveBack(long some) {
            add(-some);
            bytes -= some;
        }

        /// Gives back all bytes; can be repeated.
        void release() {
            giveBack(bytes);
        }
    }
}
