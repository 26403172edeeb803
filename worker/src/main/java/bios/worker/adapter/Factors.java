package bios.worker.adapter;

import static bios.protocol.Require.require;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.TargetModule;
import bios.worker.device.Device;
import bios.worker.device.FactorTable;
import bios.worker.device.Tensor;
import bios.worker.load.ModelSpec;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// A pair A, B for every corrected module, or something of the same shape: their gradient,
/// a moment. Zero when made.
/// The tensors of a layer are views of one slab `[1, n]`, so that an optimizer step or a norm
/// takes one verb for all of them.
public final class Factors implements FactorTable, AutoCloseable {
    /// Tensors begin at multiples of this many elements (64 bytes).
    private static final int ALIGNMENT = 16;
    private static final int BLOCK = 32;

    private final Device on;
    private final List<Tensor> slabs;
    private final List<Map<TargetModule, Factor>> layers;
    private final List<Part> parts;

    /// One tensor's place: `rows · columns` elements of slab `slab` from element `offset`; in host memory
    /// row-major, as in files, on the device transposed.
    ///
    /// @param name PEFT's name of the tensor
    record Part(String name, int slab, int offset, int rows, int columns) {}

    /// Zeros for an adapter of this shape.
    public Factors(LoraSpec lora, ModelSpec model, Device on) {
        this.on = on;
        this.slabs = new ArrayList<>();
        this.layers = new ArrayList<>();
        this.parts = new ArrayList<>();
        try {
            for (int layer = 0; layer <= model.layers(); layer++) addLayer(layer, lora, model);
        } catch (Throwable e) {
            close();
            throw e;
        }
    }

    private void addLayer(int layer, LoraSpec lora, ModelSpec model) {
        boolean head = layer == model.layers();
        List<TargetModule> targets = lora.targets().stream().filter(t -> (t == TargetModule.HEAD) == head)
                .toList();
        Map<TargetModule, Factor> factors = new EnumMap<>(TargetModule.class);
        layers.add(factors);
        if (targets.isEmpty()) return;
        int slab = slabs.size();
        List<Part> own = new ArrayList<>();
        int end = 0;
        for (TargetModule target : targets) {
            String path = "base_model.model." + (head ? "" : "model.layers." + layer + ".") + target.path();
            Part a = new Part(path + ".lora_A.weight", slab, end, lora.rank(), model.in(target));
            end = aligned(Math.addExact(end, Math.multiplyExact(a.rows, a.columns)));
            Part b = new Part(path + ".lora_B.weight", slab, end, model.out(target), lora.rank());
            end = aligned(Math.addExact(end, Math.multiplyExact(b.rows, b.columns)));
            own.add(a);
            own.add(b);
        }
        Tensor memory = on.tensor(1, end);
        slabs.add(memory);
        for (int i = 0; i < targets.size(); i++)
            factors.put(targets.get(i),
                    new Factor(view(memory, own.get(2 * i)), view(memory, own.get(2 * i + 1))));
        parts.addAll(own);
    }

    /// Elements on a device of an adapter of this shape.
    static long elements(LoraSpec lora, ModelSpec model) {
        long all = 0;
        for (TargetModule target : lora.targets()) {
            long one = aligned(Math.multiplyExact(lora.rank(), model.in(target)))
                    + (long) aligned(Math.multiplyExact(model.out(target), lora.rank()));
            all += target == TargetModule.HEAD ? one : one * model.layers();
        }
        return all;
    }

    private static int aligned(int elements) {
        return Math.multiplyExact(Math.ceilDiv(elements, ALIGNMENT), ALIGNMENT);
    }

    private static Tensor view(Tensor slab, Part part) {
        return slab.matrix(part.offset, part.columns, part.rows);
    }

    /// The site of a module in a [FactorTable]; the head's layer is `model.layers()`.
    public static int site(int layer, TargetModule target) {
        return layer * TargetModule.values().length + target.ordinal();
    }

    @Override public int sites() {
        return layers.size() * TargetModule.values().length;
    }

    @Override public Optional<Factor> at(int site) {
        int targets = TargetModule.values().length;
        return at(site / targets, TargetModule.values()[site % targets]);
    }

    /// The factors of a module; the head's are in layer `model.layers()`.
    public Optional<Factor> at(int layer, TargetModule target) {
        return Optional.ofNullable(layers.get(layer).get(target));
    }

    /// One tensor `[1, n]` per layer that has any: all of the layer's factors and zeros between them.
    public List<Tensor> slabs() {
        return List.copyOf(slabs);
    }

    /// Elements on the device.
    public long elements() {
        return slabs.stream().mapToLong(Tensor::elements).sum();
    }

    /// this += other, of the same shape.
    public void add(Factors other) {
        on.add(slabs, other.slabs);
    }

    /// this ← other, of the same shape.
    public void copy(Factors other) {
        for (int i = 0; i < slabs.size(); i++) on.copy(slabs.get(i), other.slabs.get(i));
    }

    /// Copies all values to the host. Waits for the device.
    public HostFactors read() {
        List<float[]> host = slabs.stream().map(on::read).toList();
        for (Part p : parts) transpose(host.get(p.slab), p.offset, p.columns, p.rows);
        return new HostFactors(parts, host);
    }

    /// Copies all values from the host.
    public void write(HostFactors host) {
        require(host.parts().equals(parts), "factors of another shape");
        for (int i = 0; i < slabs.size(); i++) write(i, host.slabs().get(i).clone());
    }

    /// Copies one slab from the host.
    ///
    /// @param values tensors as in files; used up
    void write(int slab, float[] values) {
        for (Part p : parts) if (p.slab == slab) transpose(values, p.offset, p.rows, p.columns);
        on.write(slabs.get(slab), values);
    }

    /// In place: a matrix `[rows, columns]` becomes its transpose, in blocks that fit into the first cache.
    private static void transpose(float[] slab, int offset, int rows, int columns) {
        float[] from = Arrays.copyOfRange(slab, offset, offset + rows * columns);
        for (int i0 = 0; i0 < rows; i0 += BLOCK)
            for (int j0 = 0; j0 < columns; j0 += BLOCK)
                for (int j = j0; j < Math.min(columns, j0 + BLOCK); j++)
                    for (int i = i0; i < Math.min(rows, i0 + BLOCK); i++)
                        slab[offset + j * rows + i] = from[i * columns + j];
    }

    /// Places of all tensors, in the order of layers and [TargetModule], A before B.
    List<Part> parts() {
        return parts;
    }

    /// Host memory of this shape, zero.
    HostFactors host() {
        return new HostFactors(parts, slabs.stream().map(s -> new float[s.columns()]).toList());
    }

    /// Gives the memory back.
    @Override public void close() {
        slabs.forEach(on::free);
        slabs.clear();
    }
}
