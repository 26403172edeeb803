package bios.protocol.client;

import bios.protocol.wire.ClientSerializer;
import bios.protocol.wire.RefusingSerializer;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import com.typesafe.config.ConfigUtil;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// The configuration of an actor system that speaks the client protocol and nothing else: Artery in untrusted
/// mode, no serializer but those of Artery itself and [ClientSerializer], no extension. The gateway has such
/// a system and each client has one.
///
/// @param host address by which the other side reaches this one
/// @param port 0: a free port
/// @param bindHost address to listen on; empty: `host`
/// @param certificates with them, TLS in both directions
/// @param selectable paths of actors that a peer may find
/// @param logLevel of the transport, whose log [TransportLogLimit] keeps small
public record ClientTransport(String host, int port, Optional<String> bindHost,
        Optional<Certificates> certificates, List<String> selectable, String logLevel) {
    /// The path of the gateway in its system.
    public static final String GATEWAY = "/user/gateway";
    /// The name of the gateway's system, part of its address.
    public static final String SYSTEM = "bios-gateway";
    /// The largest frame: a part, with what goes around it.
    public static final int FRAME_BYTES = 2 * ClientMessage.PART_BYTES;

    /// Files in PEM: both sides show a certificate that the authority has signed, and the two certificates
    /// have a name in common.
    ///
    /// @param reload the files are read again for new connections when they were read longer ago than this;
    ///     connections that are open go on
    public record Certificates(Path key, Path certificate, Path authority, Duration reload) {
        /// Files that are read again each minute.
        public Certificates(Path key, Path certificate, Path authority) {
            this(key, certificate, authority, Duration.ofMinutes(1));
        }
    }

    /// The configuration; `base` has everything that this record does not say.
    public Config over(Config base) {
        Map<String, Object> own = new HashMap<>();
        own.put("pekko.remote.artery.canonical.hostname", host);
        own.put("pekko.remote.artery.canonical.port", port);
        own.put("pekko.remote.artery.bind.hostname", bindHost.orElse(""));
        own.put("pekko.remote.artery.bind.port", "");
        own.put("pekko.remote.artery.trusted-selection-paths", selectable);
        own.put("pekko.remote.artery.advanced.maximum-frame-size", FRAME_BYTES + " B");
        own.put("pekko.loglevel", logLevel);
        own.put("pekko.remote.artery.transport", certificates.isPresent() ? "tls-tcp" : "tcp");
        certificates.ifPresent(files -> {
            String keys = "pekko.remote.artery.ssl.rotating-keys-engine.";
            own.put("pekko.remote.artery.ssl.ssl-engine-provider",
                    "org.apache.pekko.remote.artery.tcp.ssl.RotatingKeysSSLEngineProvider");
            own.put(keys + "key-file", files.key().toString());
            own.put(keys + "cert-file", files.certificate().toString());
            own.put(keys + "ca-cert-file", files.authority().toString());
            own.put(keys + "ssl-context-cache-ttl", files.reload().toMillis() + " ms");
        });
        return ConfigFactory.parseMap(own).withFallback(FIXED).withFallback(refused(base))
                .withFallback(base).resolve();
    }

    /// The same for a system behind something that listens at `host` and `port` in its place: it listens on a
    /// free port of this machine only.
    public Config behind(Config base) {
        return ConfigFactory.parseMap(Map.of("pekko.remote.artery.bind.hostname", "127.0.0.1",
                "pekko.remote.artery.bind.port", 0)).withFallback(over(base));
    }

    /// Pekko adds the serializers of all libraries to those of a configuration: each is overridden by name.
    private static Config refused(Config base) {
        Map<String, Object> refused = new HashMap<>();
        for (Config source : List.of(base, ConfigFactory.defaultReference()))
            if (source.hasPath("pekko.actor.serializers"))
                source.getObject("pekko.actor.serializers").keySet().forEach(name ->
                        refused.put(ConfigUtil.joinPath("pekko", "actor", "serializers", name),
                                RefusingSerializer.class.getName()));
        return ConfigFactory.parseMap(refused);
    }

    /// A failure of one peer's stream must not end the system, however often it comes.
    private static final Config FIXED = ConfigFactory.parseString("""
            pekko {
              logging-filter = "%s"
              extensions = []
              library-extensions = ["org.apache.pekko.serialization.SerializationExtension$"]
              log-dead-letters = off
              log-dead-letters-during-shutdown = off
              jvm-shutdown-hooks = off
              coordinated-shutdown { exit-jvm = off, run-by-jvm-shutdown-hook = off }
              actor {
                provider = remote
                allow-java-serialization = off
                warn-about-java-serializer-usage = off
                typed { library-extensions = [], extensions = [] }
                serializers {
                  java = "org.apache.pekko.serialization.JavaSerializer"
                  artery = "org.apache.pekko.remote.serialization.ArteryMessageSerializer"
                  pekko-containers = "org.apache.pekko.remote.serialization.MessageContainerSerializer"
                  bios-client = "%s"
                }
                serialization-bindings {
                  "org.apache.pekko.remote.artery.ArteryMessage" = artery
                  "org.apache.pekko.actor.ActorSelectionMessage" = pekko-containers
                  "%s" = bios-client
                }
              }
              remote {
                warn-about-direct-use = off
                use-unsafe-remote-features-outside-cluster = off
                artery {
                  enabled = on
                  untrusted-mode = on
                  large-message-destinations = []
                  log-received-messages = off
                  log-sent-messages = off
                  advanced {
                    buffer-pool-size = 32
                    inbound-lanes = 2
                    outbound-lanes = 1
                    outbound-message-queue-size = 1024
                    inbound-max-restarts = 2147483647
                    outbound-max-restarts = 2147483647
                    # The streams to clients that have gone.
                    stop-idle-outbound-after = 1 minute
                    quarantine-idle-outbound-after = 11 minutes
                    remove-quarantined-association-after = 10 minutes
                  }
                }
              }
            }
            """.formatted(TransportLogLimit.class.getName(), ClientSerializer.class.getName(),
            ClientMessage.class.getName()));
}
