package bios.worker.adapter;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.TargetModule;
import bios.worker.adapter.FactorLayout.Part;
import bios.worker.device.Device;
import bios.worker.device.FactorTable;
import bios.worker.device.Tensor;
import bios.worker.load.ModelSpec;
import bios.worker.load.StagingBuffer;
import bios.worker.load.TensorStream;
import bios.worker.load.TensorStream.RowSink;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// A pair A, B for every corrected module, or something of the same shape: their gradient, a moment. Zero
/// when made. The tensors of a layer are views of one slab `[1, n]`, so that an optimizer step or a norm
/// takes one verb for all of them.
public final class Factors implements FactorTable, AutoCloseable {
    private static final int TARGETS = TargetModule.values().length;

    private final Device device;
    private final FactorLayout layout;
    private final List<Tensor> slabs = new ArrayList<>();
    /// A and B of the pairs of [FactorLayout#parts].
    private final List<Tensor> tensors = new ArrayList<>();
    private final List<Optional<Factor>> sites = new ArrayList<>();

    /// Allocates zeros for an adapter of this shape. If it throws [bios.worker.device.OutOfDeviceMemory],
    /// nothing stays allocated.
    public Factors(LoraSpec lora, ModelSpec model, Device device) {
        this(FactorLayout.of(lora, model), device);
    }

    /// Zeros of this layout.
    Factors(FactorLayout layout, Device device) {
        this.device = device;
        this.layout = layout;
        try {
            for (long elements : layout.slabs()) slabs.add(device.tensor(1, Math.toIntExact(elements)));
            for (Part p : layout.parts())
                tensors.add(slabs.get(p.slab()).matrix(p.offset(), p.columns(), p.rows()));
        } catch (Throwable refused) {
            close();
            throw refused;
        }
        for (int site = 0; site < sites(); site++) sites.add(Optional.empty());
        for (int i = 0; i < tensors.size(); i += 2) {
            Part a = layout.parts().get(i);
            sites.set(site(a.layer(), a.target()),
                    Optional.of(new Factor(tensors.get(i), tensors.get(i + 1))));
        }
    }

    /// The site of a module in a [FactorTable]; the head's layer is `model.layers()`.
    public static int site(int layer, TargetModule target) {
        return layer * TARGETS + target.ordinal();
    }

    @Override public int sites() {
        return (layout.layers() + 1) * TARGETS;
    }

    @Override public Optional<Factor> at(int site) {
        return sites.get(site);
    }

    /// The factors of a module; the head's are in layer `model.layers()`.
    public Optional<Factor> at(int layer, TargetModule target) {
        return at(site(layer, target));
    }

    /// One tensor `[1, n]` per layer that has any: all of the layer's factors and zeros between them.
    public List<Tensor> slabs() {
        return List.copyOf(slabs);
    }

    /// Elements on the device.
    public long elements() {
        return layout.elements();
    }

    /// this += other, of the same shape.
    public void add(Factors other) {
        device.add(slabs, other.slabs);
    }

    /// Every element ← NaN: what a sum contains if an operation of it had no finite loss.
    public void spoil() {
        for (Tensor slab : slabs) device.fill(slab, Float.NaN);
    }

    /// Names, shapes and places of the tensors.
    FactorLayout layout() {
        return layout;
    }

    /// The tensors of [FactorLayout#parts] as they are on the device: transposed.
    List<Tensor> tensors() {
        return tensors;
    }

    /// Writes rows `row` to `row + rows` of a tensor as it is in files. Any thread, while no verb uses the
    /// factors.
    ///
    /// @param part index in [FactorLayout#parts]
    /// @param values row-major, as in files
    void write(int part, int row, int rows, float[] values, StagingBuffer staging) {
        int columns = layout.parts().get(part).columns();
        float[] transposed = staging.deviceLayout(rows * columns);
        FactorLayout.transpose(values, transposed, rows, columns);
        device.write(tensors.get(part).columns(row, rows), transposed, 0);
    }

    /// Adds a sink for each tensor, under PEFT's name followed by `suffix`.
    void sinks(Map<String, RowSink> sinks, String suffix, StagingBuffer staging) {
        for (int i = 0; i < layout.parts().size(); i++) {
            int part = i;
            sinks.put(layout.parts().get(i).name() + suffix,
                    (row, rows, values) -> write(part, row, rows, values, staging));
        }
    }

    /// Refuses a file that lacks one of the tensors under PEFT's names followed by `suffix`.
    static void check(TensorStream file, FactorLayout layout, String suffix) {
        for (Part p : layout.parts()) file.requireMatrix(p.name() + suffix, p.rows(), p.columns());
    }

    /// Gives the memory back.
    @Override public void close() {
        slabs.forEach(device::free);
        slabs.clear();
        tensors.clear();
    }
}
