package bios.persistence.blob;

import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;
import java.nio.file.Path;

/// A bucket that holds blobs: `bios.storage.s3`.
///
/// @param prefix of all keys, without a slash at its end; empty: none
/// @param region empty: as the AWS SDK finds it (environment, profile, instance)
/// @param endpoint empty: AWS's own of the region
/// @param pathStyle whether the bucket stands in the path instead of the host name
/// @param accessKey empty: credentials as the AWS SDK finds them
/// @param partBytes a content above this size is uploaded in parts of this size, at least 5 MiB; the parts of
///         a content that would need more than 10,000 of them are larger
/// @param staging folder in which a content waits until its digest is known
public record S3Settings(String bucket, String prefix, String region, String endpoint, boolean pathStyle,
        String accessKey, String secretKey, int partBytes, Path staging) {
    /// Where they stand in the configuration.
    public static final String PATH = "bios.storage.s3";
    private static final int LEAST_PART_BYTES = 5 << 20;
    /// S3 accepts no more parts in one upload.
    private static final int MAX_PARTS = 10_000;

    public S3Settings {
        if (bucket.isEmpty()) throw new IllegalArgumentException(PATH + ".bucket is empty; name the bucket");
        if (prefix.startsWith("/") || prefix.endsWith("/"))
            throw new IllegalArgumentException(PATH + ".prefix '" + prefix + "' begins or ends with a slash");
        if (accessKey.isEmpty() != secretKey.isEmpty()) throw new IllegalArgumentException(PATH
                + ".access-key and secret-key must be given both, or neither");
        if (partBytes < LEAST_PART_BYTES) throw new IllegalArgumentException(PATH + ".part-bytes is "
                + partBytes + "; at least " + LEAST_PART_BYTES);
    }

    /// Reads them from a whole configuration; [IllegalArgumentException] names a setting that is wrong.
    public static S3Settings of(Config config) {
        try {
            Config c = config.getConfig(PATH);
            String staging = c.getString("staging");
            return new S3Settings(c.getString("bucket"), c.getString("prefix"), c.getString("region"),
                    c.getString("endpoint"), c.getBoolean("path-style"), c.getString("access-key"),
                    c.getString("secret-key"), Math.toIntExact(c.getBytes("part-bytes")),
                    Path.of(staging.isEmpty() ? System.getProperty("java.io.tmpdir") : staging));
        } catch (ConfigException wrong) {
            throw new IllegalArgumentException(wrong.getMessage(), wrong);
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
