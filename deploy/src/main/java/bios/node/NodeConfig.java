package bios.node;

import bios.CommandFailed;
import bios.coordinator.run.TrainingRunSharding;
import bios.persistence.Storage;
import bios.protocol.model.ModelName;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;
import com.typesafe.config.ConfigFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// The configuration of a process, in layers: command line, configuration file, settings of a cluster
/// (`cluster.conf`), settings of the program (`application.conf`), defaults (`reference.conf`).
final class NodeConfig {
    /// The name of the actor system, part of every address in a cluster.
    static final String SYSTEM = "bios";

    private NodeConfig() {}

    /// The name of the node.
    static String name(Config config) {
        return config.getString("bios.node.name");
    }

    /// All layers, resolved.
    ///
    /// @param servable the models that the process tells the cluster it serves
    static Config of(Node.Settings settings, Set<ModelName> servable) {
        Map<String, Object> own = new HashMap<>();
        List<String> roles =
                new ArrayList<>(settings.roles().stream().map(Role::clusterRole).sorted().toList());
        servable.forEach(model -> roles.add(TrainingRunSharding.role(model.slug())));
        own.put("pekko.cluster.roles", roles);
        own.put("bios.data", settings.data().toString());
        // The cluster port of a single process changes with each start and is no stable name.
        own.put("bios.node.name", settings.name().or(() -> Optional.ofNullable(System.getenv("BIOS_NODE")))
                .or(() -> settings.membership().map(m -> m.host() + ":" + m.port())).orElse("local"));
        settings.membership().ifPresent(membership -> {
            own.put("pekko.remote.artery.canonical.hostname", membership.host());
            own.put("pekko.remote.artery.canonical.port", membership.port());
        });
        Config given = ConfigFactory.parseMap(own).withFallback(settings.settings());
        if (settings.membership().isPresent())
            given = given.withFallback(ConfigFactory.parseResources("cluster.conf"));
        try {
            Config all = Storage.withPekkoPersistence(given).withFallback(ConfigFactory.load()).resolve();
            if (settings.membership().isPresent() && !Storage.isShared(all))
                throw new CommandFailed("a cluster needs a shared journal: name a"
                        + " Cassandra with --cassandra HOST:PORT, or set bios.storage.journal");
            return all;
        } catch (IllegalArgumentException wrong) {
            throw new CommandFailed(wrong.getMessage());
        } catch (ConfigException wrong) {
            throw new CommandFailed("--config: " + wrong.getMessage());
        }
    }
}
