package bios.persistence.blob;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.persistence.Metrics;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class MeteredBlobStoreTest {
    @TempDir Path folder;

    private static double operations(String operation, String outcome) {
        return Metrics.BLOB_OPERATIONS.labelValues(operation, outcome).get();
    }

    private static double bytes(String direction) {
        return Metrics.BLOB_BYTES.labelValues(direction).get();
    }

    @Test void writtenAndReadBytesAreCounted() throws Exception {
        double writes = operations("write", "done");
        double reads = operations("read", "done");
        double written = bytes("written");
        double read = bytes("read");
        double deleted = operations("delete", "done");
        try (FileBlobStore files = FileBlobStore.open(folder)) {
            var store = new MeteredBlobStore(files);
            byte[] content = {1, 2, 3, 4, 5};
            BlobRef blob = store.put("a", content);
            assertArrayEquals(content, store.readSmall(blob, 100));
            try (InputStream in = store.open(blob)) {
                assertArrayEquals(content, in.readAllBytes());
            }
            assertTrue(store.exists(blob.id()));
            assertEquals(1, store.list("a").size());
            store.delete(blob.id());
            assertEquals(folder.resolve("blobs").toString(), store.toString());
        }
        assertEquals(1, operations("write", "done") - writes);
        assertEquals(2, operations("read", "done") - reads);
        assertEquals(5, bytes("written") - written);
        assertEquals(10, bytes("read") - read);
        assertEquals(1, operations("delete", "done") - deleted);
    }

    @Test void damageIsCountedForEveryKindOfRead() throws Exception {
        double damaged = Metrics.BLOB_DAMAGED.get();
        double missing = Metrics.BLOB_MISSING.get();
        double failed = operations("read", "failed");
        try (FileBlobStore files = FileBlobStore.open(folder)) {
            var store = new MeteredBlobStore(files);
            BlobRef blob = store.put("a", new byte[] {1, 2, 3});
            Files.write(folder.resolve("blobs").resolve("a").resolve(blob.id().sha256()),
                    new byte[] {1, 2, 4});
            assertEquals(blob.id(), assertThrows(BlobDamaged.class, () -> store.readSmall(blob, 100)).id());
            try (InputStream in = store.open(blob)) {
                assertThrows(BlobDamaged.class, in::readAllBytes);
            }
            var gone = new BlobRef(new BlobId("a", "0".repeat(64)), 3);
            assertThrows(BlobMissing.class, () -> store.readSmall(gone, 100));
        }
        assertEquals(2, Metrics.BLOB_DAMAGED.get() - damaged);
        assertEquals(1, Metrics.BLOB_MISSING.get() - missing);
        assertEquals(3, operations("read", "failed") - failed);
    }
}
