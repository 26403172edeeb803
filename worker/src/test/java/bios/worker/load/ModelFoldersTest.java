package bios.worker.load;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.model.ModelName;
import bios.protocol.model.UnservedModel;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Which folders are models, and what they are called.
class ModelFoldersTest {
    @TempDir Path root;

    private Path model(String path) throws IOException {
        Path folder = Files.createDirectories(root.resolve(path));
        Files.writeString(folder.resolve("config.json"), "{}");
        Files.writeString(folder.resolve("model.safetensors"), "");
        return folder;
    }

    private ModelFolders.Found find() {
        return new ModelFolders(Map.of(), List.of(root)).find();
    }

    private static List<String> names(ModelFolders.Found found) {
        return found.folders().keySet().stream().map(ModelName::value).sorted().toList();
    }

    private static Map<String, String> reasons(ModelFolders.Found found) {
        return found.refused().stream().collect(Collectors.toMap(UnservedModel::name, UnservedModel::reason));
    }

    @Test void modelsAreFoundByTheirPathAndNothingInsideThem() throws IOException {
        model("a");
        model("org/b");
        Files.createDirectories(root.resolve("a/onnx"));
        Files.writeString(root.resolve("a/onnx/config.json"), "{}");
        model("a/checkpoint-1");
        model(".cache/hidden");
        assertEquals(List.of("a", "org/b"), names(find()));
        assertEquals(List.of(), find().refused());
    }

    @Test void linksAreFollowedAndLoopsAreNot() throws IOException {
        Path elsewhere = Files.createDirectories(root.resolve("elsewhere"));
        root = Files.createDirectories(elsewhere.resolve("root"));
        Files.createSymbolicLink(root.resolve("linked"), model("../store/real"));
        Files.createSymbolicLink(root.resolve("loop"), root);
        Files.createDirectories(root.resolve("deep"));
        Files.createSymbolicLink(root.resolve("deep/up"), elsewhere);
        Files.createSymbolicLink(root.resolve("dangling"), root.resolve("nowhere"));
        List<String> names = names(find());
        assertTrue(names.contains("linked"), names::toString);
        assertTrue(names.size() <= 4, names::toString);
    }

    @Test void aNameThatCannotBeServedIsListedWithItsRemedy() throws IOException {
        model("good");
        model("with space");
        model("one/same");
        model("two/Same");
        assertEquals(List.of("good", "one/same"), names(find()));
        Map<String, String> reasons = reasons(find());
        assertTrue(reasons.get("with space").contains("--model NAME=DIR"), reasons::toString);
        assertTrue(reasons.get("two/Same").contains("one/same"), reasons::toString);
    }

    @Test void aModelWithANameOfItsOwnComesBeforeAFoundOne() throws IOException {
        Path own = model("x/m");
        model("y/n");
        ModelFolders.Found found =
                new ModelFolders(Map.of(new ModelName("z/n"), own), List.of(root)).find();
        assertEquals(own, found.folders().get(new ModelName("z/n")));
        assertEquals(List.of("x/m", "z/n"), names(found));
        assertEquals("y/n", found.refused().getFirst().name());
    }

    @Test void aHuggingFaceCacheIsServedByTheNamesOfItsModels() throws IOException {
        Path old = model("hub/models--org--name/snapshots/aaa");
        Path main = model("hub/models--org--name/snapshots/bbb");
        Path refs = Files.createDirectories(root.resolve("hub/models--org--name/refs"));
        Files.writeString(refs.resolve("main"), "bbb\n");
        Path single = model("hub/models--gpt2/snapshots/ccc");
        model("hub/models--torn--two/snapshots/ddd");
        model("hub/models--torn--two/snapshots/eee");
        Files.createDirectories(root.resolve("hub/models--torn--none/blobs"));
        Files.createDirectories(root.resolve("hub/models--torn--gone/refs"));
        Files.writeString(root.resolve("hub/models--torn--gone/refs/main"), "fff");
        model("hub/datasets--org--data/snapshots/ggg");
        ModelFolders.Found found = find();
        assertEquals(Map.of(new ModelName("org/name"), main, new ModelName("gpt2"), single),
                found.folders());
        Map<String, String> reasons = reasons(found);
        assertEquals(List.of("torn/gone", "torn/none", "torn/two"),
                reasons.keySet().stream().sorted().toList());
        assertTrue(reasons.get("torn/two").contains("has 2 snapshots and no refs/main"), reasons::toString);
        Files.writeString(refs.resolve("main"), "aaa");
        assertEquals(old, new ModelFolders(Map.of(), List.of(root.resolve("hub/models--org--name"))).find()
                .folders().get(new ModelName("org/name")));
    }

    @Test void aFolderThatIsStillDownloadingIsAModelByItsConfiguration() throws IOException {
        Path folder = Files.createDirectories(root.resolve("part"));
        Files.writeString(folder.resolve("config.json"), "{}");
        assertEquals(List.of("part"), names(find()));
        Path own = model("single");
        assertEquals(List.of("single"), names(new ModelFolders(Map.of(), List.of(own)).find()));
    }
}
