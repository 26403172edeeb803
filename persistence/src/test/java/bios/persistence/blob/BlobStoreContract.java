package bios.persistence.blob;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import com.sun.management.ThreadMXBean;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.Test;

/// The contract of all blob stores. Each test has its own scopes, so that tests may share a store.
abstract class BlobStoreContract {
    /// A limit far below the size of the large contents in these tests.
    static final long MAX_ALLOCATED = 16 << 20;

    /// The store under test.
    abstract BlobStore store();

    /// Reads the bytes of a small blob directly from the store.
    abstract byte[] stored(BlobRef ref) throws IOException;

    /// Replaces the bytes of a small blob directly in the store.
    abstract void damage(BlobRef ref, byte[] bytes) throws IOException;

    /// Everything in the store that is not a blob: empty if no upload is in progress.
    abstract List<String> leftovers() throws IOException;

    /// A content of at most 16 MiB.
    byte[] read(BlobRef ref) {
        return store().readSmall(ref, 16 << 20);
    }

    static byte[] bytes(int length, long seed) {
        byte[] bytes = new byte[length];
        new Random(seed).nextBytes(bytes);
        return bytes;
    }

    @Test void aStoredBlobIsRead() throws IOException {
        for (int length : new int[] {0, 1, 65_535, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 7_654_321}) {
            byte[] content = bytes(length, length);
            BlobRef ref = store().put("runs/a-0123456789ab/recovery", content);
            assertEquals(length, ref.bytes());
            assertArrayEquals(content, read(ref));
            try (var in = store().open(ref)) {
                assertArrayEquals(content, in.readAllBytes());
            }
        }
        assertEquals(List.of(), leftovers());
    }

    @Test void aContentIsStreamedInPiecesOfAnySize() throws IOException {
        byte[] content = bytes(3_000_000, 5);
        BlobRef ref = store().put("runs/pieces/x", out -> {
            int done = 0;
            for (int piece = 1; done < content.length; piece = piece * 3 % 100_003) {
                int count = Math.min(piece, content.length - done);
                out.write(content, done, count);
                done += count;
            }
        });
        assertArrayEquals(content, read(ref));
        try (var in = store().open(ref)) {
            assertEquals(content[0] & 0xff, in.read());
            in.skipNBytes(2_000_000);
            assertEquals(content[2_000_001] & 0xff, in.read());
        }
    }

    @Test void aBlobIsNamedByTheDigestOfItsContent() {
        BlobRef ref = store().put("named", "abc".getBytes(StandardCharsets.UTF_8));
        assertEquals("named/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                ref.id().toString());
        assertTrue(store().exists(ref.id()));
    }

    @Test void everyFlippedBitIsFoundOnReading() throws IOException {
        BlobRef ref = store().put("flipped", bytes(64, 1));
        byte[] good = stored(ref);
        for (int bit = 0; bit < 8 * good.length; bit += 7) {
            byte[] bad = good.clone();
            bad[bit / 8] ^= (byte) (1 << (bit % 8));
            damage(ref, bad);
            var damaged = assertThrows(BlobDamaged.class, () -> read(ref));
            assertTrue(damaged.getMessage().contains(ref.id().toString()));
        }
        store().put("flipped", bytes(64, 1));
        assertArrayEquals(good, read(ref), "storing the content again repairs it");
    }

    @Test void aTruncatedOrExtendedBlobIsFoundOnReading() throws IOException {
        BlobRef ref = store().put("torn", bytes(1000, 2));
        byte[] good = stored(ref);
        damage(ref, Arrays.copyOf(good, 999));
        assertThrows(BlobDamaged.class, () -> read(ref));
        damage(ref, Arrays.copyOf(good, 1001));
        assertThrows(BlobDamaged.class, () -> read(ref));
        try (var in = store().open(ref)) {
            assertThrows(BlobDamaged.class, in::readAllBytes);
        }
    }

    @Test void theLastByteOfADamagedBlobIsNeverReturned() throws IOException {
        BlobRef ref = store().put("last/byte", bytes(100_000, 2));
        byte[] bad = stored(ref);
        bad[3] ^= 1;
        damage(ref, bad);
        try (var in = store().open(ref)) {
            in.skipNBytes(bad.length - 1);
            assertThrows(BlobDamaged.class, in::read);
            assertThrows(BlobDamaged.class, in::read, "a later read is refused, too");
        }
        damage(ref, Arrays.copyOf(stored(ref), 99_999));
        try (var in = store().open(ref)) {
            byte[] into = new byte[100_000];
            assertThrows(BlobDamaged.class, () -> in.readNBytes(into, 0, into.length));
        }
    }

    /// Bytes that this store may allocate on the calling thread while it writes a content.
    long writingMayAllocate(long contentBytes) {
        return MAX_ALLOCATED;
    }

    @Test void aLargeContentIsWrittenAndReadInLittleMemory() throws Exception {
        long size = 64 << 20;
        byte[] piece = bytes(1 << 16, 17);
        long before = allocated();
        BlobRef ref = store().put("large/content", out -> {
            for (long done = 0; done < size; done += piece.length) out.write(piece);
        });
        long writing = allocated() - before;
        assertEquals(size, ref.bytes());
        byte[] buffer = new byte[1 << 16];
        long read = 0;
        before = allocated();
        try (var in = store().open(ref)) {
            for (int n; (n = in.readNBytes(buffer, 0, buffer.length)) > 0; read += n)
                assertArrayEquals(piece, buffer);
        }
        long reading = allocated() - before;
        assertEquals(size, read);
        store().delete(ref.id());
        assertTrue(writing < writingMayAllocate(size), "writing allocated " + writing + " bytes");
        assertTrue(reading < MAX_ALLOCATED, "reading allocated " + reading + " bytes");
    }

    static long allocated() {
        return ((ThreadMXBean) ManagementFactory.getThreadMXBean()).getCurrentThreadAllocatedBytes();
    }

    @Test void aBlobAboveTheCallersLimitIsRefusedBeforeItIsRead() {
        BlobRef ref = store().put("limited", bytes(101, 2));
        assertThrows(BlobTooLarge.class, () -> store().readSmall(ref, 100));
        assertArrayEquals(bytes(101, 2), store().readSmall(ref, 101));
        var absent = new BlobRef(new BlobId("limited", "0".repeat(64)), Integer.MAX_VALUE + 1L);
        var tooLarge = assertThrows(BlobTooLarge.class,
                () -> store().readSmall(absent, BlobStore.MAX_ARRAY_BYTES));
        assertTrue(tooLarge.getMessage().contains(absent.id() + " has 2147483648 bytes"),
                tooLarge.getMessage());
    }

    @Test void aContentThatThrowsLeavesNothing() throws IOException {
        assertThrows(UncheckedIOException.class, () -> store().put("throws", out -> {
            out.write(new byte[3_000_000]);
            throw new IOException("disk full");
        }));
        assertThrows(IllegalStateException.class, () -> store().put("throws", out -> {
            out.write(new byte[100_000]);
            throw new IllegalStateException("a fault");
        }));
        assertEquals(List.of(), store().list("throws"));
        assertEquals(List.of(), leftovers());
    }

    @Test void aDeletedBlobIsMissing() throws IOException {
        BlobRef one = store().put("runs/d/operations/1", bytes(10, 1));
        BlobRef two = store().put("runs/d/operations/2", bytes(10, 1));
        store().delete(one.id());
        store().delete(one.id());
        assertFalse(store().exists(one.id()));
        assertTrue(store().exists(two.id()), "equal content in another scope stays");
        assertTrue(assertThrows(BlobMissing.class,
                () -> read(one)).getMessage().contains(one.id().toString()));
        assertArrayEquals(bytes(10, 1), read(store().put("runs/d/operations/1", bytes(10, 1))));
        assertEquals(List.of(), leftovers());
    }

    private List<BlobRef> listed(String scope) {
        return store().list(scope).stream().map(BlobStore.ListedBlob::ref).toList();
    }

    @Test void aScopeListsItsOwnBlobsAndThoseBelow() {
        BlobRef a = store().put("runs/x/operations/1", bytes(10, 1));
        BlobRef b = store().put("runs/x/recovery", bytes(20, 2));
        store().put("runs/y/recovery", bytes(20, 2));
        store().put("runs/x-1/recovery", bytes(20, 2));
        store().put("runs/x0/recovery", bytes(20, 2));
        assertEquals(List.of(a, b), store().list("runs/x").stream().map(BlobStore.ListedBlob::ref)
                .sorted(Comparator.comparing(r -> r.id().scope())).toList());
        assertEquals(List.of(a), listed("runs/x/operations"));
        assertEquals(List.of(), store().list("runs/none"));
        assertEquals(List.of(), store().list("none"));
        assertTrue(store().list("runs").stream().map(BlobStore.ListedBlob::ref).toList()
                .containsAll(List.of(a, b)));
        BlobRef single = store().put("single", bytes(5, 9));
        assertEquals(List.of(single), listed("single"));
    }

    @Test void concurrentPutsAndDeletesOfTheSameContentAreSafe() throws Exception {
        byte[] content = bytes(10_000, 3);
        var id = new BlobId("runs/z/shared", store().put("runs/z/shared", content).id().sha256());
        List<Future<BlobRef>> puts = new ArrayList<>();
        try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
            for (int i = 0; i < 50; i++) {
                puts.add(threads.submit(() -> store().put("runs/z/shared", content)));
                if (i % 3 == 0) threads.submit(() -> store().delete(id));
            }
            for (var put : puts) assertEquals(id, put.get().id());
        }
        BlobRef last = store().put("runs/z/shared", content);
        assertArrayEquals(content, read(last));
        assertEquals(List.of(), leftovers());
    }
}
