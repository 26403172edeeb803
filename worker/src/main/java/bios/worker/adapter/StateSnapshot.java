package bios.worker.adapter;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.TargetModule;
import bios.protocol.run.AdamParams;
import bios.worker.load.ModelRefused;
import bios.worker.load.SafetensorsWriter;
import bios.worker.load.SafetensorsWriter.Values;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.util.Arrays;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/// A [TrainingState] copied to the host at one moment. The same state gives the same bytes.
///
/// @param gradient the sum that no step has applied yet
public record StateSnapshot(Header header, HostFactors weights, HostFactors firstMoment,
        HostFactors secondMoment, Optional<HostFactors> gradient) {
    static final String FIRST_MOMENT = ".exp_avg";
    static final String SECOND_MOMENT = ".exp_avg_sq";
    static final String GRADIENT = ".grad";

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

    /// The adapter alone, as PEFT names it: a checkpoint's `adapter` blob.
    public byte[] adapter() {
        return Adapter.toSafetensors(weights);
    }

    /// The moments, `<tensor>.exp_avg` and `<tensor>.exp_avg_sq`: a checkpoint's `optimizer` blob.
    public byte[] optimizer() {
        TreeMap<String, Values> tensors = new TreeMap<>();
        firstMoment.addTo(tensors, FIRST_MOMENT);
        secondMoment.addTo(tensors, SECOND_MOMENT);
        return SafetensorsWriter.bytes(tensors, Map.of("optimizer", "adamw"));
    }

    /// Everything, the gradient sum (`<tensor>.grad`) included: a recovery point.
    public void writeTo(OutputStream out) throws IOException {
        TreeMap<String, Values> tensors = new TreeMap<>();
        weights.addTo(tensors, "");
        firstMoment.addTo(tensors, FIRST_MOMENT);
        secondMoment.addTo(tensors, SECOND_MOMENT);
        gradient.ifPresent(sum -> sum.addTo(tensors, GRADIENT));
        SafetensorsWriter.write(out, tensors, header.metadata());
    }

    /// The bytes that [#writeTo] writes, when they fit into an array.
    public byte[] toBytes() {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        try {
            writeTo(out);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return out.toByteArray();
    }
}
