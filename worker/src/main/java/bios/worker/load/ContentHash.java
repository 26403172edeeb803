package bios.worker.load;

import bios.worker.load.Safetensors.Place;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.NoSuchFileException;
import java.security.MessageDigest;
import java.util.stream.IntStream;
import java.util.zip.CRC32;
import java.util.zip.CRC32C;

/// Hashes a part of a file: CRC-32 and CRC-32C of each 64 KiB, which processors compute at the speed of
/// memory. The file is read and not mapped, because it may be truncated meanwhile.
final class ContentHash {
    private static final int BLOCK = 64 << 10;
    /// Blocks that one thread reads at once.
    private static final int READ = 64 * BLOCK;

    private ContentHash() {}

    /// Adds the hashes of the blocks, in their order.
    static void of(Place place, MessageDigest digest) {
        int parts = Math.toIntExact(Math.ceilDiv(place.bytes(), READ));
        try (FileChannel file = FileChannel.open(place.file())) {
            byte[][] hashes = IntStream.range(0, parts).parallel()
                    .mapToObj(part -> part(file, place, (long) part * READ)).toArray(byte[][]::new);
            for (byte[] hash : hashes) digest.update(hash);
        } catch (NoSuchFileException _) {
            throw new ModelChanged(place.file() + " is gone");
        } catch (IOException failed) {
            throw new UncheckedIOException(place.file().toString(), failed);
        }
    }

    private static byte[] part(FileChannel file, Place place, long from) {
        int bytes = (int) Math.min(READ, place.bytes() - from);
        ByteBuffer buffer = ByteBuffer.allocate(bytes);
        try {
            while (buffer.hasRemaining())
                if (file.read(buffer, place.at() + from + buffer.position()) < 0)
                    throw new ModelChanged(place.file() + " ends before byte "
                            + (place.at() + from + bytes));
        } catch (IOException failed) {
            throw new UncheckedIOException(place.file().toString(), failed);
        }
        ByteBuffer hashes = ByteBuffer.allocate(8 * Math.ceilDiv(bytes, BLOCK));
        for (int at = 0; at < bytes; at += BLOCK) {
            int length = Math.min(BLOCK, bytes - at);
            var one = new CRC32();
            var other = new CRC32C();
            one.update(buffer.array(), at, length);
            other.update(buffer.array(), at, length);
            hashes.putInt((int) one.getValue()).putInt((int) other.getValue());
        }
        return hashes.array();
    }
}
