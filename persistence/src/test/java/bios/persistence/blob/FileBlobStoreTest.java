package bios.persistence.blob;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class FileBlobStoreTest {
    @TempDir Path root;
    private FileBlobStore store;

    @BeforeEach void open() {
        store = FileBlobStore.open(root);
    }

    @AfterEach void close() {
        store.close();
    }

    private static byte[] bytes(int length, long seed) {
        byte[] bytes = new byte[length];
        new Random(seed).nextBytes(bytes);
        return bytes;
    }

    private Path file(BlobRef ref) {
        return root.resolve("blobs").resolve(ref.id().scope()).resolve(ref.id().sha256());
    }

    private List<Path> temporaryFiles() throws IOException {
        try (Stream<Path> files = Files.walk(root.resolve("writing"))) {
            return files.filter(Files::isRegularFile).filter(f -> !f.endsWith("lock")).toList();
        }
    }

    @Test void whatIsPutIsRead() throws IOException {
        for (int length : new int[] {0, 1, 65_535, 65_536, 65_537, 1_000_000}) {
            byte[] content = bytes(length, length);
            BlobRef ref = store.put("runs/a-0123456789ab/recovery", content);
            assertEquals(length, ref.bytes());
            assertArrayEquals(content, store.read(ref));
            try (var in = store.open(ref)) {
                assertArrayEquals(content, in.readAllBytes());
            }
        }
        assertEquals(List.of(), temporaryFiles());
    }

    @Test void aBlobIsNamedByTheDigestOfItsContent() {
        BlobRef ref = store.put("scope", "abc".getBytes(StandardCharsets.UTF_8));
        assertEquals("scope/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                ref.id().toString());
    }

    @Test void everyFlippedBitIsFoundOnReading() throws IOException {
        BlobRef ref = store.put("scope", bytes(64, 1));
        byte[] good = Files.readAllBytes(file(ref));
        for (int bit = 0; bit < 8 * good.length; bit += 7) {
            byte[] bad = good.clone();
            bad[bit / 8] ^= (byte) (1 << (bit % 8));
            Files.write(file(ref), bad);
            var damaged = assertThrows(BlobDamaged.class, () -> store.read(ref));
            assertTrue(damaged.getMessage().contains(ref.id().toString()));
        }
        store.put("scope", bytes(64, 1));
        assertArrayEquals(good, store.read(ref), "putting the content again mends it");
    }

    @Test void aTornOrGrownBlobIsFoundOnReading() throws IOException {
        BlobRef ref = store.put("scope", bytes(1000, 2));
        byte[] good = Files.readAllBytes(file(ref));
        Files.write(file(ref), Arrays.copyOf(good, 999));
        assertThrows(BlobDamaged.class, () -> store.read(ref));
        Files.write(file(ref), Arrays.copyOf(good, 1001));
        assertThrows(BlobDamaged.class, () -> store.read(ref));
        try (var in = store.open(ref)) {
            assertThrows(BlobDamaged.class, in::readAllBytes);
        }
    }

    @Test void aContentThatThrowsLeavesNothing() throws IOException {
        assertThrows(UncheckedIOException.class, () -> store.put("scope", out -> {
            out.write(new byte[100_000]);
            throw new IOException("disk full");
        }));
        assertEquals(List.of(), store.list("scope"));
        assertEquals(List.of(), temporaryFiles());
    }

    @Test void aDeletedBlobIsMissingAndItsEmptyFoldersAreGone() {
        BlobRef one = store.put("runs/x/operations/1", bytes(10, 1));
        BlobRef two = store.put("runs/x/operations/2", bytes(10, 1));
        store.delete(one.id());
        store.delete(one.id());
        assertFalse(store.exists(one.id()));
        assertTrue(store.exists(two.id()), "equal content in another scope stays");
        assertTrue(assertThrows(BlobMissing.class,
                () -> store.read(one)).getMessage().contains(one.id().toString()));
        assertFalse(Files.exists(root.resolve("blobs/runs/x/operations/1")));
    }

    @Test void aScopeListsItsOwnBlobsAndThoseBelow() {
        BlobRef a = store.put("runs/x/operations/1", bytes(10, 1));
        BlobRef b = store.put("runs/x/recovery", bytes(20, 2));
        store.put("runs/y/recovery", bytes(20, 2));
        assertEquals(List.of(a, b), store.list("runs/x").stream().map(BlobStore.Listed::ref)
                .sorted(Comparator.comparing(r -> r.id().scope())).toList());
        assertEquals(List.of(), store.list("runs/none"));
    }

    @Test void putsAndDeletesOfTheSameContentMayMeet() throws Exception {
        byte[] content = bytes(10_000, 3);
        var id = new BlobId("runs/z/shared", store.put("runs/z/shared", content).id().sha256());
        List<Future<BlobRef>> puts = new ArrayList<>();
        try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
            for (int i = 0; i < 100; i++) {
                puts.add(threads.submit(() -> store.put("runs/z/shared", content)));
                if (i % 3 == 0) threads.submit(() -> store.delete(id));
            }
            for (var put : puts) assertEquals(id, put.get().id());
        }
        BlobRef last = store.put("runs/z/shared", content);
        assertArrayEquals(content, store.read(last));
        assertEquals(List.of(), temporaryFiles());
    }

    @Test void leftoversOfACrashAreSweptButNotThoseOfALiveStore() throws IOException {
        Path dead = Files.createDirectory(root.resolve("writing/dead"));
        Files.createFile(dead.resolve("lock"));
        Files.write(dead.resolve("half"), new byte[10]);
        BlobRef ref = store.put("scope", out -> {
            out.write(1);
            FileBlobStore.open(root).close();
        });
        assertTrue(store.exists(ref.id()), "the live store's file was not swept");
        assertFalse(Files.exists(dead));
    }
}
