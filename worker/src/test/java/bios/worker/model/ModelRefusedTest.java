package bios.worker.model;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.TestDevices;
import bios.worker.load.FingerprintCache;
import bios.worker.load.ModelFolder;
import bios.worker.load.ModelRefused;
import bios.worker.load.ModelSpec;
import bios.worker.load.Rope;
import bios.worker.load.Safetensors;
import bios.worker.load.TensorStream;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayInputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.junit.jupiter.api.Assertions;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Loading a folder that cannot be served throws the reason; loading a valid one gives its properties.
class ModelRefusedTest {
    private static final ObjectMapper JSON = new ObjectMapper();
    @TempDir Path folder;
    private Path original;

    @BeforeEach void copy() throws Exception {
        original = Golden.of("qwen3").folder().resolve("model");
        for (String file : List.of("config.json", "model.safetensors"))
            Files.copy(original.resolve(file), folder.resolve(file));
    }

    @ParameterizedTest @CsvSource(delimiter = '|', quoteCharacter = '`', value = {
            "'architectures':['GPT2LMHeadModel'] | architecture 'GPT2LMHeadModel' is not served; "
                    + "expected one of [LlamaForCausalLM, ",
            "'architectures':[]                  | names no architecture: 'architectures' is []",
            "'architectures':null                | names no architecture: 'architectures' is null",
            "'tie_word_embeddings':'no'          | tie_word_embeddings is \"no\"; expected true or false",
            "'rms_norm_eps':'small'              | rms_norm_eps is \"small\"",
            "'rope_theta':'large'                | rope_theta is \"large\"",
            "'hidden_act':'gelu'                 | hidden_act 'gelu' is unknown; expected silu",
            "'quantization_config':{'bits':4}    | quantization_config is set",
            "'hidden_size':'wide'                | hidden_size is \"wide\"",
            "'num_hidden_layers':0               | num_hidden_layers is 0",
            "'num_key_value_heads':3 | num_key_value_heads 3 does not divide num_attention_heads 4",
            "'rope_parameters':{'rope_type':'longrope','rope_theta':10000.0} | "
                    + "rope type 'longrope' is unknown; "
                    + "expected one of [default, dynamic, linear, llama3, yarn]",
            "'rope_parameters':{'rope_type':'llama3','factor':8.0} | "
                    + "rope parameter low_freq_factor is missing",
            "'rope_parameters':{'rope_type':'default','partial_rotary_factor':0.5} | "
                    + "partial_rotary_factor is 0.5",
            "'layer_types':['full_attention','chunked_attention'] | "
                    + "layer type 'chunked_attention' is unknown",
            "'layer_types':['full_attention']    | layer_types has 1 entries",
            "'layer_types':'full_attention'      | layer_types is \"full_attention\"; expected an array",
            "'sliding_window':'4096'             | sliding_window is \"4096\"; expected a whole number",
            "'sliding_window':-1                 | sliding_window is -1; expected a whole number",
            "'max_window_layers':true            | max_window_layers is true; expected a whole number",
            "'eos_token_id':'</s>'               | config.json: eos_token_id is \"</s>\"; expected",
            "'eos_token_id':[7,'9']              | config.json: eos_token_id is [7,\"9\"]; expected",
            "'eos_token_id':[null]               | config.json: eos_token_id is [null]; expected a token id",
            "'rms_norm_eps':1e300                | rms_norm_eps is 1.0E300; expected a number that is finite",
            "'rope_scaling':'yarn'               | rope_scaling is \"yarn\"; expected an object",
            "'rope_parameters':['yarn']          | rope_parameters is [\"yarn\"]; expected an object",
            "'rope_parameters':{'rope_type':'linear','factor':'2'} | factor is \"2\"; expected a number",
            "'vocab_size':7                      | tensor 'model.embed_tokens.weight' has shape",
            "'num_hidden_layers':1,'layer_types':null | tensor 'model.layers.1.input_layernorm.weight' "
                    + "is not part of the model"})
    void whatIsNotUnderstoodIsRefusedByName(String change, String message) throws Exception {
        configure(change);
        String got = refusal();
        assertTrue(got.startsWith(folder.toString()), got);
        assertTrue(got.contains(message), got);
    }

    /// A value of another type is refused wherever it is used, and null is as good as none.
    @ParameterizedTest @CsvSource({"attention_factor, '\"1.0x\"'", "attention_factor, 0",
            "attention_factor, 1e39", "mscale, '\"1\"'", "mscale_all_dim, true", "beta_fast, [32]",
            "beta_fast, -1", "beta_slow, '\"1\"'", "truncate, '\"no\"'",
            "original_max_position_embeddings, '\"64\"'", "original_max_position_embeddings, 0",
            "rope_theta, '\"large\"'", "partial_rotary_factor, true"})
    void aRopeParameterOfAnotherTypeIsRefusedByName(String name, String value) throws Exception {
        String yarn = "'rope_parameters':{'rope_type':'yarn','factor':4.0";
        configure(yarn + "}");
        Rope without = ModelFolder.open(folder).spec().rope();
        configure(yarn + ",'" + name + "':null}");
        Rope none = ModelFolder.open(folder).spec().rope();
        Assertions.assertArrayEquals(without.inverseFrequencies(), none.inverseFrequencies());
        assertEquals(without.attentionFactor(), none.attentionFactor());
        configure(yarn + ",'" + name + "':" + value + "}");
        String got = refusal();
        assertTrue(got.contains(name + " is ") && got.contains("; expected "), got);
    }

    @Test void endTokensOfAnotherTypeAreRefusedByName() throws Exception {
        Path file = folder.resolve("generation_config.json");
        for (String value : List.of("'2'", "2.5", "[2, 'x']", "{'id': 2}", "true")) {
            Files.writeString(file, "{'eos_token_id': %s}".formatted(value).replace('\'', '"'));
            assertTrue(refusal().contains("generation_config.json: eos_token_id is "), refusal());
        }
        configure("'eos_token_id':5");
        for (String none : List.of("{}", "{\"eos_token_id\": null}")) {
            Files.writeString(file, none);
            assertEquals(Set.of(5), ModelFolder.open(folder).spec().endTokens());
        }
    }

    @Test void anIndexThatNamesNoFileIsRefused() throws Exception {
        Files.delete(folder.resolve("model.safetensors"));
        Files.writeString(folder.resolve("model.safetensors.index.json"), "{\"weight_map\": {\"a\": 1}}");
        assertTrue(refusal().contains("names no file for tensor 'a', but 1"), refusal());
    }

    @Test void aMissingTensorIsNamedInTheRefusal() throws Exception {
        configure("'num_hidden_layers':3,'layer_types':null");
        assertTrue(refusal().contains("tensor 'model.layers.2.input_layernorm.weight' is missing"),
                refusal());
    }

    @Test void aFolderWithoutConfigurationOrTensorsIsRefused() throws Exception {
        Files.delete(folder.resolve("model.safetensors"));
        assertTrue(refusal().contains("holds neither model.safetensors nor"), refusal());
        Files.writeString(folder.resolve("config.json"), "{");
        assertTrue(refusal().contains("config.json: is not JSON"), refusal());
        Files.delete(folder.resolve("config.json"));
        assertTrue(refusal().contains("holds no config.json"), refusal());
    }

    @Test void aModelHasThePropertiesOfItsFolder() throws Exception {
        Files.writeString(folder.resolve("generation_config.json"), "{\"eos_token_id\": [7, 9]}");
        try (Device on = TestDevices.open(1);
                BaseModel model = BaseModel.load(folder, new ModelName("a/b"), on)) {
            ModelSpec spec = model.spec();
            ModelInfo info = model.info();
            assertEquals("Qwen3ForCausalLM", info.architecture());
            assertEquals("float32", info.dtype());
            assertEquals(spec.vocabularySize(), info.vocabularySize());
            assertEquals(Set.of(7, 9), spec.endTokens());
            try (var files = Safetensors.open(folder)) {
                long elements = files.names().stream().mapToLong(n -> files.entry(n).elements()).sum();
                assertEquals(elements, info.parameters());
            }
        }
    }

    @Test void anAbsentFieldIsCalledMissing() throws Exception {
        ObjectNode config = (ObjectNode) JSON.readTree(original.resolve("config.json").toFile());
        config.remove("hidden_size");
        JSON.writeValue(folder.resolve("config.json").toFile(), config);
        assertTrue(refusal().contains("hidden_size is missing; expected a positive whole number"), refusal());
    }

    @Test void whatAFailedDownloadLeavesIsCalledByItsName() throws Exception {
        Map<String, String> left = Map.of("", "is empty",
                "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n", "run `git lfs pull`",
                "<!DOCTYPE html><html><head><title>Sign in</title></head></html>", "is a web page",
                "Entry not found, or access to this repository is restricted. Log in.", "is text ('Entry",
                "\0".repeat(1000), "begins with zeros");
        for (var content : left.entrySet()) {
            Files.writeString(folder.resolve("model.safetensors"), content.getKey());
            assertTrue(refusal().contains("model.safetensors: " + content.getValue())
                    || refusal().contains(content.getValue()), refusal());
        }
        for (var content : left.entrySet()) {
            if (content.getKey().startsWith("Entry")) continue;
            Files.writeString(folder.resolve("config.json"), content.getKey());
            assertTrue(refusal().contains(content.getValue()), refusal());
        }
    }

    /// transformers 5 ties a head that is equal, and one that differs it does not.
    @Test void aTiedHeadThatDiffersFromTheEmbeddingIsUsedAndSaid() throws Exception {
        List<String> equal = warnings(Golden.of("qwen3-tied-lm-head"));
        assertEquals(List.of(), equal);
        configure("'tie_word_embeddings':true");
        try (Safetensors files = Safetensors.open(original)) {
            Assumptions.assumeTrue(files.names().contains("lm_head.weight"));
        }
        List<String> said = new ArrayList<>();
        try (Device on = TestDevices.open(1);
                BaseModel tied = BaseModel.load(ModelFolder.open(folder), new ModelName("x"), on, DType.F32,
                        FingerprintCache.NONE, said::add);
                BaseModel untied = BaseModel.load(original, new ModelName("x"), on)) {
            assertTrue(said.getFirst().contains("lm_head.weight differs from model.embed_tokens.weight"),
                    said::toString);
            var batch = new RunBatch(Optional.empty(), List.of(new int[] {1, 2, 3}), new int[] {2, 3, 4},
                    Optional.empty());
            Assertions.assertArrayEquals(untied.runPass(List.of(batch), List.of(Optional.empty())).getFirst(),
                    tied.runPass(List.of(batch), List.of(Optional.empty())).getFirst());
        }
    }

    private static List<String> warnings(Golden golden) {
        List<String> said = new ArrayList<>();
        try (Device on = TestDevices.open(1)) {
            BaseModel.load(ModelFolder.open(golden.folder().resolve("model")), new ModelName("x"), on,
                    DType.F32, FingerprintCache.NONE, said::add).close();
        }
        return said;
    }

    @Test void attentionWindowsFollowTheRulesOfEachFamily() throws Exception {
        configure("'use_sliding_window':true,'sliding_window':16,'max_window_layers':1,'layer_types':null");
        assertEquals(List.of(0, 16), ModelFolder.open(folder).spec().windows());
        configure("'use_sliding_window':false,'sliding_window':16,'max_window_layers':1,'layer_types':null");
        assertEquals(List.of(0, 0), ModelFolder.open(folder).spec().windows());
        configure("'use_sliding_window':true,'sliding_window':16,"
                + "'layer_types':['sliding_attention','full_attention']");
        assertEquals(List.of(16, 0), ModelFolder.open(folder).spec().windows());
        configure("'architectures':['MistralForCausalLM'],'sliding_window':8");
        assertEquals(List.of(8, 8), ModelFolder.open(folder).spec().windows());
        configure("'architectures':['MistralForCausalLM'],'sliding_window':null");
        assertEquals(List.of(0, 0), ModelFolder.open(folder).spec().windows());
    }

    @Test void ropeParametersAreReadFromOldAndNewKeys() throws Exception {
        configure("'rope_parameters':{'rope_type':'linear','factor':4.0,'rope_theta':5000.0}");
        float[] now = ModelFolder.open(folder).spec().rope().inverseFrequencies();
        configure("'rope_parameters':null,'rope_theta':5000.0,'rope_scaling':{'type':'linear','factor':4.0}");
        Assertions.assertArrayEquals(now,
                ModelFolder.open(folder).spec().rope().inverseFrequencies());
        assertEquals(0.25f, now[0]);
        configure("'rope_parameters':null,'rope_theta':5000.0");
        assertEquals(1f, ModelFolder.open(folder).spec().rope().inverseFrequencies()[0]);
    }

    /// A file whose numbers are not all finite: any number of any tensor is found and named.
    @ParameterizedTest @CsvSource({"model.embed_tokens.weight, 77", "model.norm.weight, 3",
            "model.layers.0.self_attn.q_norm.weight, 1", "model.layers.1.mlp.down_proj.weight, 0",
            "model.layers.0.self_attn.v_proj.weight, 39", "lm_head.weight, 1000"})
    void aWeightThatIsNotFiniteIsRefusedByName(String tensor, int index) throws Exception {
        original = Golden.of("qwen3-lm-head").folder().resolve("model");
        for (String file : List.of("config.json", "model.safetensors"))
            Files.copy(original.resolve(file), folder.resolve(file), StandardCopyOption.REPLACE_EXISTING);
        Path weights = folder.resolve("model.safetensors");
        byte[] bytes = Files.readAllBytes(weights);
        int columns;
        try (var file = TensorStream.open("file", new ByteArrayInputStream(bytes), bytes.length)) {
            var range = file.tensors().stream().filter(t -> t.name().equals(tensor)).findFirst()
                    .orElseThrow();
            assertEquals("F32", range.dtype());
            columns = Math.toIntExact(range.shape().getLast());
            var all = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
            all.putFloat(8 + (int) all.getLong(0) + (int) range.begin() + 4 * index, Float.NaN);
        }
        Files.write(weights, bytes);
        String got = refusal();
        String place = tensor.contains("norm") ? "[" + index + "]"
                : "[" + index / columns + ", " + index % columns + "]";
        assertTrue(got.contains("tensor '" + tensor + "' has NaN at " + place), got);
    }

    private void configure(String change) throws Exception {
        ObjectNode config = (ObjectNode) JSON.readTree(original.resolve("config.json").toFile());
        config.setAll((ObjectNode) JSON.readTree("{" + change.replace('\'', '"') + "}"));
        JSON.writeValue(folder.resolve("config.json").toFile(), config);
    }

    private String refusal() {
        try (Device on = TestDevices.open(1)) {
            return assertThrows(ModelRefused.class,
                    () -> BaseModel.load(folder, new ModelName("x"), on).close()).getMessage();
        }
    }
}
