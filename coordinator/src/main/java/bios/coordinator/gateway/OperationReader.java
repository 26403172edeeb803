package bios.coordinator.gateway;

import bios.protocol.Invalid;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.TargetModule;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.TensorData;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.LongConsumer;

/// Parses operations of runs: batches, optimizer parameters, adapter shapes.
final class OperationReader {
    /// An input that every loss but dro takes here and none has: it is applied to the weights.
    private static final String MASK = "mask";
    private final GatewaySettings settings;

    OperationReader(GatewaySettings settings) {
        this.settings = settings;
    }

    /// `{"data": [Datum], "loss_fn", "loss_fn_config"?}`.
    ///
    /// @param heap is told the bytes that sparse tensors take as dense ones
    Operation.ForwardBackward batch(Fields input, ModelInfo model, boolean forwardOnly, LongConsumer heap) {
        String name = input.string("loss_fn");
        LossFunction loss = Fields.reportAt(input.at("loss_fn"), () -> LossFunction.of(name));
        Map<String, Double> given = new HashMap<>();
        input.optionalObject("loss_fn_config").ifPresent(config -> {
            for (String key : config.names())
                given.put(key, Fields.number(config.at(key), config.required(key)));
        });
        Map<String, Double> lossSettings = Fields.reportBelow(input.at(), () -> loss.settings(given));
        List<Json> items = input.array("data");
        FieldPath data = input.at("data");
        if (items.isEmpty()) throw data.invalid("is empty; at least one sequence is needed");
        if (items.size() > settings.maxDatums())
            throw data.invalid("has " + items.size() + " sequences; at most " + settings.maxDatums()
                    + " in one request");
        input.requireAllRead();
        var batch = new ArrayList<Datum>(items.size());
        long tokens = 0;
        for (Json item : items) {
            Datum datum = datum(data.item(batch.size()), item, loss, lossSettings, model, heap);
            tokens += datum.tokens().length;
            if (tokens > settings.maxTokensPerRequest())
                throw data.invalid("has more than " + settings.maxTokensPerRequest()
                        + " tokens; send it in several requests");
            batch.add(datum);
        }
        return new Operation.ForwardBackward(batch, loss, lossSettings, forwardOnly);
    }

    private Datum datum(FieldPath at, Json json, LossFunction loss, Map<String, Double> lossSettings,
            ModelInfo model, LongConsumer heap) {
        Fields fields = Fields.of(at, json);
        int[] tokens = ModelInputReader.read(fields.at("model_input"), fields.required("model_input"), model);
        Fields inputs = fields.object("loss_fn_inputs");
        Map<String, TensorData> tensors = new HashMap<>();
        for (String name : Set.copyOf(inputs.names())) {
            boolean mask = name.equals(MASK) && loss != LossFunction.DRO;
            if (!mask && !loss.required().contains(name) && !loss.optional().contains(name))
                throw inputs.at(name).invalid("is not an input of " + loss.wireName());
            tensors.put(name, TensorReader.read(inputs.at(name), inputs.required(name), heap));
        }
        fields.requireAllRead();
        Optional.ofNullable(tensors.remove(MASK))
                .ifPresent(mask -> applyMask(inputs.at(MASK), mask, loss, tokens.length, tensors));
        var datum = new Datum(tokens, tensors);
        loss.check(at.toString(), datum, lossSettings);
        FieldPath targets = inputs.at("target_tokens");
        long[] ids = tensors.get("target_tokens").longs();
        for (int i = 0; i < ids.length; i++) ModelInputReader.checkToken(targets, i, ids[i], model);
        return datum;
    }

    /// Positions where `mask` is 0 add nothing to the loss: their weights or their advantage become 0. A mask
    /// of the shape of `target_tokens` decides for each target.
    private static void applyMask(FieldPath at, TensorData mask, LossFunction loss, int positions,
            Map<String, TensorData> tensors) {
        TensorData targets = tensors.get("target_tokens");
        if (targets == null || targets.elements() == 0 || targets.elements() % positions != 0)
            return; // reported by the check of the loss
        boolean rows = mask.shape().length == 1 && mask.elements() == positions;
        if (!rows && !Arrays.equals(mask.shape(), targets.shape()))
            throw at.invalid("has shape " + Arrays.toString(mask.shape()) + "; expected [" + positions
                    + "], the length of model_input");
        String name = loss == LossFunction.CROSS_ENTROPY ? "weights" : "advantages";
        TensorData masked = tensors.get(name);
        if (masked == null && loss != LossFunction.CROSS_ENTROPY
                || masked != null && masked.elements() != targets.elements())
            return; // reported by the check of the loss
        float[] kept = mask.floats();
        float[] values = masked == null ? new float[targets.elements()] : masked.floats();
        if (masked == null) Arrays.fill(values, 1);
        int each = values.length / kept.length;
        for (int i = 0; i < kept.length; i++) {
            if (kept[i] != 0 && kept[i] != 1) throw at.item(i).invalid(kept[i] + " is neither 0 nor 1");
            if (kept[i] == 0) Arrays.fill(values, i * each, (i + 1) * each, 0);
        }
        int[] shape = masked == null ? targets.shape() : masked.shape();
        tensors.put(name, new TensorData(TensorData.DType.FLOAT32, shape, TensorData.of(values).data()));
    }

    /// AdamParams; absent fields have their defaults.
    AdamParams adam(Fields fields) {
        AdamParams d = AdamParams.DEFAULT;
        var params = new AdamParams(fields.number("learning_rate", d.learningRate()),
                fields.number("beta1", d.beta1()), fields.number("beta2", d.beta2()),
                fields.number("eps", d.eps()), fields.number("weight_decay", d.weightDecay()),
                fields.number("grad_clip_norm", d.gradClipNorm()));
        fields.requireAllRead();
        return params;
    }

    /// LoraConfig.
    ///
    /// @param derivedSeed the seed if none is given
    LoraSpec lora(Optional<Fields> given, long derivedSeed) {
        if (given.isEmpty()) return new LoraSpec(32, 32, derivedSeed, List.copyOf(LoraSpec.ALL_LINEAR));
        Fields fields = given.get();
        long rank = fields.optionalInteger("rank", 1, LoraSpec.MAX_RANK).orElse(32L);
        double alpha = fields.number("alpha", 32);
        long seed = fields.optionalBits("seed").orElse(derivedSeed);
        boolean attention = fields.bool("train_attn", true);
        boolean mlp = fields.bool("train_mlp", true);
        boolean head = fields.bool("train_unembed", false);
        List<TargetModule> targets = fields.optionalStrings("target_modules")
                .map(names -> targetsOfNames(fields.at("target_modules"), names))
                .orElseGet(() -> targetsOfFlags(attention, mlp, head));
        fields.requireAllRead();
        if (targets.isEmpty())
            throw fields.at().invalid(
                    "trains nothing: train_attn, train_mlp and train_unembed are all false");
        var lora = new LoraSpec((int) rank, alpha, seed, targets);
        if (!lora.scales()) throw fields.at("alpha").invalid(alpha + LoraSpec.NO_SCALE);
        return lora;
    }

    private static List<TargetModule> targetsOfFlags(boolean attention, boolean mlp, boolean head) {
        var targets = EnumSet.noneOf(TargetModule.class);
        if (attention) targets.addAll(EnumSet.range(TargetModule.Q, TargetModule.O));
        if (mlp) targets.addAll(EnumSet.range(TargetModule.GATE, TargetModule.DOWN));
        if (head) targets.add(TargetModule.HEAD);
        return List.copyOf(targets);
    }

    private static List<TargetModule> targetsOfNames(FieldPath at, List<String> names) {
        if (names.isEmpty()) throw at.invalid("is empty; name at least one layer");
        var targets = EnumSet.noneOf(TargetModule.class);
        for (int i = 0; i < names.size(); i++)
            if (!targets.add(target(at.item(i), names.get(i))))
                throw at.item(i).invalid("names " + names.get(i) + " again");
        return List.copyOf(targets);
    }

    private static TargetModule target(FieldPath at, String name) {
        var known = new ArrayList<String>();
        for (TargetModule module : TargetModule.values()) {
            if (module.peftName().equals(name)) return module;
            known.add(module.peftName());
        }
        throw new Invalid(at.toString(),
                "'" + name + "' is no layer that can be trained; expected some of " + known);
    }
}
