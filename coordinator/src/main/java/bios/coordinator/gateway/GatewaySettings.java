package bios.coordinator.gateway;

import bios.coordinator.OwnerLimits;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;
import java.time.Duration;
import java.util.Optional;
import org.apache.pekko.http.javadsl.HttpsConnectionContext;

/// The limits of a gateway: block `bios.gateway` of the configuration. `reference.conf` documents each.
public record GatewaySettings(int maxBodyBytes, long maxBytesInWork, int maxNesting, int readers,
        int maxConnections, Duration longPoll, Duration askTimeout, int maxDatums, int maxTokensPerRequest,
        int maxSamples, int maxTopkPromptLogprobs, int maxMetadataBytes, Optional<String> publicUrl,
        Duration archiveUrlLifetime, Optional<String> archiveUrlSecret, Optional<String> tokenSecret,
        Duration tokenAge, Duration uploadAge, long maxUploadBytes, int maxUploads, OwnerLimits limits,
        Optional<HttpsConnectionContext> tls,
        ActorGateway.Settings actors) {
    private static final int SHORTEST_SECRET = 16;

    /// Reads the block `bios.gateway`.
    public static GatewaySettings of(Config block) {
        long maxBytesInWork = block.getBytes("max-bytes-in-work");
        int readers = block.getInt("readers");
        return new GatewaySettings(Math.toIntExact(block.getBytes("max-body-bytes")),
                maxBytesInWork > 0 ? maxBytesInWork : Runtime.getRuntime().maxMemory() / 4,
                block.getInt("max-nesting"),
                readers > 0 ? readers : Runtime.getRuntime().availableProcessors(),
                block.getInt("max-connections"), block.getDuration("long-poll"),
                block.getDuration("ask-timeout"), block.getInt("max-datums"),
                block.getInt("max-tokens-per-request"), block.getInt("max-samples"),
                block.getInt("max-topk-prompt-logprobs"),
                Math.toIntExact(block.getBytes("max-metadata-bytes")), publicUrl(block),
                block.getDuration("archive-url-age"), text(block, "archive-url-secret"),
                secret(block), block.getDuration("token-age"),
                block.getDuration("upload-age"), block.getBytes("max-upload-bytes"),
                block.getInt("max-uploads"), OwnerLimits.of(block.getConfig("limits")),
                ServerTls.of(block.getConfig("tls")), ActorGateway.Settings.of(block.getConfig("actors")));
    }

    private static Optional<String> publicUrl(Config block) {
        Optional<String> url = text(block, "public-url");
        url.filter(given -> !given.matches("https?://[^/?#]+(/[^?#]*)?")).ifPresent(wrong -> {
            throw new ConfigException.BadValue("bios.gateway.public-url",
                    "'" + wrong + "' is no URL; expected one like https://bios.example.org");
        });
        return url;
    }

    private static Optional<String> secret(Config block) {
        Optional<String> secret = text(block, "token-secret");
        secret.filter(given -> given.length() < SHORTEST_SECRET).ifPresent(_ -> {
            throw new ConfigException.BadValue("bios.gateway.token-secret",
                    "is shorter than " + SHORTEST_SECRET + " characters");
        });
        return secret;
    }

    private static Optional<String> text(Config block, String name) {
        return Optional.of(block.getString(name)).filter(value -> !value.isBlank());
    }
}
