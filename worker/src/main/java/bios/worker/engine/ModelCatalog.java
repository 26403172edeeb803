package bios.worker.engine;

import bios.protocol.model.ModelName;
import bios.protocol.model.UnservedModel;
import bios.worker.device.DeviceLost;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.load.FileIdentity;
import bios.worker.load.Fingerprint;
import bios.worker.load.ModelChanged;
import bios.worker.load.ModelFolder;
import bios.worker.load.ModelFolders;
import bios.worker.load.ModelRefused;
import bios.worker.load.Safetensors;
import bios.worker.model.BaseModel;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.RejectedExecutionException;
import java.util.stream.Stream;
import org.slf4j.Logger;

/// The base models of an engine and their folders: which are in service, and why the others are not. A folder
/// that was refused is tried again when it has changed and then stayed the same between two looks. A model
/// whose files have changed leaves service; it returns when they have their content again.
///
/// Weights are never replaced in a running process. One thread at a time uses it.
final class ModelCatalog {
    private final ModelSource source;
    private final Logger log;
    private final Map<ModelName, Entry> entries = new LinkedHashMap<>();
    private List<UnservedModel> refused = List.of();
    private Snapshot published = new Snapshot(Map.of(), List.of());

    /// Loads a model on the device's thread.
    interface Loader {
        LoadedModel load(ModelName name, Path folder) throws Exception;
    }

    /// The models in service and the others.
    record Snapshot(Map<ModelName, LoadedModel> models, List<UnservedModel> unserved) {}

    private static final class Entry {
        final Path folder;
        Optional<LoadedModel> model = Optional.empty();
        /// Why it is not in service; empty: it is.
        String reason = "";
        /// The files at the last look, when they were last tried, and when they were loaded.
        List<FileIdentity> seen = List.of();
        List<FileIdentity> tried = List.of();
        List<FileIdentity> loaded = List.of();

        Entry(Path folder) {
            this.folder = folder;
        }
    }

    ModelCatalog(ModelSource source, Logger log) {
        this.source = source;
        this.log = log;
    }

    /// Loads what can be loaded. Throws [ModelRefused] where a model that is required cannot be, and where
    /// there is none at all.
    Snapshot start(Loader loader) {
        find();
        for (var next : entries.entrySet()) {
            Entry entry = next.getValue();
            entry.seen = files(entry.folder);
            tryLoad(next.getKey(), entry, loader);
            if (!entry.reason.isEmpty() && source.required(next.getKey()))
                throw new ModelRefused(entry.reason);
        }
        Snapshot now = publish();
        if (now.models.isEmpty() && !source.folders().roots().isEmpty()) {
            var reasons = new StringBuilder();
            now.unserved.forEach(model -> reasons.append("\n  ").append(model.reason()));
            throw new ModelRefused(source.folders().roots().toString(), "holds no model that can be served",
                    "expected folders as save_pretrained writes them" + reasons);
        }
        return now;
    }

    /// Looks at the folders again; empty if nothing has changed.
    Optional<Snapshot> look(Loader loader) {
        find();
        entries.forEach((name, entry) -> {
            if (entry.model.isPresent()) recheck(name, entry);
            else tryLoad(name, entry, loader);
        });
        Snapshot before = published;
        Snapshot now = publish();
        return now.equals(before) ? Optional.empty() : Optional.of(now);
    }

    private void find() {
        ModelFolders.Found found = source.folders().find();
        entries.entrySet().removeIf(e -> e.getValue().model.isEmpty()
                && !e.getValue().folder.equals(found.folders().get(e.getKey())));
        refused = new ArrayList<>(found.refused());
        refused.removeIf(model -> entries.keySet().stream().anyMatch(n -> n.value().equals(model.name())));
        found.folders().forEach((name, folder) -> {
            Optional<ModelName> loaded = entries.keySet().stream()
                    .filter(other -> !other.equals(name) && other.slug().equals(name.slug())).findFirst();
            if (loaded.isEmpty()) entries.computeIfAbsent(name, _ -> new Entry(folder));
            else refused.add(new UnservedModel(name.value(), folder.toString(), folder
                    + ": its runs would have the ids of those of " + loaded.get()
                    + ", which is served; serve it under another name with --model NAME=DIR"));
        });
    }

    private Snapshot publish() {
        Map<ModelName, LoadedModel> models = new LinkedHashMap<>();
        List<UnservedModel> unserved = new ArrayList<>(refused);
        entries.forEach((name, entry) -> {
            if (entry.model.isPresent() && entry.reason.isEmpty()) models.put(name, entry.model.get());
            else unserved.add(new UnservedModel(name.value(), entry.folder.toString(), entry.reason));
        });
        for (UnservedModel model : unserved)
            if (!published.unserved.contains(model))
                log.warn("the model {} is not served: {}", model.name(), model.reason());
        for (UnservedModel model : published.unserved)
            if (models.keySet().stream().anyMatch(name -> name.value().equals(model.name())))
                log.info("the model {} is served again", model.name());
        published = new Snapshot(models, List.copyOf(unserved));
        return published;
    }

    private void tryLoad(ModelName name, Entry entry, Loader loader) {
        List<FileIdentity> now = files(entry.folder);
        if (now.equals(entry.tried) && !entry.reason.isEmpty()) return;
        boolean settled = now.equals(entry.seen);
        entry.seen = now;
        if (!settled) {
            if (entry.reason.isEmpty()) entry.reason = entry.folder + ": was found; it is loaded when its"
                    + " files do not change any more";
            return;
        }
        entry.tried = now;
        entry.reason = problem(() -> {
            if (!source.allowed(name)) {
                BaseModel.check(entry.folder);
                throw new ModelRefused(entry.folder.toString(), "is complete and not served yet",
                        "start this node again to serve it");
            }
            entry.model = Optional.of(loader.load(name, entry.folder));
            entry.loaded = now;
        });
    }

    /// A loaded model whose files are not those that were loaded.
    private void recheck(ModelName name, Entry entry) {
        List<FileIdentity> now = files(entry.folder);
        Optional<String> change = change(entry, now);
        boolean settled = now.equals(entry.seen);
        entry.seen = now;
        if (change.isEmpty()) {
            entry.reason = "";
            return;
        }
        if (!settled) entry.reason = change.get() + "; put its files back, or start the worker again to serve"
                + " what is there now";
        if (!settled || now.equals(entry.tried)) return;
        entry.tried = now;
        LoadedModel model = entry.model.orElseThrow();
        String why = problem(() -> {
            String loaded = model.model().info().fingerprint().orElseThrow();
            Optional<String> difference = fingerprint(entry.folder).difference(loaded);
            if (difference.isPresent())
                throw new ModelChanged(entry.folder + " holds another model than the one that was loaded as "
                        + name + ": " + difference.get() + "; put its files back, or start the worker again"
                        + " to serve what is there now");
            model.model().files().acceptChanges();
            entry.loaded = now;
        });
        entry.reason = why.isEmpty() ? "" : change.get() + "; " + why;
    }

    private static Optional<String> change(Entry entry, List<FileIdentity> now) {
        Optional<String> weights = entry.model.orElseThrow().model().files().change();
        if (weights.isPresent()) return weights;
        return entry.loaded.stream().filter(file -> file.path().endsWith("config.json"))
                .filter(file -> !now.contains(file)).map(FileIdentity::change).flatMap(Optional::stream)
                .findFirst();
    }

    private Fingerprint fingerprint(Path folder) {
        ModelFolder model = ModelFolder.open(folder);
        try (Safetensors files = model.tensors()) {
            return Fingerprint.of(model.spec(), files, source.cache());
        }
    }

    private interface Attempt {
        void make() throws Exception;
    }

    /// Why an attempt has failed; empty: it has not.
    private static String problem(Attempt attempt) {
        try {
            attempt.make();
            return "";
        } catch (DeviceLost | RejectedExecutionException ended) {
            throw ended;
        } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
            return "loading was interrupted";
        } catch (OutOfDeviceMemory full) {
            return FaultClassifier.of(full, "loading").message()
                    + "; serve fewer or smaller models, or use a machine with more memory";
        } catch (ModelRefused | ModelChanged | UncheckedIOException known) {
            return known.getMessage();
        } catch (InternalError truncated) {
            return "a file became shorter while it was read (" + truncated.getMessage() + ")";
        } catch (Exception failed) {
            return "loading failed: " + failed;
        }
    }

    /// The files that a model is read from.
    private static List<FileIdentity> files(Path folder) {
        try (Stream<Path> all = Files.list(folder)) {
            List<FileIdentity> files = new ArrayList<>();
            for (Path file : all.sorted().toList()) {
                String name = file.getFileName().toString();
                if ((name.endsWith(".json") || name.endsWith(".safetensors")) && Files.isRegularFile(file))
                    files.add(FileIdentity.of(file));
            }
            return files;
        } catch (IOException _) {
            return List.of();
        }
    }
}
