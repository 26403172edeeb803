package bios.protocol.stored;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.model.TargetModule;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.TensorData;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// One value of each shape, with no field left at its default.
public final class Samples {
    public static final RunId RUN = new RunId("usf-finance-9f2c4be01a77");
    public static final LoraSpec LORA = new LoraSpec(16, 32, 7, List.of(TargetModule.Q, TargetModule.DOWN));
    public static final AdamParams ADAM = new AdamParams(2e-4, 0.8, 0.99, 1e-8, 0.01, 1);
    public static final BlobRef BLOB =
            new BlobRef(new BlobId("runs/usf-finance-9f2c4be01a77/checkpoints", "ab".repeat(32)), 12345);
    public static final RunConfig CONFIG = new RunConfig(RUN, "owner", new ModelName("ultrasafe/usf-finance"),
            LORA, true, Optional.of("bios://usf-finance-000000000000/start"), "{\"a\":1}", "session-1",
            1_700_000_000_000L);
    public static final CheckpointManifest MANIFEST = new CheckpointManifest(RUN, CheckpointKind.TRAINING,
            Optional.of(new CheckpointName("epoch-1")), CONFIG.baseModel(), LORA, "cd".repeat(32), BLOB,
            Optional.of(new BlobRef(BLOB.id(), 99)), 12, ADAM, "adamw", "{}", Optional.empty(),
            1_700_000_000_001L, Optional.of(5L));

    private Samples() {}

    /// Operations of every kind.
    public static Map<String, Operation> operations() {
        var all = new LinkedHashMap<String, Operation>();
        var datum = new Datum(new int[] {1, 2, 151_935}, Map.of("weights", TensorData.of(0f, 1f,
                Float.MIN_VALUE), "target_tokens", TensorData.of(2L, 151_935L, -100L)));
        all.put("forward",
                new Operation.ForwardBackward(List.of(datum), LossFunction.CROSS_ENTROPY, Map.of(), true));
        all.put("forward-backward", new Operation.ForwardBackward(List.of(datum, datum), LossFunction.PPO,
                Map.of("clip_low_threshold", 0.7, "clip_high_threshold", 1.3), false));
        all.put("optim-step", new Operation.OptimStep(Optional.of(ADAM)));
        all.put("optim-step-current", new Operation.OptimStep(Optional.empty()));
        all.put("save-state",
                new Operation.SaveState(new CheckpointName("a"), "{\"k\":[1]}", Optional.of(60L)));
        all.put("save-sampler", new Operation.SaveSamplerWeights(Optional.of(new CheckpointName("b")),
                Optional.empty(), Optional.empty()));
        all.put("snapshot", new Operation.SaveSamplerWeights(Optional.empty(), Optional.empty(),
                Optional.of("session-1")));
        all.put("load-state",
                new Operation.LoadState(CheckpointPath.parse("bios://usf-finance-9f2c4be01a77/a"), true));
        all.put("load-state-sampler", new Operation.LoadState(
                CheckpointPath.parse("bios://usf-finance-9f2c4be01a77/sampler_weights/a"), false));
        all.put("load-upload", new Operation.LoadUpload(new CheckpointName("mine"), new BlobRef(new BlobId(
                "runs/usf-finance-9f2c4be01a77/operations/1/1700000000000.r", "0f".repeat(32)), 1L << 33),
                new LoraSpec(8, 16, 0, List.of(TargetModule.Q, TargetModule.HEAD))));
        return all;
    }

    /// Results of every kind, without `logprobs` (arrays have no equality).
    public static List<OperationResult> results() {
        return List.of(new OperationResult.Evaluated(List.of(), Map.of("loss:sum", 1.5)),
                new OperationResult.Stepped(3, Map.of("grad_norm", 0.1)), new OperationResult.Saved(MANIFEST),
                new OperationResult.Loaded("bios://usf-finance-9f2c4be01a77/a", 12),
                new OperationResult.EvaluatedMatrix(new OperationResult.Evaluated(List.of(),
                        Map.of("loss:sum", 1.5)), List.of(3, 0)));
    }
}
