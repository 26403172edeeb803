package bios.persistence.blob;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.URI;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.List;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.core.checksums.RequestChecksumCalculation;
import software.amazon.awssdk.core.checksums.ResponseChecksumValidation;
import software.amazon.awssdk.core.exception.SdkException;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.http.urlconnection.UrlConnectionHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.s3.S3Client;
import software.amazon.awssdk.services.s3.S3ClientBuilder;
import software.amazon.awssdk.services.s3.model.CompletedPart;
import software.amazon.awssdk.services.s3.model.NoSuchKeyException;
import software.amazon.awssdk.services.s3.model.S3Exception;
import software.amazon.awssdk.services.s3.model.S3Object;

/// Blobs in a bucket of S3 or of a compatible server: key `<prefix>/<scope>/<SHA-256>`. A content is written
/// to a local file first ([StagingFolder]), because its digest is part of its key; S3 makes an object visible
/// completely or not at all. Multipart uploads that a crash has interrupted are removed by the bucket's
/// lifecycle rule (`AbortIncompleteMultipartUpload`).
public final class S3BlobStore implements BlobStore, AutoCloseable {
    private static final int BUFFER = 1 << 16;
    private static final int NOT_FOUND = 404;

    private final S3Settings settings;
    private final S3Client client;
    private final StagingFolder staging;

    private S3BlobStore(S3Settings settings, S3Client client, StagingFolder staging) {
        this.settings = settings;
        this.client = client;
        this.staging = staging;
    }

    /// Opens the store. [UncheckedIOException] if the bucket cannot be reached or does not exist.
    public static S3BlobStore open(S3Settings settings) {
        S3Client client = null;
        try {
            client = client(settings);
            client.headBucket(b -> b.bucket(settings.bucket()));
            return new S3BlobStore(settings, client,
                    StagingFolder.open(settings.staging().resolve("bios-staging-"
                            + System.getProperty("user.name"))));
        } catch (IOException | SdkException failed) {
            if (client != null) client.close();
            throw new UncheckedIOException("the blob store in " + settings + " cannot be opened: "
                    + failed.getMessage() + "; see " + S3Settings.PATH, new IOException(failed));
        }
    }

    static S3Client client(S3Settings settings) {
        S3ClientBuilder builder = S3Client.builder().httpClientBuilder(UrlConnectionHttpClient.builder())
                .forcePathStyle(settings.pathStyle())
                // Contents are verified by their SHA-256; not all servers support the SDK's checksums.
                .requestChecksumCalculation(RequestChecksumCalculation.WHEN_REQUIRED)
                .responseChecksumValidation(ResponseChecksumValidation.WHEN_REQUIRED);
        if (!settings.region().isEmpty()) builder = builder.region(Region.of(settings.region()));
        if (!settings.endpoint().isEmpty()) builder =
                builder.endpointOverride(URI.create(settings.endpoint()));
        if (!settings.accessKey().isEmpty())
            builder = builder.credentialsProvider(StaticCredentialsProvider.create(
                    AwsBasicCredentials.create(settings.accessKey(), settings.secretKey())));
        return builder.build();
    }

    @Override public void close() {
        client.close();
        try {
            staging.close();
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }

    @Override public BlobRef put(String scope, Content content) {
        Path staged = staging.newFile();
        try {
            MessageDigest digest = Digests.sha256();
            long bytes;
            try (var out = new BufferedOutputStream(Files.newOutputStream(staged), BUFFER)) {
                var counted = new CountingDigestOutput(out, digest);
                content.writeTo(counted);
                bytes = counted.bytes();
            }
            var id = new BlobId(scope, Digests.hex(digest));
            if (bytes > settings.partBytes()) putInParts(key(id), staged, bytes);
            else client.putObject(
                    b -> b.bucket(settings.bucket()).key(key(id)), RequestBody.fromFile(staged));
            return new BlobRef(id, bytes);
        } catch (IOException | SdkException failed) {
            throw new UncheckedIOException("a blob of " + scope + " cannot be written: " + failed,
                    failed instanceof IOException io ? io : new IOException(failed));
        } finally {
            discard(staged);
        }
    }

    private void putInParts(String key, Path file, long bytes) throws IOException {
        String upload = client.createMultipartUpload(b -> b.bucket(settings.bucket()).key(key)).uploadId();
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
            List<CompletedPart> parts = new ArrayList<>();
            long partBytes = settings.partBytes(bytes);
            for (long done = 0; done < bytes; done += partBytes) {
                int number = parts.size() + 1;
                long from = done;
                long length = Math.min(partBytes, bytes - done);
                // Read again from the file when the SDK repeats the request.
                RequestBody body = RequestBody.fromContentProvider(
                        () -> new FileRange(channel, from, length), length, "application/octet-stream");
                String tag = client.uploadPart(b -> b.bucket(settings.bucket()).key(key).uploadId(upload)
                        .partNumber(number).contentLength(length), body).eTag();
                parts.add(CompletedPart.builder().partNumber(number).eTag(tag).build());
            }
            client.completeMultipartUpload(b -> b.bucket(settings.bucket()).key(key).uploadId(upload)
                    .multipartUpload(m -> m.parts(parts)));
        } catch (IOException | SdkException failed) {
            abort(key, upload);
            throw failed;
        }
    }

    private void abort(String key, String upload) {
        try {
            client.abortMultipartUpload(b -> b.bucket(settings.bucket()).key(key).uploadId(upload));
        } catch (SdkException _) {
            // The bucket's lifecycle rule removes the upload.
        }
    }

    private static void discard(Path staged) {
        try {
            Files.deleteIfExists(staged);
        } catch (IOException _) {
            // Deleted when a store is opened after this process.
        }
    }

    @Override public InputStream open(BlobRef ref) {
        try {
            return new VerifyingInputStream(ref, client.getObject(b -> b.bucket(settings.bucket())
                    .key(key(ref.id()))));
        } catch (NoSuchKeyException _) {
            throw new BlobMissing(ref.id());
        } catch (SdkException failed) {
            throw failure("blob " + ref.id() + " cannot be read", failed);
        }
    }

    @Override public boolean exists(BlobId id) {
        try {
            client.headObject(b -> b.bucket(settings.bucket()).key(key(id)));
            return true;
        } catch (S3Exception failed) {
            if (failed.statusCode() == NOT_FOUND) return false;
            throw failure("blob " + id + " cannot be looked up", failed);
        } catch (SdkException failed) {
            throw failure("blob " + id + " cannot be looked up", failed);
        }
    }

    @Override public void delete(BlobId id) {
        try {
            client.deleteObject(b -> b.bucket(settings.bucket()).key(key(id)));
        } catch (S3Exception failed) {
            if (failed.statusCode() != NOT_FOUND) throw failure("blob " + id + " cannot be deleted", failed);
        } catch (SdkException failed) {
            throw failure("blob " + id + " cannot be deleted", failed);
        }
    }

    @Override public List<ListedBlob> list(String scope) {
        String before = settings.prefix().isEmpty() ? "" : settings.prefix() + "/";
        try {
            var found = new ArrayList<ListedBlob>();
            for (S3Object object : client.listObjectsV2Paginator(b -> b.bucket(settings.bucket())
                    .prefix(before + scope + "/")).contents()) {
                String name = object.key().substring(before.length());
                int slash = name.lastIndexOf('/');
                // Some servers list folders as keys.
                if (slash == name.length() - 1) continue;
                found.add(new ListedBlob(new BlobRef(new BlobId(name.substring(0, slash),
                        name.substring(slash + 1)), object.size()), object.lastModified().toEpochMilli()));
            }
            return found;
        } catch (SdkException failed) {
            throw failure("the blobs of " + scope + " cannot be listed", failed);
        }
    }

    private String key(BlobId id) {
        return settings.prefix().isEmpty() ? id.toString() : settings.prefix() + "/" + id;
    }

    private static UncheckedIOException failure(String what, SdkException failed) {
        return new UncheckedIOException(what + ": " + failed.getMessage(), new IOException(failed));
    }
}
