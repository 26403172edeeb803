package bios.command;

import bios.CommandFailed;
import bios.protocol.model.ModelName;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import picocli.CommandLine.Option;

/// Command-line options for the base models of a process.
final class ModelOptions {
    @Option(names = "--models", paramLabel = "DIR",
            description = "Serve every model folder below DIR by its relative path.")
    private List<Path> folders = List.of();

    @Option(names = "--model", paramLabel = "NAME=DIR",
            description = "Serve this model folder under NAME; can be repeated.")
    private Map<String, Path> named = new LinkedHashMap<>();

    /// The folders by name, with distinct slugs; by default the model that comes with Bios.
    Map<ModelName, Path> chosen() {
        Map<ModelName, Path> all = new LinkedHashMap<>();
        for (Path folder : folders) below(folder).forEach((name, path) -> add(all, name, path));
        named.forEach((name, path) -> {
            if (!Files.exists(path.resolve("config.json")))
                throw new CommandFailed("--model " + name + "=" + path
                        + ": no config.json; expected a Hugging Face model folder");
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
                        + " would have the same run ids, '"
                        + name.slug() + "-...'; rename one with --model NAME=DIR");
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
