package bios.worker.adapter;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.TargetModule;
import bios.worker.load.ModelSpec;
import bios.worker.load.StagingBuffer;
import java.util.ArrayList;
import java.util.List;

/// The tensors of an adapter of one shape, in the order of layers and targets, A before B: their names and
/// shapes in files, and where they are in the slabs of a device.
///
/// @param slabs elements of each slab: one for each layer that has targets, the head's last
record FactorLayout(LoraSpec lora, int layers, List<Part> parts, List<Long> slabs) {
    /// Tensors begin at multiples of this many elements (64 bytes).
    private static final int ALIGNMENT = 16;
    private static final int TILE = 32;

    /// One tensor: `[rows, columns]` in files, `[columns, rows]` on a device, from element `offset` of a
    /// slab.
    ///
    /// @param name PEFT's name of the tensor
    /// @param layer index of the layer; the head's is the number of layers
    record Part(String name, int layer, TargetModule target, int slab, long offset, int rows, int columns) {
        long elements() {
            return (long) rows * columns;
        }

        /// Whether it is A of its pair.
        boolean isA() {
            return name.endsWith(".lora_A.weight");
        }
    }

    /// The layout of adapters of this shape on a model.
    static FactorLayout of(LoraSpec lora, ModelSpec model) {
        List<Part> parts = new ArrayList<>();
        List<Long> slabs = new ArrayList<>();
        for (int layer = 0; layer <= model.layers(); layer++) {
            boolean head = layer == model.layers();
            long end = 0;
            for (TargetModule target : lora.targets()) {
                if ((target == TargetModule.HEAD) != head) continue;
                String path = "base_model.model." + (head ? "" : "model.layers." + layer + ".")
                        + target.path();
                var a = new Part(path + ".lora_A.weight", layer, target, slabs.size(), end, lora.rank(),
                        model.in(target));
                end = aligned(end + a.elements());
                var b = new Part(path + ".lora_B.weight", layer, target, slabs.size(), end,
                        model.out(target), lora.rank());
                end = aligned(end + b.elements());
                parts.add(a);
                parts.add(b);
            }
            if (end > 0) slabs.add(end);
        }
        return new FactorLayout(lora, model.layers(), List.copyOf(parts), List.copyOf(slabs));
    }

    /// Elements on a device.
    long elements() {
        return slabs.stream().mapToLong(Long::longValue).sum();
    }

    /// Elements on a device of an adapter of this shape.
    static long elements(LoraSpec lora, ModelSpec model) {
        long all = 0;
        for (TargetModule target : lora.targets()) {
            long pair = aligned((long) lora.rank() * model.in(target))
                    + aligned((long) model.out(target) * lora.rank());
            all += target == TargetModule.HEAD ? pair : pair * model.layers();
        }
        return all;
    }

    private static long aligned(long elements) {
        return Math.ceilDiv(elements, ALIGNMENT) * ALIGNMENT;
    }

    /// to ← the transpose of the matrix `[rows, columns]` in `from`, in tiles that fit into the first cache.
    static void transpose(float[] from, float[] to, int rows, int columns) {
        for (int i0 = 0; i0 < rows; i0 += TILE)
            for (int j0 = 0; j0 < columns; j0 += TILE)
                for (int j = j0; j < Math.min(columns, j0 + TILE); j++)
                    for (int i = i0; i < Math.min(rows, i0 + TILE); i++)
                        to[j * rows + i] = from[i * columns + j];
    }

    /// Rows of a part in files that go through a [StagingBuffer] at once.
    static int rowsAtOnce(Part part) {
        return StagingBuffer.rowsAtOnce(part.rows, part.columns);
    }
}
