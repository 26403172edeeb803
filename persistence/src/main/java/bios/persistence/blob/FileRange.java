package bios.persistence.blob;

import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;

/// The bytes of a part of a file. Reads at its own position, so that several ranges can share one channel;
/// closing it leaves the channel open.
final class FileRange extends InputStream {
    private final FileChannel file;
    private final long end;
    private long position;

    /// @param from the first byte
    /// @param length how many bytes; the file has them
    FileRange(FileChannel file, long from, long length) {
        this.file = file;
        this.position = from;
        this.end = from + length;
    }

    @Override public int read() throws IOException {
        byte[] one = new byte[1];
        return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
    }

    @Override public int read(byte[] into, int offset, int count) throws IOException {
        if (count == 0) return 0;
        if (position == end) return -1;
        int most = (int) Math.min(count, end - position);
        int n = file.read(ByteBuffer.wrap(into, offset, most), position);
        if (n < 0) throw new IOException("the file ends at " + position + " instead of " + end);
        position += n;
        return n;
    }
}
