package bios.persistence.blob;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.checkpoint.BlobRef;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class FileBlobStoreTest extends BlobStoreContract {
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

    @Test void theEmptyFoldersOfADeletedBlobAreGone() {
        BlobRef one = store.put("runs/x/operations/1", bytes(10, 1));
        store.put("runs/x/operations/2", bytes(10, 1));
        store.delete(one.id());
        assertFalse(Files.exists(root.resolve("blobs/runs/x/operations/1")));
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
