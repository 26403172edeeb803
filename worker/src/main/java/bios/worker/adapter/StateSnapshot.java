package bios.worker.adapter;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.TargetModule;
import bios.protocol.run.AdamParams;
import bios.worker.adapter.FactorLayout.Part;
import bios.worker.device.Device;
import bios.worker.device.Snapshot;
import bios.worker.device.Tensor;
import bios.worker.load.ModelRefused;
import bios.worker.load.SafetensorsWriter;
import bios.worker.load.SafetensorsWriter.Shape;
import bios.worker.load.StagingBuffer;
import java.io.IOException;
import java.io.OutputStream;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;

/// A [TrainingState] at one place in the order of operations, written to files of any size from any thread in
/// the memory of one [StagingBuffer]. The same state gives the same bytes.
public final class StateSnapshot implements AutoCloseable {
    static final String WEIGHTS = "";
    static final String FIRST_MOMENT = ".exp_avg";
    static final String SECOND_MOMENT = ".exp_avg_sq";
    static final String GRADIENT = ".grad";

    private final Header header;
    private final FactorLayout layout;
    /// Suffixes of the copied tensors: `copy` holds all tensors of the first, then all of the second, ...
    private final List<String> suffixes;
    private final Snapshot copy;

    StateSnapshot(Header header, FactorLayout layout, List<String> suffixes, Snapshot copy) {
        this.header = header;
        this.layout = layout;
        this.suffixes = suffixes;
        this.copy = copy;
    }

    /// What of a state is written.
    public enum Content {
        /// The weights: a sampler's checkpoint.
        WEIGHTS,
        /// Weights and moments: a training checkpoint.
        CHECKPOINT,
        /// All of it, the gradient sum included: a recovery point.
        EVERYTHING
    }

    /// The tensors themselves in place of a copy: only while no verb changes them.
    record Live(Device on, List<Tensor> tensors) implements Snapshot {
        @Override public long bytes() {
            return 0;
        }

        @Override public void read(int i, int row, int rows, int column, int columns, float[] to, int at) {
            on.read(tensors.get(i).rows(row, rows).columns(column, columns), to, at);
        }

        @Override public void close() {}
    }

    /// What a state is besides tensors.
    ///
    /// @param steps optimizer steps applied so far
    /// @param accumulated operations in the gradient sum
    public record Header(LoraSpec lora, long steps, long accumulated, AdamParams settings) {
        private static final String VERSION = "1";

        /// Decimal numbers are written so that reading gives the same bits.
        Map<String, String> metadata() {
            return Map.ofEntries(Map.entry("bios_state", VERSION), Map.entry("rank", "" + lora.rank()),
                    Map.entry("alpha", "" + lora.alpha()), Map.entry("seed", "" + lora.seed()),
                    Map.entry("targets",
                            String.join(",", lora.targets().stream().map(TargetModule::name).toList())),
                    Map.entry("steps", "" + steps), Map.entry("accumulated", "" + accumulated),
                    Map.entry("learning_rate", "" + settings.learningRate()),
                    Map.entry("beta1", "" + settings.beta1()), Map.entry("beta2", "" + settings.beta2()),
                    Map.entry("eps", "" + settings.eps()),
                    Map.entry("weight_decay", "" + settings.weightDecay()),
                    Map.entry("grad_clip_norm", "" + settings.gradClipNorm()));
        }

        static Header of(Map<String, String> metadata) {
            if (!VERSION.equals(metadata.get("bios_state")))
                throw new ModelRefused("recovery point", "has version " + metadata.get("bios_state"),
                        "expected version " + VERSION + ", written by this program");
            try {
                return parsed(metadata);
            } catch (IllegalArgumentException | NullPointerException wrong) {
                throw new ModelRefused("recovery point", "has unreadable metadata: " + wrong.getMessage(),
                        "it is damaged: restore it from a copy");
            }
        }

        private static Header parsed(Map<String, String> metadata) {
            LoraSpec lora = new LoraSpec(Integer.parseInt(metadata.get("rank")), number(metadata, "alpha"),
                    Long.parseLong(metadata.get("seed")),
                    Arrays.stream(metadata.get("targets").split(",")).map(TargetModule::valueOf).toList());
            return new Header(lora, Long.parseLong(metadata.get("steps")),
                    Long.parseLong(metadata.get("accumulated")),
                    new AdamParams(number(metadata, "learning_rate"), number(metadata, "beta1"),
                            number(metadata, "beta2"), number(metadata, "eps"),
                            number(metadata, "weight_decay"), number(metadata, "grad_clip_norm")));
        }

        private static double number(Map<String, String> metadata, String name) {
            return Double.parseDouble(metadata.get(name));
        }
    }

    /// What the state is besides tensors.
    public Header header() {
        return header;
    }

    /// Bytes of the copy on the device; 0 while the state itself is read.
    public long deviceBytes() {
        return copy.bytes();
    }

    /// Writes the adapter alone, as PEFT names it: a checkpoint's `adapter` blob.
    public void writeAdapter(OutputStream out, StagingBuffer staging) throws IOException {
        write(out, List.of(WEIGHTS), Map.of("format", "pt"), staging);
    }

    /// Writes the moments, `<tensor>.exp_avg` and `<tensor>.exp_avg_sq`: a checkpoint's `optimizer` blob.
    public void writeOptimizer(OutputStream out, StagingBuffer staging) throws IOException {
        write(out, List.of(FIRST_MOMENT, SECOND_MOMENT), Map.of("optimizer", "adamw"), staging);
    }

    /// Writes everything, the gradient sum (`<tensor>.grad`) included: a recovery point.
    public void writePoint(OutputStream out, StagingBuffer staging) throws IOException {
        write(out, suffixes, header.metadata(), staging);
    }

    /// Bytes that [#writePoint] writes.
    public long pointBytes() {
        SortedMap<String, Shape> shapes = shapes(tensors(suffixes));
        return SafetensorsWriter.header(shapes, header.metadata()).length
                + SafetensorsWriter.dataBytes(shapes);
    }

    /// A tensor of a file: a part of the layout, and its number in the copy.
    private record Source(Part part, int tensor) {}

    private SortedMap<String, Source> tensors(List<String> wanted) {
        SortedMap<String, Source> tensors = new TreeMap<>();
        int parts = layout.parts().size();
        for (String suffix : wanted) {
            int from = suffixes.indexOf(suffix) * parts;
            for (int i = 0; i < parts; i++)
                tensors.put(layout.parts().get(i).name() + suffix, new Source(layout.parts().get(i),
                        from + i));
        }
        return tensors;
    }

    private static SortedMap<String, Shape> shapes(SortedMap<String, Source> tensors) {
        SortedMap<String, Shape> shapes = new TreeMap<>();
        tensors.forEach((name, source) -> shapes.put(name,
                new Shape(source.part.rows(), source.part.columns())));
        return shapes;
    }

    private void write(OutputStream out, List<String> wanted, Map<String, String> metadata,
            StagingBuffer staging) throws IOException {
        SortedMap<String, Source> tensors = tensors(wanted);
        out.write(SafetensorsWriter.header(shapes(tensors), metadata));
        for (Source source : tensors.values()) write(out, source, staging);
    }

    private void write(OutputStream out, Source source, StagingBuffer staging) throws IOException {
        Part part = source.part;
        int step = FactorLayout.rowsAtOnce(part);
        for (int row = 0; row < part.rows(); row += step) {
            int rows = Math.min(step, part.rows() - row);
            int elements = rows * part.columns();
            float[] transposed = staging.device(elements);
            copy.read(source.tensor, 0, part.columns(), row, rows, transposed, 0);
            float[] values = staging.file(elements);
            FactorLayout.transpose(transposed, values, part.columns(), rows);
            SafetensorsWriter.write(out, values, elements, staging);
        }
    }

    /// Frees the copy. Any thread; more than once is allowed.
    @Override public void close() {
        copy.close();
    }
}
