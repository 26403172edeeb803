package bios.worker.adapter;

import static bios.protocol.Require.require;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.TargetModule;
import bios.protocol.run.AdamParams;
import bios.worker.adapter.FactorLayout.Part;
import bios.worker.device.Device;
import bios.worker.device.Snapshot;
import bios.worker.device.Tensor;
import bios.worker.kernel.Sums;
import bios.worker.load.ModelRefused;
import bios.worker.load.NotFinite;
import bios.worker.load.SafetensorsWriter;
import bios.worker.load.SafetensorsWriter.Shape;
import bios.worker.load.StagingBuffer;
import java.io.IOException;
import java.io.OutputStream;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicReference;

/// A [TrainingState] as it is after a certain operation. Any thread may write it to files of any size, with
/// the memory of one [StagingBuffer]. The same state gives the same bytes.
public final class StateSnapshot implements AutoCloseable {
    static final String WEIGHTS = "";
    static final String FIRST_MOMENT = ".exp_avg";
    static final String SECOND_MOMENT = ".exp_avg_sq";
    static final String GRADIENT = ".grad";

    private final Header header;
    private final FactorLayout layout;
    /// Suffixes of the tensors: `tensors` contains all tensors with the first suffix, then all with the
    /// second, ...
    private final List<String> suffixes;
    private final Snapshot tensors;

    StateSnapshot(Header header, FactorLayout layout, List<String> suffixes, Snapshot tensors) {
        this.header = header;
        this.layout = layout;
        this.suffixes = suffixes;
        this.tensors = tensors;
    }

    /// The part of a state that a snapshot contains.
    public enum Content {
        /// The weights: a sampler's checkpoint.
        WEIGHTS,
        /// Weights and moments: a training checkpoint.
        CHECKPOINT,
        /// Weights, moments and gradient sum: a recovery point.
        RECOVERY_POINT
    }

    /// Reads the tensors themselves, without a copy; valid only while no operation changes them.
    record LiveTensors(Device device, List<Tensor> tensors) implements Snapshot {
        @Override public long bytes() {
            return 0;
        }

        @Override public void read(int i, int row, int rows, int column, int columns, float[] to, int at) {
            device.read(tensors.get(i).rows(row, rows).columns(column, columns), to, at);
        }

        @Override public void close() {}
    }

    /// The part of a state that is not tensors; metadata of a recovery point.
    ///
    /// @param steps optimizer steps applied so far
    /// @param accumulatedOperations operations in the gradient sum
    /// @param optimizerSettings settings of the last optimizer step
    public record Header(LoraSpec lora, long steps, long accumulatedOperations,
            AdamParams optimizerSettings) {
        private static final String VERSION = "1";

        /// Decimal numbers are written so that reading gives the same bits.
        Map<String, String> metadata() {
            return Map.ofEntries(Map.entry("bios_state", VERSION), Map.entry("rank", "" + lora.rank()),
                    Map.entry("alpha", "" + lora.alpha()), Map.entry("seed", "" + lora.seed()),
                    Map.entry("targets",
                            String.join(",", lora.targets().stream().map(TargetModule::name).toList())),
                    Map.entry("steps", "" + steps), Map.entry("accumulated", "" + accumulatedOperations),
                    Map.entry("learning_rate", "" + optimizerSettings.learningRate()),
                    Map.entry("beta1", "" + optimizerSettings.beta1()),
                    Map.entry("beta2", "" + optimizerSettings.beta2()),
                    Map.entry("eps", "" + optimizerSettings.eps()),
                    Map.entry("weight_decay", "" + optimizerSettings.weightDecay()),
                    Map.entry("grad_clip_norm", "" + optimizerSettings.gradClipNorm()));
        }

        static Header of(Map<String, String> metadata) {
            if (!VERSION.equals(metadata.get("bios_state")))
                throw new ModelRefused("recovery point", "has version " + metadata.get("bios_state"),
                        "expected version " + VERSION + ": it was written by another version of Bios");
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

    /// The part of the state that is not tensors.
    public Header header() {
        return header;
    }

    /// Bytes of the copy on the device; 0 if there is no copy ([LiveTensors]).
    public long deviceBytes() {
        return tensors.bytes();
    }

    /// Writes the adapter only, with PEFT's tensor names: the `adapter` blob of a checkpoint. Throws
    /// [NotFinite] if it could not be loaded again.
    public void writeAdapter(OutputStream out, StagingBuffer staging) throws IOException {
        write(out, List.of(WEIGHTS), Map.of("format", "pt"), StateSnapshot::requireFinite, staging);
    }

    /// Writes the moments, `<tensor>.exp_avg` and `<tensor>.exp_avg_sq`: the `optimizer` blob of a
    /// checkpoint. Throws [NotFinite] if it could not be loaded again.
    public void writeOptimizer(OutputStream out, StagingBuffer staging) throws IOException {
        write(out, List.of(FIRST_MOMENT, SECOND_MOMENT), Map.of("optimizer", "adamw"),
                StateSnapshot::requireFinite, staging);
    }

    /// Writes a recovery point: all tensors, the gradient sum (`<tensor>.grad`) included, as they are.
    ///
    /// @return a weight or moment that is infinite or NaN, if there is one
    public Optional<NotFinite> writeRecoveryPoint(OutputStream out, StagingBuffer staging)
            throws IOException {
        var found = new AtomicReference<NotFinite>();
        write(out, suffixes, header.metadata(), (name, row, columns, values, elements) -> {
            if (found.get() == null && !name.endsWith(GRADIENT) && !Sums.finite(values, elements))
                found.set(NotFinite.inState(name, row, columns, values));
        }, staging);
        return Optional.ofNullable(found.get());
    }

    /// Looks at rows of a tensor that is written.
    private interface Check {
        void check(String name, int row, int columns, float[] values, int elements);
    }

    private static void requireFinite(String name, int row, int columns, float[] values, int elements) {
        if (!Sums.finite(values, elements)) throw NotFinite.inState(name, row, columns, values);
    }

    /// Bytes that [#writeRecoveryPoint] writes.
    public long recoveryPointBytes() {
        SortedMap<String, Shape> shapes = shapes(sources(suffixes));
        return SafetensorsWriter.header(shapes, header.metadata()).length
                + SafetensorsWriter.dataBytes(shapes);
    }

    /// A tensor of a file: a part of the layout, and its index in the snapshot.
    private record Source(Part part, int tensor) {}

    private SortedMap<String, Source> sources(List<String> wanted) {
        SortedMap<String, Source> sources = new TreeMap<>();
        int parts = layout.parts().size();
        for (String suffix : wanted) {
            require(suffixes.contains(suffix), "the snapshot has no tensors '*%s'; it has %s", suffix,
                    suffixes);
            int from = suffixes.indexOf(suffix) * parts;
            for (int i = 0; i < parts; i++)
                sources.put(layout.parts().get(i).name() + suffix, new Source(layout.parts().get(i),
                        from + i));
        }
        return sources;
    }

    private static SortedMap<String, Shape> shapes(SortedMap<String, Source> sources) {
        SortedMap<String, Shape> shapes = new TreeMap<>();
        sources.forEach((name, source) -> shapes.put(name,
                new Shape(source.part.rows(), source.part.columns())));
        return shapes;
    }

    private void write(OutputStream out, List<String> wanted, Map<String, String> metadata, Check check,
            StagingBuffer staging) throws IOException {
        SortedMap<String, Source> sources = sources(wanted);
        out.write(SafetensorsWriter.header(shapes(sources), metadata));
        for (var source : sources.entrySet())
            write(out, source.getKey(), source.getValue(), check, staging);
    }

    private void write(OutputStream out, String name, Source source, Check check, StagingBuffer staging)
            throws IOException {
        Part part = source.part;
        int step = FactorLayout.rowsAtOnce(part);
        for (int row = 0; row < part.rows(); row += step) {
            int rows = Math.min(step, part.rows() - row);
            int elements = rows * part.columns();
            float[] transposed = staging.deviceLayout(elements);
            tensors.read(source.tensor, 0, part.columns(), row, rows, transposed, 0);
            float[] values = staging.fileLayout(elements);
            FactorLayout.transpose(transposed, values, part.columns(), rows);
            check.check(name, row, part.columns(), values, elements);
            SafetensorsWriter.write(out, values, elements, staging);
        }
    }

    /// Frees the copy. Any thread; more than once is allowed.
    @Override public void close() {
        tensors.close();
    }
}
