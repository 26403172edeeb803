package bios.worker.adapter;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.TargetModule;
import bios.worker.device.Device;
import bios.worker.device.FactorTable;
import bios.worker.load.ModelRefused;
import bios.worker.load.ModelSpec;
import bios.worker.load.Safetensors;
import bios.worker.load.SafetensorsWriter;
import bios.worker.load.SafetensorsWriter.Values;
import java.util.HashSet;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;

/// A LoRA adapter on a device: y = x·Wᵀ + (alpha / rank)·(x·Aᵀ)·Bᵀ on each target (Hu et al. 2021). A
/// sampler's never changes; a run's changes with each optimizer step.
public final class Adapter implements AutoCloseable {
    private final LoraSpec lora;
    private final ModelSpec model;
    private final Factors weights;

    private Adapter(LoraSpec lora, ModelSpec model, Factors weights) {
        this.lora = lora;
        this.model = model;
        this.weights = weights;
    }

    /// A new adapter: A uniform in ±1/√in, as PEFT's kaiming_uniform(a = √5), from `lora.seed()`; B zero.
    public static Adapter fresh(LoraSpec lora, ModelSpec model, Device on) {
        Factors weights = new Factors(lora, model, on);
        // slab by slab: the whole of a large adapter would stay in the heap's size
        for (int slab = 0; slab < weights.slabs().size(); slab++) {
            float[] values = new float[weights.slabs().get(slab).columns()];
            for (Factors.Part p : weights.parts()) {
                if (p.slab() != slab || !p.name().endsWith(".lora_A.weight")) continue;
                long stream = Seeds.stream(lora.seed(), p.name());
                double bound = 1 / Math.sqrt(p.columns());
                for (int i = 0; i < p.rows() * p.columns(); i++)
                    values[p.offset() + i] = (float) ((2 * Seeds.uniform(stream, i) - 1) * bound);
            }
            weights.write(slab, values);
        }
        return new Adapter(lora, model, weights);
    }

    /// Reads what [#toSafetensors] or PEFT wrote. [ModelRefused] when a tensor is missing,
    /// misshaped or not `lora`'s.
    public static Adapter fromSafetensors(byte[] bytes, LoraSpec lora, ModelSpec model, Device on) {
        try (Safetensors tensors = Safetensors.of("adapter", bytes)) {
            return fromSafetensors(tensors, lora, model, on);
        }
    }

    /// The same from an open file; tensors with the suffixes of an optimizer's state are passed over.
    public static Adapter fromSafetensors(Safetensors tensors, LoraSpec lora, ModelSpec model, Device on) {
        Factors weights = new Factors(lora, model, on);
        try {
            HostFactors host = weights.host();
            host.fillFrom(tensors, "");
            Set<String> known = new HashSet<>();
            for (Factors.Part p : host.parts()) known.add(p.name());
            for (String name : tensors.names())
                if (name.startsWith("base_model.") && name.endsWith(".weight") && !known.contains(name))
                    throw new ModelRefused("adapter", "tensor '" + name + "' is not part of an adapter on "
                            + lora.targets(), "the adapter belongs to another run");
            weights.write(host);
            return new Adapter(lora, model, weights);
        } catch (RuntimeException e) {
            weights.close();
            throw e;
        }
    }

    /// Shape, alpha and targets.
    public LoraSpec lora() {
        return lora;
    }

    /// A and B of every target, on the device.
    public Factors weights() {
        return weights;
    }

    /// alpha / rank.
    public float scale() {
        return (float) lora.scale();
    }

    /// A and B of a module, if it is a target; the head's are in layer `model.layers()`.
    public Optional<FactorTable.Factor> at(int layer, TargetModule target) {
        return weights.at(layer, target);
    }

    /// The weights as safetensors with PEFT's names
    /// (`base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`); the same weights give the same
    /// bytes. Waits for the device.
    public byte[] toSafetensors() {
        return toSafetensors(weights.read());
    }

    /// The bytes of [#toSafetensors] for weights that were read before: needs no device.
    public static byte[] toSafetensors(HostFactors weights) {
        TreeMap<String, Values> tensors = new TreeMap<>();
        weights.addTo(tensors, "");
        return SafetensorsWriter.bytes(tensors, Map.of("format", "pt"));
    }

    /// The text of PEFT's `adapter_config.json`.
    ///
    /// @param reference what `base_model_name_or_path` says: [bios.protocol.model.ModelInfo#reference]
    public String config(String reference) {
        return AdapterConfig.json(lora, reference);
    }

    /// The model that it corrects.
    ModelSpec model() {
        return model;
    }

    @Override public void close() {
        weights.close();
    }
}
