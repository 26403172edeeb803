package bios.persistence.blob;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.checkpoint.BlobRef;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.services.s3.S3Client;

class S3BlobStoreIT extends BlobStoreContract {
    private static final int PART = 5 << 20;
    @TempDir static Path folder;
    private static S3Server server;
    private static S3Client behind;
    private static S3BlobStore store;

    @BeforeAll static void open() throws Exception {
        server = S3Server.start(folder);
        behind = S3BlobStore.client(settings("blobs", S3Server.SECRET_KEY));
        behind.createBucket(b -> b.bucket("blobs"));
        store = S3BlobStore.open(settings("blobs", S3Server.SECRET_KEY));
    }

    @AfterAll static void close() {
        store.close();
        behind.close();
        server.close();
    }

    private static S3Settings settings(String bucket, String secret) {
        return new S3Settings(
                bucket, "some/prefix", "us-east-1", server.endpoint(), true, S3Server.ACCESS_KEY,
                secret, PART, folder.resolve("staging"));
    }

    @Override BlobStore store() {
        return store;
    }

    /// The SDK allocates a buffer for each piece that it signs.
    @Override long writingMayAllocate(long contentBytes) {
        return 2 * contentBytes + MAX_ALLOCATED;
    }

    private static String key(BlobRef ref) {
        return "some/prefix/" + ref.id();
    }

    @Override byte[] stored(BlobRef ref) {
        return behind.getObjectAsBytes(b -> b.bucket("blobs").key(key(ref))).asByteArray();
    }

    @Override void damage(BlobRef ref, byte[] bytes) {
        behind.putObject(b -> b.bucket("blobs").key(key(ref)), RequestBody.fromBytes(bytes));
    }

    @Override List<String> leftovers() throws IOException {
        try (Stream<Path> files = Files.walk(folder.resolve("staging"))) {
            return files.filter(Files::isRegularFile).filter(file -> !file.endsWith("lock"))
                    .map(Path::toString).toList();
        }
    }

    @Test void contentsAboveOnePartAreUploadedInParts() {
        byte[] content = bytes(2 * PART + 12_345, 8);
        BlobRef ref = store.put("large/one", content);
        assertEquals(content.length, behind.headObject(b -> b.bucket("blobs").key(key(ref))).contentLength());
        assertArrayEquals(content, read(ref));
        assertTrue(behind.listMultipartUploads(b -> b.bucket("blobs")).uploads().isEmpty());
    }

    @Test void aMissingOrForbiddenBucketIsRefusedAtTheStart() {
        var missing = assertThrows(UncheckedIOException.class,
                () -> S3BlobStore.open(settings("none", S3Server.SECRET_KEY)));
        assertTrue(missing.getMessage().contains("bucket none")
                && missing.getMessage().contains("bios.storage.s3"),
                missing.getMessage());
        assertThrows(UncheckedIOException.class, () -> S3BlobStore.open(settings("blobs", "another-secret")));
    }
}
