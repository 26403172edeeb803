package bios.worker.model;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import bios.protocol.model.ModelName;
import bios.worker.device.Device;
import bios.worker.device.TestDevices;
import bios.worker.load.ModelFolder;
import bios.worker.load.Rope;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.api.Test;

/// Rotary parameters and contexts against transformers, as `rope.py` has written them: up to the last
/// position of the context.
class RopeParityTest {
    private static final ObjectMapper JSON = new ObjectMapper();
    @TempDir Path folder;

    private ModelFolder configured(JsonNode changes) throws IOException {
        Path model = Golden.of("llama").folder().resolve("model");
        ObjectNode config = (ObjectNode) JSON.readTree(model.resolve("config.json").toFile());
        changes.properties().forEach(change -> {
            if (change.getValue().isNull()) config.remove(change.getKey());
            else config.set(change.getKey(), change.getValue());
        });
        JSON.writeValue(folder.resolve("config.json").toFile(), config);
        if (!Files.exists(folder.resolve("model.safetensors")))
            Files.copy(model.resolve("model.safetensors"), folder.resolve("model.safetensors"));
        return ModelFolder.open(folder);
    }

    private static JsonNode cases() throws IOException {
        try (var in = RopeParityTest.class.getResourceAsStream("/rope.json")) {
            return JSON.readTree(in);
        }
    }

    private static float[] floats(JsonNode array) {
        float[] all = new float[array.size()];
        for (int i = 0; i < all.length; i++) all[i] = (float) array.get(i).asDouble();
        return all;
    }

    @Test void frequenciesContextsAndLogprobsAreThoseOfTransformers() throws IOException {
        for (JsonNode known : cases()) {
            String name = known.get("name").asText();
            ModelFolder model = configured(known.get("config"));
            Rope rope = model.spec().rope();
            assertEquals(known.get("context").asInt(), model.spec().contextLength(), name);
            float[] expected = floats(known.get("frequencies"));
            for (int i = 0; i < expected.length; i++)
                assertEquals(expected[i], rope.inverseFrequencies()[i], Math.ulp(expected[i]), name);
            assertEquals((float) known.get("factor").asDouble(), rope.attentionFactor(), 1e-6f, name);
            assertArrayEquals(floats(known.get("logprobs")),
                    logprobs(Golden.ints(known.get("tokens"))), 2e-4f, name);
        }
    }

    private float[] logprobs(int[] tokens) {
        try (Device on = TestDevices.open(1);
                BaseModel model = BaseModel.load(folder, new ModelName("m"), on)) {
            int[] input = Arrays.copyOf(tokens, tokens.length - 1);
            int[] targets = Arrays.copyOfRange(tokens, 1, tokens.length);
            var batch = new RunBatch(Optional.empty(), List.of(input), targets, Optional.empty());
            return model.runPass(List.of(batch), List.of(Optional.empty())).getFirst();
        }
    }

    @Test void whatIsIgnoredIsSaid() throws IOException {
        JsonNode known = cases();
        assertEquals(List.of(), configured(known.get(0).get("config")).warnings());
        String foreign = configured(known.get(2).get("config")).warnings().getFirst();
        assertEquals("the rope parameter 'attn_factor' is not one of type yarn and is ignored", foreign);
        String both = configured(known.get(6).get("config")).warnings().getFirst();
        assertEquals(true, both.contains("rope_parameters") && both.contains("500.0"), both);
    }
}
