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

/// Reads request bodies within two limits: the bytes of one body, and the total bytes of the bodies of all
/// requests that are not answered yet. The rest of a refused body is read and discarded, because many clients
/// read the response only after they have sent the whole body.
final class BodyReader {
    private final int maxBytes;
    private final long maxTotalBytes;
    private final AtomicLong reservedBytes = new AtomicLong();

    BodyReader(int maxBytes, long maxTotalBytes) {
        this.maxBytes = maxBytes;
        this.maxTotalBytes = maxTotalBytes;
    }

    /// The body of one request, and the bytes that it reserves of the total limit until [#release].
    final class Body {
        private final List<ByteString> chunks = new ArrayList<>();
        private long length;
        private long reserved;
        private ApiException exceeded;

        private Body add(ByteString chunk) {
            length += chunk.size();
            if (exceeded != null) return this;
            if (length > maxBytes) refuse(tooLarge());
            else if (!reserve(length)) refuse(busy());
            else chunks.add(chunk);
            return this;
        }

        private void refuse(ApiException error) {
            exceeded = error;
            chunks.clear();
            release();
        }

        private boolean reserve(long needed) {
            long more = needed - reserved;
            if (more <= 0) return true;
            if (reservedBytes.addAndGet(more) > maxTotalBytes) {
                reservedBytes.addAndGet(-more);
                return false;
            }
            reserved = needed;
            return true;
        }

        /// Returns all bytes and drops them from this object; throws an [ApiException] if a limit was
        /// exceeded.
        byte[] takeBytes() {
            if (exceeded != null) throw exceeded;
            byte[] all = new byte[(int) length];
            int at = 0;
            for (ByteString chunk : chunks) {
                chunk.copyToArray(all, at, chunk.size());
                at += chunk.size();
            }
            chunks.clear();
            return all;
        }

        /// The number of bytes received.
        long length() {
            return length;
        }

        /// Releases the reserved bytes; called when the request is answered.
        void release() {
            reservedBytes.addAndGet(-reserved);
            reserved = 0;
        }
    }

    private ApiException tooLarge() {
        return new ApiException(ErrorCode.BODY_TOO_LARGE,
                "the body is larger than " + maxBytes + " bytes; send the batch in several requests");
    }

    private static ApiException busy() {
        return new ApiException(ErrorCode.BUSY,
                "too many request bytes are in progress; retry later");
    }

    /// Reads the body of `request`.
    CompletionStage<Body> read(HttpRequest request, Materializer materializer) {
        var body = new Body();
        long contentLength = request.entity().getContentLengthOption().orElse(0);
        if (contentLength > maxBytes) body.refuse(tooLarge());
        else if (!body.reserve(contentLength)) body.refuse(busy());
        // The server delivers a small body together with the headers; a separate stream would cost more than
        // the rest of the request.
        if (request.entity() instanceof HttpEntity.Strict whole)
            return CompletableFuture.completedStage(body.add(whole.getData()));
        return request.entity().withoutSizeLimit().getDataBytes()
                .runWith(Sink.fold(body, Body::add), materializer)
                .whenComplete((_, failed) -> {
                    if (failed != null) body.release();
                });
    }
}
