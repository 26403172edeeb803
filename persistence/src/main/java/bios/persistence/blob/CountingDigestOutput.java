package bios.persistence.blob;

import java.io.FilterOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.security.MessageDigest;

/// Counts the bytes that it forwards and adds them to a digest. Closing it only flushes.
final class CountingDigestOutput extends FilterOutputStream {
    private final MessageDigest digest;
    private long bytes;

    CountingDigestOutput(OutputStream out, MessageDigest digest) {
        super(out);
        this.digest = digest;
    }

    long bytes() {
        return bytes;
    }

    @Override public void write(int one) throws IOException {
        out.write(one);
        digest.update((byte) one);
        bytes++;
    }

    @Override public void write(byte[] from, int offset, int count) throws IOException {
        out.write(from, offset, count);
        digest.update(from, offset, count);
        bytes += count;
    }

    @Override public void close() throws IOException {
        flush();
    }
}
