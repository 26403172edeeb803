package bios.worker.model;

import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import bios.protocol.model.TargetModule;
import bios.worker.adapter.Factors;
import bios.worker.device.AttentionShape;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.NotFiniteWeight;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.EmbeddingTable;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import bios.worker.load.FileIdentity;
import bios.worker.load.Fingerprint;
import bios.worker.load.ModelRefused;
import bios.worker.load.ModelSpec;
import bios.worker.load.NotFinite;
import bios.worker.load.Safetensors;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Supplier;

/// Finds a model's tensors under Hugging Face's names and hands them to the device. Names, shapes, types and
/// the memory that is needed are checked before the first weight is prepared.
final class ModelLoader {
    private static final String EMBEDDING = "model.embed_tokens.weight";
    private static final String HEAD = "lm_head.weight";
    private static final String NORM = "model.norm.weight";

    private final ModelSpec spec;
    private final Safetensors files;
    private final List<String> warnings = new ArrayList<>();
    /// The tensor of the embedding and that of the output head, the same where they are tied.
    private final String embedding;
    private final String head;

    ModelLoader(ModelSpec spec, Safetensors files) {
        this.spec = spec;
        this.files = files;
        boolean both = files.names().contains(EMBEDDING) && files.names().contains(HEAD);
        boolean tied = spec.tiedHead() && !(both && different());
        this.embedding = tied && !files.names().contains(EMBEDDING) ? HEAD : EMBEDDING;
        this.head = tied ? embedding : HEAD;
    }

    /// transformers 5 ties them where the values are equal, and warns where they are not.
    private boolean different() {
        if (files.entry(EMBEDDING).memory().mismatch(files.entry(HEAD).memory()) < 0) return false;
        warnings.add("config.json says tie_word_embeddings, but " + HEAD + " differs from " + EMBEDDING
                + ": they are not tied; set tie_word_embeddings to false");
        return true;
    }

    /// What the files say against the configuration.
    List<String> warnings() {
        return warnings;
    }

    /// Refuses files that are not those of the model that config.json describes. A tensor that nothing reads
    /// means another model than the configuration says, or a part that is not computed.
    void check() {
        Map<String, long[]> shapes = shapes();
        shapes.forEach(files::require);
        for (String name : files.names())
            if (!shapes.containsKey(name) && !name.endsWith(".rotary_emb.inv_freq") && !name.equals(HEAD))
                throw new ModelRefused(files.where(),
                        "tensor '" + name + "' is not part of the model that config.json describes",
                        "restore the config.json that belongs to these files");
    }

    /// The shapes of all tensors that the model needs.
    private Map<String, long[]> shapes() {
        Map<String, long[]> shapes = new LinkedHashMap<>();
        shapes.put(embedding, new long[] {spec.vocabularySize(), spec.hidden()});
        shapes.put(head, new long[] {spec.vocabularySize(), spec.hidden()});
        shapes.put(NORM, new long[] {spec.hidden()});
        for (int i = 0; i < spec.layers(); i++) {
            String path = "model.layers." + i + ".";
            shapes.put(path + "input_layernorm.weight", new long[] {spec.hidden()});
            shapes.put(path + "post_attention_layernorm.weight", new long[] {spec.hidden()});
            if (spec.headNorms()) for (String norm : List.of("q_norm", "k_norm"))
                shapes.put(path + "self_attn." + norm + ".weight", new long[] {spec.headDim()});
            for (TargetModule target : TargetModule.values()) {
                if (target == TargetModule.HEAD) continue;
                shapes.put(path + target.path() + ".weight",
                        new long[] {spec.out(target), spec.in(target)});
                if (spec.biased(target))
                    shapes.put(path + target.path() + ".bias", new long[] {spec.out(target)});
            }
        }
        return shapes;
    }

    /// Prepares all weights on the device.
    ///
    /// @param activations their type
    /// @param fingerprint asked for when all weights are there
    BaseModel load(ModelName name, Device device, DType activations, Supplier<Fingerprint> fingerprint) {
        check();
        long parameters = shapes().keySet().stream().mapToLong(n -> files.entry(n).elements()).sum();
        requireRoom(device);
        var prepare = new Weights(device, activations);
        FrozenMatrix table = files.matrix(embedding, spec.vocabularySize(), spec.hidden());
        List<Layer> layers = new ArrayList<>();
        for (int i = 0; i < spec.layers(); i++) layers.add(prepare.layer(i));
        Weight output = prepare.weight(head, spec.vocabularySize(), spec.hidden());
        Head last = new Head(prepare.vector(NORM, spec.hidden()),
                new Projection(output, Optional.empty(), Factors.site(spec.layers(), TargetModule.HEAD)),
                spec.eps(), activations);
        String dtype = switch (table.dtype()) {
            case BF16 -> "bfloat16";
            case F16 -> "float16";
            case F32 -> "float32";
        };
        ModelInfo info = new ModelInfo(name, spec.architecture(), spec.contextLength(),
                spec.vocabularySize(), spec.hidden(), spec.layers(), dtype, parameters,
                Optional.of(fingerprint.get().toString()));
        EmbeddingTable words = prepared(embedding, () -> device.table(table));
        files.identities().forEach(FileIdentity::requireUnchanged);
        return new BaseModel(spec, info, device, files, words, layers, last);
    }

    /// Refuses weights that do not fit before the first of them takes memory. An embedding that is not the
    /// head as well stays in its file.
    private void requireRoom(Device device) {
        long bytes = 0;
        for (var tensor : shapes().entrySet()) {
            String name = tensor.getKey();
            long[] shape = tensor.getValue();
            if (name.equals(embedding) && !name.equals(head)) continue;
            bytes += shape.length == 1 ? 4 * shape[0] : device.weightBytes(files.matrix(name,
                    Math.toIntExact(shape[0]), Math.toIntExact(shape[1])));
        }
        if (bytes > device.memoryLimit() - device.memoryInUse())
            throw new OutOfDeviceMemory(bytes, device.memoryInUse(), device.memoryLimit());
    }

    /// The weights of layers on a device.
    private final class Weights {
        private final Device device;
        private final DType activations;

        Weights(Device device, DType activations) {
            this.device = device;
            this.activations = activations;
        }

        Layer layer(int i) {
            String path = "model.layers." + i + ".";
            Optional<Layer.HeadNorms> norms = spec.headNorms() ? Optional.of(new Layer.HeadNorms(
                    vector(path + "self_attn.q_norm.weight", spec.headDim()),
                    vector(path + "self_attn.k_norm.weight", spec.headDim()))) : Optional.empty();
            AttentionShape shape = new AttentionShape(spec.heads(), spec.kvHeads(), spec.headDim(),
                    (float) (1 / Math.sqrt(spec.headDim())), spec.windows().get(i));
            return new Layer(i, vector(path + "input_layernorm.weight", spec.hidden()),
                    projection(i, TargetModule.Q), projection(i, TargetModule.K),
                    projection(i, TargetModule.V), norms, shape, projection(i, TargetModule.O),
                    vector(path + "post_attention_layernorm.weight", spec.hidden()),
                    projection(i, TargetModule.GATE), projection(i, TargetModule.UP),
                    projection(i, TargetModule.DOWN), spec.eps(), activations);
        }

        private Projection projection(int layer, TargetModule target) {
            String path = "model.layers." + layer + "." + target.path();
            Weight weight = weight(path + ".weight", spec.out(target), spec.in(target));
            Optional<Tensor> bias = spec.biased(target)
                    ? Optional.of(vector(path + ".bias", spec.out(target))) : Optional.empty();
            return new Projection(weight, bias, Factors.site(layer, target));
        }

        Tensor vector(String name, int columns) {
            float[] values = files.floats(name, columns);
            for (int i = 0; i < columns; i++)
                if (!Float.isFinite(values[i]))
                    throw NotFinite.inModel(files.where(), name, values[i] + " at [" + i + "]");
            Tensor tensor = device.tensor(1, columns);
            device.write(tensor, values, 0);
            return tensor;
        }

        Weight weight(String name, int rows, int columns) {
            return prepared(name, () -> device.weight(files.matrix(name, rows, columns)));
        }
    }

    private <T> T prepared(String name, Supplier<T> prepare) {
        try {
            return prepare.get();
        } catch (NotFiniteWeight found) {
            throw NotFinite.inModel(files.where(), name, found.getMessage());
        }
    }
}
