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
import bios.worker.device.Table;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import bios.worker.load.ModelRefused;
import bios.worker.load.ModelSpec;
import bios.worker.load.NotFinite;
import bios.worker.load.Safetensors;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.function.Supplier;

/// Finds a model's tensors under Hugging Face's names and hands them to the device. All shapes are checked
/// before the first weight is prepared.
final class ModelLoader {
    private static final String EMBEDDING = "model.embed_tokens.weight";

    private final ModelSpec spec;
    private final Safetensors files;
    private final Device device;
    private final DType activations;
    private final Set<String> used = new HashSet<>();
    private long parameters;

    ModelLoader(ModelSpec spec, Safetensors files, Device device, DType activations) {
        this.spec = spec;
        this.files = files;
        this.device = device;
        this.activations = activations;
    }

    BaseModel load(ModelName name, String reference) {
        check();
        FrozenMatrix embedding = matrix(EMBEDDING, spec.vocabularySize(), spec.hidden());
        List<Layer> layers = new ArrayList<>();
        for (int i = 0; i < spec.layers(); i++) layers.add(layer(i));
        Weight output = spec.tiedHead() ? weight(EMBEDDING, embedding)
                : weight("lm_head.weight", matrix("lm_head.weight", spec.vocabularySize(), spec.hidden()));
        Head head = new Head(vector("model.norm.weight", spec.hidden()),
                new Projection(output, Optional.empty(), Factors.site(spec.layers(), TargetModule.HEAD)),
                spec.eps(), activations);
        requireAllUsed();
        String dtype = switch (embedding.dtype()) {
            case BF16 -> "bfloat16";
            case F16 -> "float16";
            case F32 -> "float32";
        };
        ModelInfo info = new ModelInfo(name, reference, spec.architecture(),
                spec.contextLength(), spec.vocabularySize(), spec.hidden(), spec.layers(), dtype, parameters);
        Table table = prepared(EMBEDDING, () -> device.table(embedding));
        return new BaseModel(spec, info, device, files, table, layers, head);
    }

    /// A tensor that nothing reads means another model than the configuration says, or a
    /// part that is not computed.
    private void requireAllUsed() {
        for (String name : files.names()) if (!used.contains(name) && !name.endsWith(".rotary_emb.inv_freq")
                && !(spec.tiedHead() && name.equals("lm_head.weight")))
            throw new ModelRefused(files.where(),
                    "tensor '" + name + "' is not part of the model that config.json describes",
                    "restore the config.json that belongs to these files");
    }

    private void check() {
        files.matrix(EMBEDDING, spec.vocabularySize(), spec.hidden());
        if (!spec.tiedHead()) files.matrix("lm_head.weight", spec.vocabularySize(), spec.hidden());
        for (int i = 0; i < spec.layers(); i++)
            for (TargetModule target : TargetModule.values()) if (target != TargetModule.HEAD)
                files.matrix("model.layers." + i + "." + target.path() + ".weight", spec.out(target),
                        spec.in(target));
    }

    private Layer layer(int i) {
        String path = "model.layers." + i + ".";
        Optional<Layer.HeadNorms> norms = spec.headNorms() ? Optional.of(new Layer.HeadNorms(
                vector(path + "self_attn.q_norm.weight", spec.headDim()),
                vector(path + "self_attn.k_norm.weight", spec.headDim()))) : Optional.empty();
        AttentionShape shape = new AttentionShape(spec.heads(), spec.kvHeads(), spec.headDim(),
                (float) (1 / Math.sqrt(spec.headDim())), spec.windows().get(i));
        return new Layer(i, vector(path + "input_layernorm.weight", spec.hidden()),
                projection(i, TargetModule.Q), projection(i, TargetModule.K), projection(i, TargetModule.V),
                norms, shape, projection(i, TargetModule.O), vector(path + "post_attention_layernorm.weight",
                        spec.hidden()), projection(i, TargetModule.GATE), projection(i, TargetModule.UP),
                projection(i, TargetModule.DOWN), spec.eps(), activations);
    }

    private Projection projection(int layer, TargetModule target) {
        String path = "model.layers." + layer + "." + target.path();
        String name = path + ".weight";
        Weight weight = weight(name, matrix(name, spec.out(target), spec.in(target)));
        Optional<Tensor> bias = spec.biased(target)
                ? Optional.of(vector(path + ".bias", spec.out(target))) : Optional.empty();
        return new Projection(weight, bias, Factors.site(layer, target));
    }

    private FrozenMatrix matrix(String name, int rows, int columns) {
        parameters += (long) rows * columns;
        used.add(name);
        return files.matrix(name, rows, columns);
    }

    private Tensor vector(String name, int columns) {
        parameters += columns;
        used.add(name);
        Tensor tensor = device.tensor(1, columns);
        float[] values = files.floats(name, columns);
        for (int i = 0; i < columns; i++)
            if (!Float.isFinite(values[i]))
                throw NotFinite.inModel(files.where(), name, values[i] + " at [" + i + "]");
        device.write(tensor, values, 0);
        return tensor;
    }

    private Weight weight(String name, FrozenMatrix matrix) {
        return prepared(name, () -> device.weight(matrix));
    }

    private <T> T prepared(String name, Supplier<T> prepare) {
        try {
            return prepare.get();
        } catch (NotFiniteWeight found) {
            throw NotFinite.inModel(files.where(), name, found.getMessage());
        }
    }
}
