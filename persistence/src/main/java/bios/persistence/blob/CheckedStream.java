package bios.persistence.blob;

import bios.protocol.checkpoint.BlobRef;
import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.security.MessageDigest;

/// A blob's bytes, whose end is reached only if length and digest are right.
final class CheckedStream extends FilterInputStream {
    private final BlobRef ref;
    private final MessageDigest digest = Digests.sha256();
    private long length;
    private boolean checked;

    CheckedStream(BlobRef ref, InputStream in) {
        super(in);
        this.ref = ref;
    }

    @Override public int read() throws IOException {
        byte[] one = new byte[1];
        return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
    }

    @Override public int read(byte[] into, int offset, int count) throws IOException {
        int n = super.read(into, offset, count);
        if (n > 0) {
            digest.update(into, offset, n);
            length += n;
        } else if (n < 0 && !checked) {
            checked = true;
            check();
        }
        return n;
    }

    private void check() {
        if (length != ref.bytes())
            throw new BlobDamaged(ref.id(), "it has " + length + " bytes instead of " + ref.bytes());
        String found = Digests.hex(digest);
        if (!found.equals(ref.id().sha256())) throw new BlobDamaged(ref.id(), "its SHA-256 is " + found);
    }

    @Override public long skip(long n) throws IOException {
        return readNBytes((int) Math.min(n, 1 << 20)).length;
    }

    @Override public boolean markSupported() {
        return false;
    }
}
