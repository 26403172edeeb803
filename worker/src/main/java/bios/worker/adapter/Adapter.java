package bios.worker.adapter;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.TargetModule;
import bios.worker.adapter.FactorLayout.Part;
import bios.worker.device.Device;
import bios.worker.device.FactorTable;
import bios.worker.load.ModelRefused;
import bios.worker.load.ModelSpec;
import bios.worker.load.StagingBuffer;
import bios.worker.load.TensorRange;
import bios.worker.load.TensorStream;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// A LoRA adapter on a device: y = x·Wᵀ + (alpha / rank)·(x·Aᵀ)·Bᵀ on each target (Hu et al.
/// 2021). The adapter of a sampler is constant; the adapter of a run changes at each optimizer step.
public final class Adapter implements AutoCloseable {
    private final LoraSpec lora;
    private final ModelSpec model;
    private final Factors weights;

    private Adapter(LoraSpec lora, ModelSpec model, Factors weights) {
        this.lora = lora;
        this.model = model;
        this.weights = weights;
    }

    /// Allocates an adapter of zeros, for [#readFrom]. If it throws [bios.worker.device.OutOfDeviceMemory],
    /// nothing stays allocated.
    public static Adapter allocate(LoraSpec lora, ModelSpec model, Device device) {
        return new Adapter(lora, model, new Factors(lora, model, device));
    }

    /// Allocates a new adapter: A is uniform in ±1/√in, as PEFT's kaiming_uniform(a = √5), drawn from
    /// `lora.seed()`; B is zero.
    public static Adapter createInitialized(LoraSpec lora, ModelSpec model, Device device) {
        Adapter adapter = allocate(lora, model, device);
        try {
            adapter.initialize(new StagingBuffer());
            return adapter;
        } catch (Throwable failed) {
            adapter.close();
            throw failed;
        }
    }

    /// Writes the first weights of a new adapter, see [#createInitialized], over zeros. Any thread, while no
    /// verb uses it.
    void initialize(StagingBuffer staging) {
        var parts = weights.layout().parts();
        for (int i = 0; i < parts.size(); i++) {
            Part p = parts.get(i);
            if (!p.isA()) continue;
            long stream = Seeds.stream(lora.seed(), p.name());
            double bound = 1 / Math.sqrt(p.columns());
            int step = FactorLayout.rowsAtOnce(p);
            for (int row = 0; row < p.rows(); row += step) {
                int rows = Math.min(step, p.rows() - row);
                float[] values = staging.fileLayout(rows * p.columns());
                long first = (long) row * p.columns();
                for (int k = 0; k < rows * p.columns(); k++)
                    values[k] = (float) ((2 * Seeds.uniform(stream, first + k) - 1) * bound);
                weights.write(i, row, rows, values, staging);
            }
        }
    }

    /// Checks that a file contains an adapter of the shape `lora` for `model`. Throws
    /// [bios.worker.load.ModelRefused] with the name of a tensor that is missing, has another shape or does
    /// not belong to the adapter. Tensors with the suffixes of the optimizer's moments are allowed.
    public static void checkFile(TensorStream file, LoraSpec lora, ModelSpec model) {
        FactorLayout layout = FactorLayout.of(lora, model);
        Set<String> known = new HashSet<>();
        for (Part p : layout.parts()) {
            file.requireMatrix(p.name(), p.rows(), p.columns());
            known.add(p.name());
        }
        for (TensorRange tensor : file.tensors())
            if (tensor.name().startsWith("base_model.") && tensor.name().endsWith(".weight")
                    && !known.contains(tensor.name()))
                throw new ModelRefused(file.where(), "tensor '" + tensor.name()
                        + "' is not part of an adapter on " + lora.targets(),
                        "the adapter belongs to another run");
    }

    /// Reads the weights from a file that [#checkFile] has accepted and that [StateSnapshot#writeAdapter] or
    /// PEFT has written. Any thread, while no verb uses the adapter. Throws [bios.worker.load.NotFinite] for
    /// a weight that is infinite or NaN.
    public void readFrom(TensorStream file, StagingBuffer staging) {
        Map<String, TensorStream.RowSink> sinks = new HashMap<>();
        weights.sinks(sinks, StateSnapshot.WEIGHTS, staging);
        sinks.replaceAll(file::finite);
        file.read(sinks, staging);
    }

    /// Rank, alpha and targets.
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

    /// A and B of a module; empty if the module is not a target. The head belongs to layer `model.layers()`.
    public Optional<FactorTable.Factor> factor(int layer, TargetModule target) {
        return weights.at(layer, target);
    }

    /// The base model.
    ModelSpec model() {
        return model;
    }

    @Override public void close() {
        weights.close();
    }
}
