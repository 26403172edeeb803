package bios.persistence.blob;

import bios.protocol.checkpoint.BlobRef;
import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.security.MessageDigest;

/// The bytes of a blob. Length and digest are verified before the last byte is returned.
final class VerifyingInputStream extends FilterInputStream {
    private static final int SKIP_BYTES = 1 << 16;
    private final BlobRef ref;
    private final MessageDigest digest = Digests.sha256();
    private long length;
    private boolean verified;
    private BlobDamaged damage;

    VerifyingInputStream(BlobRef ref, InputStream in) {
        super(in);
        this.ref = ref;
    }

    @Override public int read() throws IOException {
        byte[] one = new byte[1];
        return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
    }

    @Override public int read(byte[] into, int offset, int count) throws IOException {
        if (damage != null) throw damage;
        if (verified) return count == 0 ? 0 : -1;
        int n = in.read(into, offset, count);
        if (n > 0) {
            digest.update(into, offset, n);
            length += n;
        }
        if (n < 0 || length >= ref.bytes() && n > 0) verify(n);
        return n;
    }

    /// @param n what the last read returned
    private void verify(int n) throws IOException {
        if (length == ref.bytes() && (n < 0 || in.read() < 0)) {
            String actual = Digests.hex(digest);
            if (!actual.equals(ref.id().sha256())) throw recordDamage("its SHA-256 is " + actual);
            verified = true;
        } else if (n < 0) throw recordDamage("it has " + length + " bytes instead of " + ref.bytes());
        else throw recordDamage("it has more than " + ref.bytes() + " bytes");
    }

    /// Stores the exception, which every later read throws again.
    private BlobDamaged recordDamage(String problem) {
        damage = new BlobDamaged(ref.id(), problem);
        return damage;
    }

    @Override public long skip(long n) throws IOException {
        long skipped = 0;
        byte[] buffer = new byte[Math.clamp(n, 0, SKIP_BYTES)];
        while (skipped < n) {
            int read = read(buffer, 0, (int) Math.min(buffer.length, n - skipped));
            if (read < 0) break;
            skipped += read;
        }
        return skipped;
    }

    @Override public int available() throws IOException {
        return verified ? 0 : in.available();
    }

    @Override public boolean markSupported() {
        return false;
    }
}
