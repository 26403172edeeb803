package bios.worker.adapter;

import bios.worker.load.Safetensors;
import bios.worker.load.SafetensorsWriter.Values;
import java.util.List;
import java.util.SortedMap;

/// A copy of [Factors] in host memory: what is written to and read from files.
public final class HostFactors {
    private final List<Factors.Part> parts;
    private final List<float[]> slabs;

    HostFactors(List<Factors.Part> parts, List<float[]> slabs) {
        this.parts = List.copyOf(parts);
        this.slabs = List.copyOf(slabs);
    }

    List<Factors.Part> parts() {
        return parts;
    }

    List<float[]> slabs() {
        return slabs;
    }

    /// Adds all tensors to `tensors` under PEFT's names followed by `suffix`; values are shared, not copied.
    public void addTo(SortedMap<String, Values> tensors, String suffix) {
        for (Factors.Part p : parts)
            tensors.put(p.name() + suffix,
                    new Values(slabs.get(p.slab()), p.offset(), List.of(p.rows(), p.columns())));
    }

    /// Fills all tensors from those called by PEFT's names followed by `suffix`; a missing or misshaped one
    /// is refused with [bios.worker.load.ModelRefused].
    public void fillFrom(Safetensors tensors, String suffix) {
        for (Factors.Part p : parts) {
            float[] values = tensors.floats(p.name() + suffix, p.rows(), p.columns());
            System.arraycopy(values, 0, slabs.get(p.slab()), p.offset(), values.length);
        }
    }
}
