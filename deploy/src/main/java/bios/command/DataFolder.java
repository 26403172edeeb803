package bios.command;

import bios.CommandFailed;
import bios.persistence.Storage;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;
import com.typesafe.config.ConfigFactory;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import picocli.CommandLine.Option;

/// Options of commands that work on the data folder of `bios up` while no server uses it.
final class DataFolder {
    @Option(names = "--data", paramLabel = "DIR",
            description = "Folder of journal and blobs (default: $$BIOS_DATA, else ~/.bios).")
    private Path data;

    @Option(names = "--config", paramLabel = "FILE", description =
            "The settings of the server, if they say where its data are.")
    private Path config;

    /// The data folder of a command.
    ///
    /// @param given null: `BIOS_DATA`, else `~/.bios`
    static Path of(Path given) {
        Path folder = given != null ? given : Path.of(Optional.ofNullable(System.getenv("BIOS_DATA"))
                .orElse(System.getProperty("user.home") + "/.bios"));
        return folder.toAbsolutePath().normalize();
    }

    /// The folder of journal and blobs. [CommandFailed] if the journal is not embedded.
    Path folder() {
        return folder(data, config);
    }

    /// The folder of journal and blobs of a server with these options.
    static Path folder(Path data, Path config) {
        Config all = settings(data, config);
        try {
            if (Storage.journalBackend(all) != Storage.JournalBackend.EMBEDDED)
                throw new CommandFailed("the journal is not in the data folder: bios.storage.journal");
            return Storage.folder(all).toAbsolutePath().normalize();
        } catch (IllegalArgumentException wrong) {
            throw new CommandFailed(wrong.getMessage());
        }
    }

    /// Whether the blobs are files in the folder.
    boolean hasBlobs() {
        return settings(data, config).getString("bios.storage.blobs").equalsIgnoreCase("file");
    }

    private static Config settings(Path data, Path config) {
        try {
            return NodeOptions.settings(config).withFallback(ConfigFactory.parseMap(
                    Map.of("bios.data", of(data).toString()))).withFallback(ConfigFactory.load()).resolve();
        } catch (ConfigException wrong) {
            throw new CommandFailed("--config: " + wrong.getMessage());
        }
    }
}
