package bios.coordinator.gateway;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import org.apache.pekko.http.javadsl.model.HttpEntity;
import org.apache.pekko.http.javadsl.model.HttpRequest;
import org.apache.pekko.stream.Materializer;
import org.apache.pekko.stream.javadsl.Sink;
import org.apache.pekko.util.ByteString;

/// Reads request bodies within two limits: the bytes of one body, and the memory of all requests that are not
/// answered yet. A body takes memory as it arrives: what is only announced holds none. The rest of a refused
/// body is read and discarded, because many clients read the response only after they have sent the whole
/// body.
final class BodyReader {
    /// Bodies up to this size come in one piece.
    private static final int SMALL = 1 << 16;
    /// What a chunk takes beside its bytes: a body may come in chunks of one byte.
    private static final int CHUNK_BYTES = 64;

    private final int maxBytes;
    private final RequestMemory memory;

    BodyReader(int maxBytes, RequestMemory memory) {
        this.maxBytes = maxBytes;
        this.memory = memory;
    }

    /// The body of one request, and the memory that it takes until [#release].
    final class Body {
        private final List<ByteString> chunks = new ArrayList<>();
        private final RequestMemory.Share share = memory.new Share();
        private long length;
        private long reserved;
        private ApiException exceeded;

        private Body add(ByteString chunk) {
            length += chunk.size();
            if (length > maxBytes) refuse(tooLarge());
            reserve(length + CHUNK_BYTES * (chunks.size() + 1L));
            if (exceeded == null) chunks.add(chunk);
            return this;
        }

        /// Refuses a body that can never be read.
        private void announce(long bytes) {
            try {
                share.requirePossible(bytes);
            } catch (ApiException limit) {
                refuse(limit);
            }
        }

        private void reserve(long needed) {
            if (exceeded != null || needed <= reserved) return;
            try {
                share.take(needed - reserved);
                reserved = needed;
            } catch (ApiException limit) {
                refuse(limit);
            }
        }

        private void refuse(ApiException limit) {
            if (exceeded != null) return;
            exceeded = limit;
            chunks.clear();
            release();
        }

        /// Returns all bytes and drops them from this object; throws an [ApiException] if a limit was
        /// exceeded.
        byte[] takeBytes() {
            if (exceeded != null) throw exceeded;
            long copy = length > SMALL ? length : 0;
            share.take(copy);
            byte[] all = new byte[(int) length];
            int at = 0;
            for (ByteString chunk : chunks) {
                chunk.copyToArray(all, at, chunk.size());
                at += chunk.size();
            }
            chunks.clear();
            share.giveBack(copy);
            return all;
        }

        /// The number of bytes received.
        long length() {
            return length;
        }

        /// The memory of this request, for what its body expands to.
        RequestMemory.Share share() {
            return share;
        }

        /// Releases the memory; called when the request is answered.
        void release() {
            share.release();
        }
    }

    private ApiException tooLarge() {
        return new ApiException(ErrorCode.BODY_TOO_LARGE,
                "the body is larger than " + maxBytes + " bytes; send the batch in several requests");
    }

    /// Reads the body of `request`.
    CompletionStage<Body> read(HttpRequest request, Materializer materializer) {
        var body = new Body();
        long contentLength = request.entity().getContentLengthOption().orElse(0);
        if (contentLength > maxBytes) body.refuse(tooLarge());
        else body.announce(contentLength);
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
