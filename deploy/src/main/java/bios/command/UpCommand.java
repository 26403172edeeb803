package bios.command;

import bios.CommandFailed;
import bios.Server;
import bios.protocol.model.ModelName;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.stream.Stream;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/// `bios up`: the whole service in one process, with an embedded journal and blobs as files.
@Command(name = "up", mixinStandardHelpOptions = true, description =
        "Serve base models from one process; prints 'bios ready on http://HOST:PORT' when it serves.")
public final class UpCommand implements Callable<Integer> {
    @Option(names = "--host", defaultValue = "127.0.0.1",
            description = "Address to listen on (default: ${DEFAULT-VALUE}).")
    private String host;

    @Option(names = "--port", defaultValue = "8400",
            description = "Port, 0 for a free one (default: ${DEFAULT-VALUE}).")
    private int port;

    @Option(names = "--data", paramLabel = "DIR",
            description = "Journal and blobs (default: $$BIOS_DATA, else ~/.bios).")
    private Path data;

    @Option(names = "--models", paramLabel = "DIR",
            description = "Serve every model folder below DIR by its relative path.")
    private List<Path> folders = List.of();

    @Option(names = "--model", paramLabel = "NAME=DIR",
            description = "Serve this model folder under NAME; can be repeated.")
    private Map<String, Path> named = new LinkedHashMap<>();

    @Option(names = "--keys", paramLabel = "FILE", description =
            "Accounts: lines of '<account> <key>'. Without it everybody is the account 'default'.")
    private Path keys;

    @Option(names = "--threads", paramLabel = "N",
            description = "Threads of the engine (default: all cores).")
    private Integer threads;

    @Option(names = "--config", paramLabel = "FILE",
            description = "Settings (HOCON) over the defaults; see docs/reference/settings.md.")
    private Path config;

    @Override public Integer call() throws InterruptedException {
        Path home = data != null ? data : Path.of(Optional.ofNullable(System.getenv("BIOS_DATA"))
                .orElse(System.getProperty("user.home") + "/.bios"));
        Server server = Server.start(new Server.Settings(host, port,
                home.toAbsolutePath().normalize(), models(),
                Optional.ofNullable(keys), Optional.ofNullable(threads), Optional.ofNullable(config)));
        System.out.println("bios ready on " + server.url());
        System.out.flush();
        server.awaitEnd();
        return 0;
    }

    private Map<ModelName, Path> models() {
        Map<ModelName, Path> all = new LinkedHashMap<>();
        for (Path folder : folders) below(folder).forEach((name, path) -> add(all, name, path));
        named.forEach((name, path) -> {
            if (!Files.exists(path.resolve("config.json")))
                throw new CommandFailed("--model " + name + "=" + path
                        + ": no config.json there; name a Hugging Face model folder");
            add(all, name, path);
        });
        if (folders.isEmpty() && named.isEmpty()) {
            Path tiny = Installation.tinyModel();
            if (!Files.exists(tiny.resolve("config.json")))
                throw new CommandFailed("no model: give one by --model NAME=DIR or --models DIR");
            add(all, "bios/tiny", tiny);
        }
        if (all.isEmpty())
            throw new CommandFailed("--models " + folders + ": no folder with a config.json below");
        distinct(all);
        return all;
    }

    private static void add(Map<ModelName, Path> all, String name, Path path) {
        if (all.put(new ModelName(name), path.toAbsolutePath().normalize()) != null)
            throw new CommandFailed("the model " + name
                    + " is given twice; rename one with --model NAME=DIR");
    }

    private static void distinct(Map<ModelName, Path> all) {
        Map<String, ModelName> slugs = new TreeMap<>();
        for (ModelName name : all.keySet()) {
            ModelName other = slugs.put(name.slug(), name);
            if (other != null)
                throw new CommandFailed("the models " + other + " and " + name
                        + " would both have runs named '"
                        + name.slug() + "-...'; give one another last word with --model NAME=DIR");
        }
    }

    private static Map<String, Path> below(Path folder) {
        if (!Files.isDirectory(folder)) throw new CommandFailed("--models " + folder + ": no such folder");
        try (Stream<Path> all = Files.walk(folder, 6)) {
            Map<String, Path> found = new TreeMap<>();
            all.filter(f -> f.getFileName().toString().equals("config.json") && !f.getParent().equals(folder))
                    .map(Path::getParent).forEach(f -> found.put(folder.relativize(f).toString(), f));
            if (Files.exists(folder.resolve("config.json"))
                    && folder.toAbsolutePath().normalize().getFileName() != null)
                found.put(folder.toAbsolutePath().normalize().getFileName().toString(), folder);
            return found;
        } catch (IOException failure) {
            throw new CommandFailed("--models " + folder + ": " + failure.getMessage());
        }
    }
}
