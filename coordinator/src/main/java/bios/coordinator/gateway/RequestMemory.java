package bios.coordinator.gateway;

import java.util.concurrent.atomic.AtomicLong;

/// The heap that the requests in flight of this node take together: their bodies, and what the bodies expand
/// to when they are parsed. An eighth is kept for small requests, so that they are served beside large ones.
final class RequestMemory {
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

    /// The bytes that all requests hold now.
    long taken() {
        return taken.get();
    }

    /// The bytes that one request holds.
    final class Share {
        private long bytes;

        /// Takes more bytes. Throws an [ApiException] if one request can never have that many (413), or if
        /// the others hold too many now (429); nothing is taken then.
        void take(long more) {
            long mine = bytes + more;
            if (mine > Math.max(mostOfLarge, Math.min(most, SMALL)))
                throw new ApiException(ErrorCode.BODY_TOO_LARGE, "the request needs more than the "
                        + mostOfLarge + " bytes of memory that one may use here"
                        + " (bios.gateway.max-bytes-in-work); send it in several requests");
            if (taken.addAndGet(more) > (mine <= SMALL ? most : mostOfLarge)) {
                taken.addAndGet(-more);
                throw new ApiException(ErrorCode.BUSY,
                        "too many request bytes are in progress; retry later");
            }
            bytes = mine;
        }

        /// Gives back some of the bytes.
        void giveBack(long some) {
            taken.addAndGet(-some);
            bytes -= some;
        }

        /// Gives back all bytes; can be repeated.
        void release() {
            giveBack(bytes);
        }
    }
}
