package bios.worker.model;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.model.TargetModule;
import bios.protocol.run.AdamParams;
import bios.worker.adapter.Adapter;
import bios.worker.adapter.StateFiles;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.load.Safetensors;
import bios.worker.load.TestTensors;
import bios.worker.load.TestTensors.Values;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;

/// One folder of reference results from PyTorch; `golden.py` describes it.
public record Golden(String name, Path folder, JsonNode json, Safetensors expected) {
    /// Suffix of a case's name: its weights are widened to fp32.
    public static final String WIDENED = "+widened";

    /// A sequence of the case.
    public record Sequence(int[] tokens, int[] targets) {}

    /// All cases of the folder in the property `bios.golden`, by default of the class path.
    public static List<String> cases() {
        try (Stream<Path> folders = Files.list(root())) {
            return folders.filter(f -> Files.exists(f.resolve("case.json")))
                    .map(f -> f.getFileName().toString()).sorted().toList();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    public static Golden of(String name) {
        try {
            Path folder = root().resolve(name.replace(WIDENED, ""));
            return new Golden(name, folder, new ObjectMapper().readTree(folder.resolve("case.json").toFile()),
                    Safetensors.open(folder.resolve("expected.safetensors")));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static Path root() {
        String given = System.getProperty("bios.golden");
        if (given != null) return Path.of(given);
        try {
            return Path.of(Golden.class.getResource("/golden").toURI());
        } catch (URISyntaxException e) {
            throw new IllegalStateException(e);
        }
    }

    /// Whether the engine rounds no operand of a product, which is true except for bf16 weights.
    public boolean exact() {
        return name.endsWith(WIDENED) || !json.get("weights_dtype").asText().equals("bfloat16");
    }

    public BaseModel load(Device on) {
        return load(on, DType.F32);
    }

    public BaseModel load(Device on, DType activations) {
        ModelName served = new ModelName("golden/" + folder.getFileName());
        if (!name.endsWith(WIDENED)) return BaseModel.load(folder.resolve("model"), served, on, activations);
        try {
            Path wide = Files.createTempDirectory("golden");
            // Java deletes in reverse order: the folder, registered first, is empty by then.
            for (String file : List.of("", "config.json", "model.safetensors"))
                wide.resolve(file).toFile().deleteOnExit();
            Files.copy(folder.resolve("model/config.json"), wide.resolve("config.json"));
            try (Safetensors files = Safetensors.open(folder.resolve("model"))) {
                Files.write(wide.resolve("model.safetensors"),
                        TestTensors.bytes(all(files, ""), Map.of()));
            }
            return BaseModel.load(wide, served, on, activations);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static TreeMap<String, Values> all(Safetensors files, String prefix) {
        TreeMap<String, Values> tensors = new TreeMap<>();
        for (String name : files.names()) {
            long[] shape = files.entry(name).shape().stream().mapToLong(Long::longValue).toArray();
            if (name.startsWith(prefix)) tensors.put(name, new Values(files.floats(name, shape), 0,
                    Arrays.stream(shape).mapToInt(Math::toIntExact).boxed().toList()));
        }
        return tensors;
    }

    public LoraSpec lora() {
        JsonNode a = json.get("adapter");
        List<TargetModule> targets = new ArrayList<>();
        for (JsonNode name : a.get("target_modules"))
            targets.add(Arrays.stream(TargetModule.values()).filter(t -> t.peftName().equals(name.asText()))
                    .findFirst().orElseThrow());
        return new LoraSpec(a.get("rank").asInt(), a.get("alpha").asDouble(), 0, targets);
    }

    /// The case's adapter as bytes; `prefix` is empty or `after.`.
    public byte[] adapterBytes(String prefix) {
        TreeMap<String, Values> tensors = new TreeMap<>();
        all(expected, prefix + "base_model.")
                .forEach((name, values) -> tensors.put(name.substring(prefix.length()), values));
        return TestTensors.bytes(tensors, Map.of());
    }

    public Adapter adapter(BaseModel model) {
        return StateFiles.readAdapter(adapterBytes(""), lora(), model.spec(), model.device());
    }

    public List<Sequence> sequences() {
        List<Sequence> all = new ArrayList<>();
        for (JsonNode s : json.get("sequences"))
            all.add(new Sequence(ints(s.get("tokens")), ints(s.get("targets"))));
        return all;
    }

    public List<AdamParams> steps() {
        JsonNode o = json.get("optimizer");
        List<AdamParams> steps = new ArrayList<>();
        for (JsonNode lr : o.get("learning_rates"))
            steps.add(new AdamParams(lr.asDouble(), o.get("beta1").asDouble(), o.get("beta2").asDouble(),
                    o.get("eps").asDouble(),
                    o.get("weight_decay").asDouble(), o.get("grad_clip_norm").asDouble()));
        return steps;
    }

    public float[] values(String name) {
        return expected.floats(name,
                expected.entry(name).shape().stream().mapToLong(Long::longValue).toArray());
    }

    /// The error that rounding alone causes in a kind of result.
    public double noise(String... path) {
        JsonNode node = json.get("noise");
        for (String p : path) node = node.get(p);
        return node.asDouble();
    }

    public static int[] ints(JsonNode array) {
        int[] all = new int[array.size()];
        for (int i = 0; i < all.length; i++) all[i] = array.get(i).asInt();
        return all;
    }
}
