package bios.coordinator.simulation;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.model.LoraSpec;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunConfig;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// The computation of an engine as a pure function: the "weights" are a hash of all executed operations, so
/// that an extra, missing or reordered operation changes every later result.
final class ModelEngine {
    /// The settings of an operation that fails because of a user error, of one that needs more memory than
    /// the device has, and of one that ends its process.
    static final String FAIL = "fail";
    static final String TOO_LARGE = "too_large";
    static final String KILL = "kill";
    /// The setting of an operation that the gateway refused; it is never executed.
    static final String REFUSED = "refused";

    /// The exact state of a run.
    record State(String weights, String moments, String gradient, long step, LoraSpec lora) {
        static State fresh(LoraSpec lora) {
            return new State(hash("new", "" + lora.seed(), "" + lora.rank()), "", "", 0, lora);
        }

        /// The state without the gradient sum.
        State withoutGradient() {
            return new State(weights, moments, "", step, lora);
        }

        /// The content of a recovery point.
        String text() {
            return String.join(",", weights, moments, gradient, "" + step);
        }

        static State read(String text, LoraSpec lora) {
            String[] parts = text.split(",", -1);
            return new State(parts[0], parts[1], parts[2], Long.parseLong(parts[3]), lora);
        }

        /// The content of the optimizer part of a checkpoint.
        String optimizer() {
            return moments + "," + step;
        }
    }

    /// The content of a checkpoint.
    record Loaded(CheckpointManifest manifest, String weights, Optional<String> optimizer) {}

    /// The state after an operation, and its result or fault; a save has neither.
    record Done(State state, Optional<OperationResult> result, Optional<Fault> fault) {}

    private ModelEngine() {}

    /// @param digest SHA-256 of the encoded operation
    /// @param loaded the loaded checkpoint, for a load
    static Done execute(State s, Operation operation, String digest, Optional<Loaded> loaded) {
        return switch (operation) {
            case Operation.ForwardBackward f when f.settings().containsKey(FAIL) ->
                    failed(s, Fault.user("bad_data", "asked to fail: " + digest));
            case Operation.ForwardBackward f when f.settings().containsKey(TOO_LARGE) ->
                    failed(s, Fault.server("out_of_memory", "asked for too much: " + digest));
            case Operation.ForwardBackward f -> {
                String sum = hash(s.weights(), s.gradient(), digest);
                var result = new OperationResult.Evaluated(List.of(),
                        Map.of("loss:sum", (double) sum.hashCode()));
                yield f.forwardOnly() ? done(s, result)
                        : done(new State(s.weights(), s.moments(), sum, s.step(), s.lora()), result);
            }
            case Operation.OptimStep _ -> {
                if (s.gradient().isEmpty())
                    yield failed(s, Fault.user("no_gradient", "nothing to apply"));
                String moments = hash(s.moments(), s.gradient(), digest);
                String weights = hash(s.weights(), moments, digest);
                yield done(new State(weights, moments, "", s.step() + 1, s.lora()),
                        new OperationResult.Stepped(s.step() + 1,
                                Map.of("grad_norm", (double) weights.hashCode())));
            }
            case Operation.LoadState(var path, var optimizer) -> {
                Loaded from = loaded.orElseThrow();
                String[] parts = from.optimizer().orElse(",0").split(",", -1);
                State next = optimizer
                        ? new State(from.weights(), parts[0], "", Long.parseLong(parts[1]),
                                from.manifest().lora())
                        : new State(from.weights(), "", "", s.step(), from.manifest().lora());
                yield done(next, new OperationResult.Loaded(path.biosUri(), next.step()));
            }
            case Operation.LoadUpload upload -> throw new IllegalStateException("not simulated: " + upload);
            case Operation.SaveState _, Operation.SaveSamplerWeights _ ->
                    new Done(s, Optional.empty(), Optional.empty());
        };
    }

    private static Done done(State state, OperationResult result) {
        return new Done(state, Optional.of(result), Optional.empty());
    }

    private static Done failed(State state, Fault why) {
        return new Done(state, Optional.empty(), Optional.of(why));
    }

    static CheckpointManifest manifest(RunConfig config, State s, Operation operation, BlobRef adapter,
            Optional<BlobRef> optimizer, long acceptedAtMillis) {
        var kind = operation instanceof Operation.SaveState
                ? CheckpointKind.TRAINING : CheckpointKind.SAMPLER;
        Optional<CheckpointName> name = operation instanceof Operation.SaveState save
                ? Optional.of(save.name()) : ((Operation.SaveSamplerWeights) operation).name();
        Optional<Long> ttl = operation instanceof Operation.SaveState save
                ? save.ttlSeconds() : ((Operation.SaveSamplerWeights) operation).ttlSeconds();
        return new CheckpointManifest(config.run(), kind, name, config.baseModel(), s.lora(),
                adapter.id().sha256(), adapter, optimizer, s.step(), AdamParams.DEFAULT, "adamw", "{}",
                config.parent(), acceptedAtMillis, ttl.map(t -> acceptedAtMillis + 1000 * t));
    }

    /// FNV-1a with 64 bits and a final mix, in hex.
    static String hash(String... parts) {
        long h = 0xcbf29ce484222325L;
        for (String part : parts) {
            for (int i = 0; i < part.length(); i++) h = (h ^ part.charAt(i)) * 0x100000001b3L;
            h = (h ^ 0xff) * 0x100000001b3L;
        }
        h ^= h >>> 32;
        h *= 0xd6e8feb86659fd93L;
        h ^= h >>> 32;
        return Long.toHexString(h);
    }
}
