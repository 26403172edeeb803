package bios.command;

import bios.CommandFailed;
import bios.protocol.model.ModelName;
import bios.worker.load.ModelFolders;
import bios.worker.load.ModelRefused;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import picocli.CommandLine.Option;

/// Command-line options for the base models of a process.
final class ModelOptions {
    @Option(names = "--models", paramLabel = "DIR",
            description = "Serve every model folder below DIR by its relative path, or a Hugging Face cache.")
    private List<Path> folders = List.of();

    @Option(names = "--model", paramLabel = "NAME=DIR",
            description = "Serve this model folder under NAME; can be repeated.")
    private Map<String, Path> named = new LinkedHashMap<>();

    /// Where the models are; by default the model that comes with Bios.
    ModelFolders chosen() {
        Map<ModelName, Path> own = new LinkedHashMap<>();
        named.forEach((name, path) -> {
            if (!Files.exists(path.resolve("config.json")))
                throw new CommandFailed("--model " + name + "=" + path
                        + ": no config.json; expected a Hugging Face model folder");
            own.put(new ModelName(name), path);
        });
        for (Path folder : folders)
            if (!Files.isDirectory(folder))
                throw new CommandFailed("--models " + folder + ": no such folder");
        if (folders.isEmpty() && named.isEmpty()) {
            Path tiny = Installation.tinyModel();
            if (!Files.exists(tiny.resolve("config.json")))
                throw new CommandFailed("no model: give one by --model NAME=DIR or --models DIR");
            own.put(new ModelName("bios/tiny"), tiny);
        }
        var models = new ModelFolders(own, folders);
        if (found(models).folders().isEmpty() && found(models).refused().isEmpty())
            throw new CommandFailed("--models " + folders + ": no folder with a config.json below");
        return models;
    }

    /// The same as arguments of another process.
    List<String> arguments() {
        List<String> arguments = new ArrayList<>();
        ModelFolders models = chosen();
        models.named().forEach((name, path) -> arguments.addAll(List.of("--model", name + "="
                + path.toAbsolutePath().normalize())));
        for (Path root : models.roots())
            arguments.addAll(List.of("--models", root.toAbsolutePath().normalize().toString()));
        return arguments;
    }

    private static ModelFolders.Found found(ModelFolders models) {
        try {
            return models.find();
        } catch (ModelRefused refused) {
            throw new CommandFailed(refused.getMessage());
        }
    }
}
