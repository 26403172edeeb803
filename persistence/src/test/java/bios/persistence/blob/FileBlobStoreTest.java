package bios.persistence.blob;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class FileBlobStoreTest extends BlobStoreContract {
    private static final long SPARSE_BYTES = (1L << 32) + 1;
    /// `head -c 4294967297 /dev/zero | sha256sum`.
    private static final String SHA_256_OF_SPARSE =
            "fbb82f7b353676bb562eb82157fcf0ea42c36492ca13ee56dbf82c08b6802c5c";
    @TempDir Path root;
    private FileBlobStore store;

    @BeforeEach void open() {
        store = FileBlobStore.open(root);
    }

    @AfterEach void close() {
        store.close();
    }

    @Override BlobStore store() {
        return store;
    }

    private Path file(BlobRef ref) {
        return root.resolve("blobs").resolve(ref.id().scope()).resolve(ref.id().sha256());
    }

    @Override byte[] stored(BlobRef ref) throws IOException {
        return Files.readAllBytes(file(ref));
    }

    @Override void damage(BlobRef ref, byte[] bytes) throws IOException {
        Files.write(file(ref), bytes);
    }

    @Override List<String> leftovers() throws IOException {
        try (Stream<Path> files = Files.walk(root.resolve("writing"))) {
            return files.filter(Files::isRegularFile).filter(f -> !f.endsWith("lock")).map(Path::toString)
                    .toList();
        }
    }

    /// A size above the limits of arrays and `int`. The file is sparse and takes no space on the disk.
    @Test void aBlobOfMoreThanFourGiBIsReadInLittleMemory() throws IOException {
        var ref = new BlobRef(new BlobId("sparse", SHA_256_OF_SPARSE), SPARSE_BYTES);
        Files.createDirectories(file(ref).getParent());
        try (var sparse = new RandomAccessFile(file(ref).toFile(), "rw")) {
            sparse.setLength(SPARSE_BYTES);
        }
        assertEquals(List.of(ref), store.list("sparse").stream().map(BlobStore.ListedBlob::ref).toList());
        byte[] buffer = new byte[1 << 20];
        long read = 0;
        long before = allocated();
        try (var in = store.open(ref)) {
            for (int n; (n = in.read(buffer)) >= 0; read += n) if (n == 0) throw new AssertionError();
        }
        assertTrue(allocated() - before < MAX_ALLOCATED);
        assertEquals(SPARSE_BYTES, read);
        assertThrows(BlobTooLarge.class, () -> store.readSmall(ref, BlobStore.MAX_ARRAY_BYTES));
    }

    @Test void theEmptyFoldersOfADeletedBlobAreGone() {
        BlobRef one = store.put("runs/x/operations/1", bytes(10, 1));
        store.put("runs/x/operations/2", bytes(10, 1));
        store.delete(one.id());
        assertFalse(Files.exists(root.resolve("blobs/runs/x/operations/1")));
    }

    @Test void temporaryFilesOfACrashedStoreAreDeletedAndThoseOfARunningStoreAreNot() throws IOException {
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
