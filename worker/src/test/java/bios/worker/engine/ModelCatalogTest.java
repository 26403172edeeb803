package bios.worker.engine;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.model.ModelName;
import bios.protocol.model.UnservedModel;
import bios.worker.device.Device;
import bios.worker.device.TestDevices;
import bios.worker.load.FingerprintCache;
import bios.worker.load.ModelChanged;
import bios.worker.load.ModelFolders;
import bios.worker.load.ModelRefused;
import bios.worker.model.BaseModel;
import bios.worker.model.Golden;
import bios.worker.model.RunBatch;
import bios.worker.sample.Sampler;
import bios.worker.sample.SamplerSettings;
import bios.worker.train.NonFinite;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.slf4j.LoggerFactory;

/// One model that cannot be served does not keep the others from service; files that change are noticed.
class ModelCatalogTest {
    @TempDir Path root;
    private final Device device = TestDevices.open(1);
    private final List<LoadedModel> loaded = new ArrayList<>();

    @AfterEach void close() {
        loaded.forEach(m -> m.sampler().close());
        loaded.forEach(m -> m.model().close());
        device.close();
    }

    private LoadedModel load(ModelName name, Path folder) {
        BaseModel model = BaseModel.load(folder, name, device);
        loaded.add(new LoadedModel(model, NonFinite.SKIP,
                new Sampler(model, Optional.empty(), new SamplerSettings(1 << 20, 16, 4, 4)),
                Optional.empty()));
        return loaded.getLast();
    }

    private Path put(String golden, String path) throws IOException {
        Path folder = Files.createDirectories(root.resolve(path));
        for (String file : List.of("config.json", "model.safetensors"))
            Files.copy(Golden.of(golden).folder().resolve("model").resolve(file), folder.resolve(file));
        return folder;
    }

    private ModelCatalog catalog(Optional<Set<ModelName>> announced) {
        return new ModelCatalog(new ModelSource(new ModelFolders(Map.of(), List.of(root)), announced,
                FingerprintCache.NONE, Duration.ofSeconds(1)), LoggerFactory.getLogger("models"));
    }

    private static String reason(ModelCatalog.Snapshot now, String name) {
        return now.unserved().stream().filter(m -> m.name().equals(name)).map(UnservedModel::reason)
                .findFirst().orElse("none of " + now.unserved());
    }

    @Test void whatCanBeServedIsServedAndTheRestWhenItsFolderIsComplete() throws IOException {
        put("qwen3", "good");
        Path foreign = put("qwen3", "foreign");
        Files.writeString(foreign.resolve("config.json"), "{\"architectures\": [\"BertModel\"]}");
        Path part = put("qwen3", "part");
        byte[] whole = Files.readAllBytes(part.resolve("model.safetensors"));
        Files.write(part.resolve("model.safetensors"), Arrays.copyOf(whole, whole.length / 2));
        ModelCatalog catalog = catalog(Optional.empty());
        ModelCatalog.Snapshot first = catalog.start(this::load);
        assertEquals(Set.of(new ModelName("good")), first.models().keySet());
        assertTrue(reason(first, "foreign").contains("architecture 'BertModel' is not served"));
        assertTrue(reason(first, "part").contains("damaged or cut off"), reason(first, "part"));
        assertEquals(Optional.empty(), catalog.look(this::load));
        Files.write(part.resolve("model.safetensors"), whole);
        assertEquals(Optional.empty(), catalog.look(this::load), "it may still be written");
        ModelCatalog.Snapshot later = catalog.look(this::load).orElseThrow();
        assertEquals(Set.of(new ModelName("good"), new ModelName("part")), later.models().keySet());
        put("llama", "fresh");
        put("llama", "a/good");
        ModelCatalog.Snapshot seen = catalog.look(this::load).orElseThrow();
        assertTrue(reason(seen, "fresh").contains("was found"));
        assertTrue(reason(seen, "a/good").contains("the ids of those of good"), reason(seen, "a/good"));
        assertEquals(3, catalog.look(this::load).orElseThrow().models().size());
    }

    @Test void aNodeOfAClusterServesWhatItHasAnnounced() throws IOException {
        put("qwen3", "good");
        ModelCatalog catalog = catalog(Optional.of(Set.of(new ModelName("good"))));
        catalog.start(this::load);
        put("llama", "fresh");
        catalog.look(this::load);
        assertTrue(reason(catalog.look(this::load).orElseThrow(), "fresh").contains("start this node again"));
        Files.delete(root.resolve("good/model.safetensors"));
        ModelCatalog other = catalog(Optional.of(Set.of(new ModelName("good"))));
        assertThrows(ModelRefused.class, () -> other.start(this::load));
    }

    @Test void withoutAnyModelTheReasonsAreGiven() throws IOException {
        Files.writeString(put("qwen3", "a").resolve("model.safetensors"), "");
        String refused = assertThrows(ModelRefused.class, () -> catalog(Optional.empty()).start(this::load))
                .getMessage();
        assertTrue(refused.contains("is empty"), refused);
    }

    @Test void aModelLeavesServiceWithItsFilesAndReturnsWithThem() throws IOException {
        Path file = put("qwen3", "good").resolve("model.safetensors");
        put("llama", "other");
        byte[] original = Files.readAllBytes(file);
        ModelCatalog catalog = catalog(Optional.empty());
        catalog.start(this::load);
        byte[] changed = original.clone();
        changed[changed.length - 1] ^= 1;
        Files.write(file, changed);
        ModelCatalog.Snapshot out = catalog.look(this::load).orElseThrow();
        assertEquals(Set.of(new ModelName("other")), out.models().keySet());
        assertTrue(reason(out, "good").contains("after it was loaded"), reason(out, "good"));
        String why = reason(catalog.look(this::load).orElseThrow(), "good");
        assertTrue(why.contains("its weights differ") && why.contains("start the worker again"), why);
        Files.write(file, original);
        catalog.look(this::load);
        assertEquals(2, catalog.look(this::load).orElseThrow().models().size());
        assertEquals(3, logprobs(loaded.stream().filter(m -> m.model().info().name().value().equals("good"))
                .findFirst().orElseThrow().model()).length);
    }

    @Test void aPassOverATruncatedOrChangedFileFailsByNameAndComputesNothing() throws IOException {
        Path file = put("qwen3", "good").resolve("model.safetensors");
        LoadedModel model = load(new ModelName("good"), root.resolve("good"));
        float[] before = logprobs(model.model());
        byte[] original = Files.readAllBytes(file);
        try (var cut = new RandomAccessFile(file.toFile(), "rw")) {
            cut.setLength(0);
        }
        String refused = assertThrows(ModelChanged.class, () -> logprobs(model.model())).getMessage();
        assertTrue(refused.contains("has 0 bytes"), refused);
        Files.write(file, original);
        assertThrows(ModelChanged.class, () -> logprobs(model.model()));
        model.model().files().acceptChanges();
        assertArrayEquals(before, logprobs(model.model()));
        assertFalse(model.model().files().change().isPresent());
    }

    private static float[] logprobs(BaseModel model) {
        var batch = new RunBatch(Optional.empty(), List.of(new int[] {1, 2, 3}), new int[] {2, 3, 4},
                Optional.empty());
        return model.runPass(List.of(batch), List.of(Optional.empty())).getFirst();
    }
}
