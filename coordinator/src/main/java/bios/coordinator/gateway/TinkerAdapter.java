package bios.coordinator.gateway;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.SequenceInputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/// The adapter's file as it is in Tinker's archives: the output head is called `model.unembed_tokens` there,
/// the name that the cookbook's tools merge into `lm_head`, or into the embedding where both are one matrix.
/// Everything else, and every tensor, is as PEFT has it.
final class TinkerAdapter {
    private static final String HEAD = "\"base_model.model.lm_head.";
    private static final String TINKERS_HEAD = "\"base_model.model.model.unembed_tokens.";
    private static final int ALIGNMENT = 8;
    /// A longer header is none of an adapter.
    private static final int LONGEST = 64 << 20;

    private TinkerAdapter() {}

    /// The same file with Tinker's names; the file itself if it has no output head.
    static Archive.Member of(Archive.Member adapter) {
        byte[] before = header(adapter);
        String names = new String(before, StandardCharsets.UTF_8);
        if (!names.contains(HEAD)) return adapter;
        byte[] renamed = names.replace(HEAD, TINKERS_HEAD).getBytes(StandardCharsets.UTF_8);
        byte[] padded = Arrays.copyOf(renamed, Math.ceilDiv(renamed.length, ALIGNMENT) * ALIGNMENT);
        Arrays.fill(padded, renamed.length, padded.length, (byte) ' ');
        byte[] head = ByteBuffer.allocate(Long.BYTES + padded.length).order(ByteOrder.LITTLE_ENDIAN)
                .putLong(padded.length).put(padded).array();
        return new Archive.Member(adapter.bytes() - before.length + padded.length, () ->
                new SequenceInputStream(new ByteArrayInputStream(head),
                        behind(adapter.open().get(), Long.BYTES + before.length)));
    }

    /// The header of a safetensors file; empty if it is none.
    private static byte[] header(Archive.Member file) {
        try (InputStream in = file.open().get()) {
            byte[] length = in.readNBytes(Long.BYTES);
            if (length.length < Long.BYTES) return new byte[0];
            long bytes = ByteBuffer.wrap(length).order(ByteOrder.LITTLE_ENDIAN).getLong();
            return bytes < 0 || bytes > Math.min(LONGEST, file.bytes() - Long.BYTES) ? new byte[0]
                    : in.readNBytes((int) bytes);
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }

    private static InputStream behind(InputStream in, long bytes) {
        try {
            in.skipNBytes(bytes);
            return in;
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }
}
