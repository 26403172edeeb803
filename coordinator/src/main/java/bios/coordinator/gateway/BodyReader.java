package bios.coordinator.gateway;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.pekko.http.javadsl.model.HttpEntity;
import org.apache.pekko.http.javadsl.model.HttpRequest;
import org.apache.pekko.stream.Materializer;
import org.apache.pekko.stream.javadsl.Sink;
import org.apache.pekko.util.ByteString;

/// Reads request bodies within two limits: the size of one body, and the total size of all bodies in work.
/// A refused body is still read to its end, so that the client can read the response.
final class BodyReader {
    private final int maxBytes;
    private final long maxInWork;
    private final AtomicLong inWork = new AtomicLong();

    BodyReader(int maxBytes, long maxInWork) {
        this.maxBytes = maxBytes;
        this.maxInWork = maxInWork;
    }

    /// A body, and its share of the limit until it is released.
    final class Body {
        private final List<ByteString> chunks = new ArrayList<>();
        private long length;
        private long reserved;
        private Refusal refusal;

        private Body add(ByteString chunk) {
            length += chunk.size();
            if (refusal != null) return this;
            if (length > maxBytes) refuse(tooLarge());
            else if (!reserve(length)) refuse(busy());
            else chunks.add(chunk);
            return this;
        }

        private void refuse(Refusal why) {
            refusal = why;
            chunks.clear();
            release();
        }

        private boolean reserve(long needed) {
            long more = needed - reserved;
            if (more <= 0) return true;
            if (inWork.addAndGet(more) > maxInWork) {
                inWork.addAndGet(-more);
                return false;
            }
            reserved = needed;
            return true;
        }

        /// All bytes; throws a [Refusal] if a limit was exceeded.
        byte[] bytes() {
            if (refusal != null) throw refusal;
            byte[] all = new byte[(int) length];
            int at = 0;
            for (ByteString chunk : chunks) {
                chunk.copyToArray(all, at, chunk.size());
                at += chunk.size();
            }
            chunks.clear();
            return all;
        }

        /// The number of bytes.
        long length() {
            return length;
        }

        /// Gives its bytes back to the limit: the request is answered.
        void release() {
            inWork.addAndGet(-reserved);
            reserved = 0;
        }
    }

    private Refusal tooLarge() {
        return new Refusal(ErrorCode.BODY_TOO_LARGE,
                "the body is larger than " + maxBytes + " bytes; send the batch in several requests");
    }

    private static Refusal busy() {
        return new Refusal(ErrorCode.BUSY,
                "the service is reading as much as it can hold; try again in a moment");
    }

    /// Reads the body of `request`.
    CompletionStage<Body> read(HttpRequest request, Materializer materializer) {
        var body = new Body();
        long announced = request.entity().getContentLengthOption().orElse(0);
        if (announced > maxBytes) body.refuse(tooLarge());
        else if (!body.reserve(announced)) body.refuse(busy());
        // A small body arrives with its head; a separate stream would cost more than the rest of the request.
        if (request.entity() instanceof HttpEntity.Strict whole)
            return CompletableFuture.completedStage(body.add(whole.getData()));
        return request.entity().withoutSizeLimit().getDataBytes()
                .runWith(Sink.fold(body, Body::add), materializer)
                .whenComplete((_, failed) -> {
                    if (failed != null) body.release();
                });
    }
}
