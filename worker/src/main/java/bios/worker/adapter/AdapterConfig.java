package bios.worker.adapter;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.TargetModule;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.UncheckedIOException;
import java.util.TreeMap;

/// PEFT's `adapter_config.json`.
public final class AdapterConfig {
    private AdapterConfig() {}

    /// The file's text, keys sorted, ended by a newline: the same adapter gives the same bytes.
    ///
    /// @param reference where a loader outside Bios finds the base model
    public static String json(LoraSpec lora, String reference) {
        TreeMap<String, Object> fields = new TreeMap<>();
        fields.put("base_model_name_or_path", reference);
        fields.put("bias", "none");
        fields.put("fan_in_fan_out", false);
        fields.put("inference_mode", true);
        fields.put("init_lora_weights", true);
        fields.put("lora_alpha", whole(lora.alpha()));
        fields.put("lora_dropout", 0.0);
        fields.put("modules_to_save", null);
        fields.put("peft_type", "LORA");
        fields.put("r", lora.rank());
        fields.put("target_modules", lora.targets().stream().map(TargetModule::peftName).sorted().toList());
        fields.put("task_type", "CAUSAL_LM");
        fields.put("use_dora", false);
        fields.put("use_rslora", false);
        try {
            return new ObjectMapper().writerWithDefaultPrettyPrinter().writeValueAsString(fields) + "\n";
        } catch (JsonProcessingException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static Number whole(double alpha) {
        if (alpha == Math.rint(alpha) && alpha < 1e15) return (long) alpha;
        return alpha;
    }
}
