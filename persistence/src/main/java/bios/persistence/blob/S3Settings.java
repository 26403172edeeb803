package bios.persistence.blob;

import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;
import java.nio.file.Path;

/// The bucket of the blobs: `bios.storage.s3`.
///
/// @param prefix of all keys, without a trailing slash; empty: none
/// @param region empty: the AWS SDK's default (environment, profile, instance)
/// @param endpoint empty: AWS's endpoint of the region
/// @param pathStyle whether the bucket is part of the path instead of the host name
/// @param accessKey empty: the AWS SDK's default credentials
/// @param partBytes a content above this size is uploaded in parts of this size, at least 5 MiB; the parts of
///         a content that would need more than 10,000 of them are larger
/// @param staging folder of the local files in which contents are written before they are uploaded
public record S3Settings(String bucket, String prefix, String region, String endpoint, boolean pathStyle,
        String accessKey, String secretKey, int partBytes, Path staging) {
    /// Their path in the configuration.
    public static final String PATH = "bios.storage.s3";
    private static final int MIN_PART_BYTES = 5 << 20;
    /// S3 accepts no more parts in one upload.
    private static final int MAX_PARTS = 10_000;

    public S3Settings {
        if (bucket.isEmpty()) throw new IllegalArgumentException(PATH + ".bucket is empty; name the bucket");
        if (prefix.startsWith("/") || prefix.endsWith("/"))
            throw new IllegalArgumentException(PATH + ".prefix '" + prefix + "' starts or ends with a slash");
        if (accessKey.isEmpty() != secretKey.isEmpty()) throw new IllegalArgumentException(PATH
                + ".access-key and secret-key must be given both, or neither");
        if (partBytes < MIN_PART_BYTES) throw new IllegalArgumentException(PATH + ".part-bytes is "
                + partBytes + "; at least " + MIN_PART_BYTES);
    }

    /// Reads the settings from a complete configuration; throws [IllegalArgumentException] with the name of
    /// an invalid setting.
    public static S3Settings of(Config config) {
        try {
            Config c = config.getConfig(PATH);
            String staging = c.getString("staging");
            return new S3Settings(c.getString("bucket"), c.getString("prefix"), c.getString("region"),
                    c.getString("endpoint"), c.getBoolean("path-style"), c.getString("access-key"),
                    c.getString("secret-key"), Math.toIntExact(c.getBytes("part-bytes")),
                    Path.of(staging.isEmpty() ? System.getProperty("java.io.tmpdir") : staging));
        } catch (ConfigException invalid) {
            throw new IllegalArgumentException(invalid.getMessage(), invalid);
        }
    }

    /// The size of each part, but the last, of a content of `bytes`.
    long partBytes(long bytes) {
        return Math.max(partBytes, Math.ceilDiv(bytes, MAX_PARTS));
    }

    /// Without the secret.
    @Override public String toString() {
        return "bucket " + bucket + (endpoint.isEmpty() ? "" : " at " + endpoint);
    }
}
