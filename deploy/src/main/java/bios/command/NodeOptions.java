package bios.command;

import bios.CommandFailed;
import bios.cluster.LocalWorkers;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;
import com.typesafe.config.ConfigFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import picocli.CommandLine.Option;

/// Command-line options of the shared stores of a cluster, and the configuration file.
final class NodeOptions {
    @Option(names = "--cassandra", paramLabel = "HOST:PORT", split = ",",
            defaultValue = "${env:BIOS_CASSANDRA}",
            description = "Contact points of Cassandra (default: $$BIOS_CASSANDRA).")
    private List<String> cassandra = List.of();

    @Option(names = "--keyspace", defaultValue = "${env:BIOS_KEYSPACE}",
            description = "Keyspace of the cluster (default: bios).")
    private String keyspace;

    @Option(names = "--blobs", paramLabel = "PLACE", defaultValue = "${env:BIOS_BLOBS}", description =
            "Blob store: a folder that all processes share, s3://BUCKET/PREFIX, or 'cassandra'"
            + " (default: $$BIOS_BLOBS, else cassandra).")
    private String blobs;

    @Option(names = "--config", paramLabel = "FILE",
            description = "Settings (HOCON) over the defaults; see docs/reference/settings.md.")
    private Path config;

    /// The settings of the file, empty without one; throws [CommandFailed] if it cannot be read.
    static Config settings(Path file) {
        if (file == null) return ConfigFactory.empty();
        if (!Files.exists(file)) throw new CommandFailed("--config " + file + ": no such file");
        try {
            return ConfigFactory.parseFile(file.toFile());
        } catch (ConfigException wrong) {
            throw new CommandFailed("--config " + wrong.getMessage());
        }
    }

    /// The setting of `--public-url`; `url` is null without the option.
    static Config publicUrl(String url) {
        return ConfigFactory.parseMap(url == null ? Map.of() : Map.of("bios.gateway.public-url", url));
    }

    /// The setting of `--device`; `device` is null without the option.
    static Config device(String device) {
        return ConfigFactory.parseMap(device == null ? Map.of() : Map.of("bios.engine.device", device));
    }

    List<String> cassandra() {
        return cassandra == null ? List.of() : cassandra.stream().filter(c -> !c.isEmpty()).toList();
    }

    Optional<String> keyspace() {
        return Optional.ofNullable(keyspace).filter(k -> !k.isEmpty());
    }

    Optional<String> blobs() {
        return Optional.ofNullable(blobs).filter(b -> !b.isEmpty());
    }

    Optional<Path> config() {
        return Optional.ofNullable(config);
    }

    /// The options as settings.
    Config settings() {
        Map<String, Object> given = new HashMap<>();
        if (!cassandra().isEmpty()) {
            given.put("bios.storage.journal", "cassandra");
            given.put("bios.storage.cassandra.contact-points", cassandra());
        }
        keyspace().ifPresent(k -> given.put("bios.storage.cassandra.keyspace", k));
        blobs().ifPresent(place -> given.putAll(place(place)));
        String journal = System.getenv(LocalWorkers.JOURNAL);
        if (journal == null) return ConfigFactory.parseMap(given).withFallback(settings(config));
        given.put("bios.storage.embedded.url", journal);
        return ConfigFactory.parseMap(given).withFallback(settings(config))
                .withFallback(LocalWorkers.settings());
    }

    private static Map<String, Object> place(String blobs) {
        if (blobs.equals("cassandra")) return Map.of("bios.storage.blobs", "cassandra");
        if (!blobs.startsWith("s3://"))
            return Map.of("bios.storage.blobs", "file", "bios.storage.folder",
                    Path.of(blobs).toAbsolutePath().normalize().toString());
        String[] parts = blobs.substring("s3://".length()).split("/", 2);
        if (parts[0].isEmpty()) throw new CommandFailed("--blobs " + blobs + ": expected s3://BUCKET/PREFIX");
        return Map.of("bios.storage.blobs", "s3", "bios.storage.s3.bucket", parts[0],
                "bios.storage.s3.prefix", parts.length > 1 ? parts[1] : "");
    }
}
