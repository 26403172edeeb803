package bios.coordinator.gateway;

import com.github.luben.zstd.ZstdInputStreamNoFinalizer;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;

/// Decompresses request bodies with `Content-Encoding: zstd` (RFC 8878), as far as a body may be large.
final class ZstdBody {
    /// A decoder holds at most 8 MiB of what it has decompressed, which RFC 8878 recommends: the memory is
    /// outside of the heap.
    private static final int WINDOW_LOG = 23;
    private static final int BLOCK = 1 << 16;

    private ZstdBody() {}

    /// The content of `body`; throws an [ApiException] if it is damaged, or larger than `maxBytes` or than
    /// the memory of the request.
    static byte[] content(byte[] body, int maxBytes, RequestMemory.Share share) {
        var blocks = new ArrayList<byte[]>();
        long length = 0;
        try (var in = new ZstdInputStreamNoFinalizer(new ByteArrayInputStream(body))) {
            in.setLongMax(WINDOW_LOG);
            for (;;) {
                share.take(BLOCK);
                byte[] block = in.readNBytes(BLOCK);
                length += block.length;
                if (length > maxBytes) throw new ApiException(ErrorCode.BODY_TOO_LARGE, "the body is larger"
                        + " than " + maxBytes + " bytes when it is decompressed; send the batch in several"
                        + " requests");
                blocks.add(block);
                if (block.length < BLOCK) return joined(blocks, (int) length, share);
            }
        } catch (IOException damaged) {
            throw new ApiException(ErrorCode.MALFORMED_BODY, "the body is not zstd: " + damaged.getMessage());
        }
    }

    private static byte[] joined(List<byte[]> blocks, int length, RequestMemory.Share share) {
        share.take(length);
        byte[] all = new byte[length];
        int at = 0;
        for (byte[] block : blocks) {
            System.arraycopy(block, 0, all, at, block.length);
            at += block.length;
        }
        share.giveBack((long) BLOCK * blocks.size());
        return all;
    }
}
