package bios.worker.load;

import bios.protocol.Invalid;
import bios.protocol.model.ModelName;
import bios.protocol.model.UnservedModel;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Stream;

/// Where base models are: folders with a name of their own, which must be served, and folders below which
/// models are looked for, of which those are served that can be.
///
/// Below a root a model is a folder with a `config.json`; its name is its path from the root. Nothing is
/// looked for in the folder of a model, nor in folders whose name begins with '.'. Links are followed. A
/// folder `models--ORG--NAME` of a Hugging Face cache is the model `ORG/NAME`, in the snapshot that
/// `refs/main` names; the cache's `datasets--` and `spaces--` are no models.
///
/// @param named by the name that they are served under
/// @param roots folders below which models are looked for
public record ModelFolders(Map<ModelName, Path> named, List<Path> roots) {
    private static final int DEPTH = 6;
    private static final String CACHED = "models--";

    public ModelFolders {
        named = Map.copyOf(named);
        roots = List.copyOf(roots);
    }

    /// No models, for processes that serve none.
    public static final ModelFolders NONE = new ModelFolders(Map.of(), List.of());

    /// What was found.
    ///
    /// @param folders by name, those with a name of their own first, then sorted; slugs are distinct
    /// @param refused folders that cannot be served under any name
    public record Found(Map<ModelName, Path> folders, List<UnservedModel> refused) {}

    /// A folder that may be a model.
    ///
    /// @param problem why it cannot be one; empty: nothing is known against it
    private record Candidate(String name, Path folder, String problem) {}

    /// Looks at the disk.
    public Found find() {
        Map<ModelName, Path> folders = new LinkedHashMap<>();
        Map<String, ModelName> slugs = new HashMap<>();
        named.entrySet().stream().sorted(Comparator.comparing(e -> e.getKey().value())).forEach(e -> {
            ModelName other = slugs.put(e.getKey().slug(), e.getKey());
            if (other != null) throw sameSlug(e.getValue(), e.getKey(), other);
            folders.put(e.getKey(), e.getValue().toAbsolutePath().normalize());
        });
        List<UnservedModel> refused = new ArrayList<>();
        for (Candidate candidate : candidates()) {
            try {
                if (!candidate.problem.isEmpty())
                    throw new ModelRefused(candidate.folder.toString(), candidate.problem,
                            "complete the download");
                ModelName name = new ModelName(candidate.name);
                Path there = folders.get(name);
                if (candidate.folder.equals(there)) continue;
                ModelName other = slugs.putIfAbsent(name.slug(), name);
                if (other != null) throw sameSlug(candidate.folder, name, other);
                folders.put(name, candidate.folder);
            } catch (Invalid invalid) {
                refused.add(unserved(candidate, candidate.folder + ": " + invalid.getMessage()
                        + "; rename the folder, or serve it with --model NAME=DIR"));
            } catch (ModelRefused known) {
                refused.add(unserved(candidate, known.getMessage()));
            }
        }
        return new Found(folders, refused);
    }

    private static UnservedModel unserved(Candidate candidate, String reason) {
        return new UnservedModel(candidate.name, candidate.folder.toString(), reason);
    }

    private static ModelRefused sameSlug(Path folder, ModelName name, ModelName other) {
        return new ModelRefused(folder.toString(), name.equals(other)
                ? "another folder has the name " + name + " already"
                : "its runs would have the ids of those of " + other + ", '" + name.slug() + "-...'",
                "serve it under another name with --model NAME=DIR");
    }

    private List<Candidate> candidates() {
        List<Candidate> all = new ArrayList<>();
        for (Path given : roots) {
            Path root = given.toAbsolutePath().normalize();
            Map<String, Candidate> found = new TreeMap<>();
            if (String.valueOf(root.getFileName()).startsWith(CACHED)) cached(root, found);
            else search(root, "", 0, new HashSet<>(), found);
            all.addAll(found.values());
        }
        return all;
    }

    /// @param name of the folder, relative to the root
    /// @param above real paths of the folders above it, which a link may lead back to
    private static void search(Path folder, String name, int depth, Set<Path> above,
            Map<String, Candidate> found) {
        if (Files.isRegularFile(folder.resolve("config.json"))) {
            String own = name.isEmpty() ? String.valueOf(folder.getFileName()) : name;
            found.put(own, new Candidate(own, folder, ""));
            if (isModel(folder)) return;
        }
        if (depth == DEPTH) return;
        try (Stream<Path> children = Files.list(folder)) {
            Path real = folder.toRealPath();
            if (!above.add(real)) return;
            for (Path child : children.sorted().toList()) {
                String last = child.getFileName().toString();
                if (last.matches("\\..*|(datasets|spaces)--.*") || !Files.isDirectory(child)) continue;
                if (last.startsWith(CACHED)) cached(child, found);
                else search(child, name.isEmpty() ? last : name + "/" + last, depth + 1, above, found);
            }
            above.remove(real);
        } catch (IOException failed) {
            String shown = name.isEmpty() ? folder.toString() : name;
            found.put(shown, new Candidate(shown, folder, "cannot be read (" + failed + ")"));
        }
    }

    /// Whether the folder has weights beside its configuration, or soon will: nothing is looked for in it.
    private static boolean isModel(Path folder) {
        if (!Files.isRegularFile(folder.resolve("config.json"))) return false;
        try (Stream<Path> files = Files.list(folder)) {
            return files.map(f -> f.getFileName().toString())
                    .anyMatch(f -> f.endsWith(".safetensors") || f.endsWith(".safetensors.index.json"));
        } catch (IOException _) {
            return false;
        }
    }

    /// A repository of a Hugging Face cache: `refs/main` holds the name of a folder in `snapshots`.
    private static void cached(Path repository, Map<String, Candidate> found) {
        String name = repository.getFileName().toString().substring(CACHED.length()).replace("--", "/");
        Path snapshots = repository.resolve("snapshots");
        Path main = repository.resolve("refs/main");
        String problem = "";
        Path folder = repository;
        try {
            if (Files.isRegularFile(main)) folder = snapshots.resolve(Files.readString(main).strip());
            else if (Files.isDirectory(snapshots)) try (Stream<Path> all = Files.list(snapshots)) {
                List<Path> revisions = all.sorted().toList();
                if (revisions.size() == 1) folder = revisions.getFirst();
                else problem = "has " + revisions.size() + " snapshots and no refs/main";
            }
            else problem = "has neither refs/main nor snapshots";
            if (problem.isEmpty() && !Files.isDirectory(folder))
                problem = "refs/main names a snapshot that is not there";
        } catch (IOException failed) {
            problem = "cannot be read (" + failed + ")";
        }
        found.put(name, new Candidate(name, folder.normalize(), problem));
    }
}
