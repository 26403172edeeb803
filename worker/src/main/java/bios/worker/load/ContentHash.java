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
    /// Bytes that a thread hashes before it takes others.
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

    /// The buffer has the size of a block and not of the part: buffers of a model's size in all would make
    /// the heap grow by as much.
    private static byte[] part(FileChannel file, Place place, long from) {
        long end = Math.min(from + READ, place.bytes());
        ByteBuffer block = ByteBuffer.allocate((int) Math.min(BLOCK, end - from));
        ByteBuffer hashes = ByteBuffer.allocate(8 * (int) Math.ceilDiv(end - from, BLOCK));
        for (long at = from; at < end; at += BLOCK) {
            block.clear().limit((int) Math.min(BLOCK, end - at));
            read(file, place, at, block);
            var one = new CRC32();
            var other = new CRC32C();
            one.update(block.array(), 0, block.limit());
            other.update(block.array(), 0, block.limit());
            hashes.putInt((int) one.getValue()).putInt((int) other.getValue());
        }
        return hashes.array();
    }

    private static void read(FileChannel file, Place place, long at, ByteBuffer block) {
        try {
            while (block.hasRemaining())
                if (file.read(block, place.at() + at + block.position()) < 0)
                    throw new ModelChanged(place.file() + " ends before byte "
                            + (place.at() + at + block.limit()));
        } catch (IOException failed) {
            throw new UncheckedIOException(place.file().toString(), failed);
        }
    }
}
