package bios.coordinator.gateway;

import bios.persistence.blob.BlobStore;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleResult.StopReason;
import bios.protocol.stored.StoredOperations;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.javadsl.Behaviors;

/// An engine that computes nothing and succeeds at every operation but passes that begin with one token; the
/// norm of a step's gradient is the number of operations whose gradients it applies.
final class ScriptedEngine {
    /// A pass fails whose first token is this one.
    static final int FAILING = 99;
    /// The worker has no memory for the first attempt at a pass whose first token is this one.
    static final int TOO_LARGE = 98;
    /// An upload of this name is not loaded.
    static final String REFUSED_UPLOAD = "refused";

    private final BlobStore blobs;
    private final Map<RunId, RunConfig> runs = new HashMap<>();
    private final Map<RunId, Integer> summed = new HashMap<>();
    private final Set<Long> attempted = new HashSet<>();

    private ScriptedEngine(BlobStore blobs) {
        this.blobs = blobs;
    }

    static Behavior<EngineCommand> create(BlobStore blobs) {
        return Behaviors.setup(_ -> {
            var engine = new ScriptedEngine(blobs);
            return Behaviors.receiveMessage(command -> {
                engine.on(command);
                return Behaviors.same();
            });
        });
    }

    private void on(EngineCommand command) {
        switch (command) {
            case EngineCommand.OpenRun(var config, _, _, var replyTo, _) -> {
                runs.put(config.run(), config);
                replyTo.tell(new EngineEvent.Opened(config.run()));
            }
            case EngineCommand.Execute c -> {
                c.replyTo().tell(new EngineEvent.Measured(c.run(), c.position(), 1));
                if (begins(c, TOO_LARGE) && attempted.add(c.position())) c.replyTo().tell(
                        new EngineEvent.Failed(c.run(), c.position(),
                                Fault.server("out_of_memory", "no room")));
                else c.replyTo().tell(fails(c)
                        ? new EngineEvent.Failed(c.run(), c.position(),
                                Fault.user("non_finite", "a scripted failure"))
                        : new EngineEvent.Executed(c.run(), c.position(), execute(c)));
            }
            case EngineCommand.TakeRecoveryPoint(var run, var position, var replyTo) ->
                replyTo.tell(new EngineEvent.RecoveryPointWritten(run, position,
                        put(BlobScope.recovery(run, 0), "state"), 0, runs.get(run).lora()));
            case EngineCommand.CloseRun(var run) -> runs.remove(run);
            case EngineCommand.Sample(var task, var replyTo) ->
                    replyTo.tell(new EngineReply.Sampled(task.id(), new SampleResult(Collections.nCopies(
                            task.numSamples(), new SampleResult.Sequence(new int[] {5}, new float[] {-1},
                                    StopReason.LENGTH)), task.promptLogprobs()
                            ? Optional.of(new float[task.prompt().length]) : Optional.empty(),
                            Optional.empty())));
            case EngineCommand.Tokenize(_, _, _, var replyTo) ->
                replyTo.tell(new EngineReply.Tokenized(new int[] {1}));
            case EngineCommand.Detokenize(_, _, _, var replyTo) ->
                replyTo.tell(new EngineReply.Detokenized("text"));
            case EngineCommand.FetchTokenizerFiles(_, var replyTo) ->
                replyTo.tell(new EngineReply.TokenizerFiles(Map.of("chat_template.jinja",
                        "{{ messages[0].content }}".getBytes(StandardCharsets.UTF_8))));
            case EngineCommand.DetokenizeNext(_, _, var next, _, var replyTo) ->
                replyTo.tell(new EngineReply.DetokenizedNext(
                        Arrays.stream(next).mapToObj(_ -> "t").toList()));
            case EngineCommand.DetokenizeEach(_, var tokens, var replyTo) ->
                replyTo.tell(new EngineReply.DetokenizedEach(
                        Arrays.stream(tokens).mapToObj(_ -> "t").toList()));
            case EngineCommand.AlignText(_, var text, var replyTo) ->
                replyTo.tell(new EngineReply.Aligned(new int[] {1}, text, new int[] {text.length()}));
            case EngineCommand.AlignTokens(_, var tokens, var replyTo) ->
                replyTo.tell(new EngineReply.Aligned(tokens, "", new int[tokens.length]));
            case EngineCommand.Describe _, EngineCommand.Drain _, EngineCommand.FollowSample _,
                    EngineCommand.CancelSample _ -> { }
        }
    }

    private BlobRef put(String scope, String content) {
        return blobs.put(scope, content.getBytes(StandardCharsets.UTF_8));
    }

    private Operation operation(EngineCommand.Execute c) {
        byte[] encoded = switch (c.operation()) {
            case StoredOperation.Inline(_, var bytes) -> bytes;
            case StoredOperation.InBlob(_, var blob) -> blobs.readSmall(blob, 1 << 30);
            case StoredOperation.Refused refused ->
                    throw new IllegalStateException("never executed: " + refused);
        };
        return StoredOperations.decode(c.operation().kind(), encoded);
    }

    /// Whether it is a pass whose first token is this one.
    private boolean begins(EngineCommand.Execute c, int token) {
        return !(c.operation() instanceof StoredOperation.Refused)
                && operation(c) instanceof Operation.ForwardBackward f
                && f.data().getFirst().tokens()[0] == token;
    }

    private boolean fails(EngineCommand.Execute c) {
        if (c.operation() instanceof StoredOperation.Refused) return false;
        return switch (operation(c)) {
            case Operation.ForwardBackward _ -> begins(c, FAILING);
            case Operation.LoadUpload(var name, _, _) -> name.toString().equals(REFUSED_UPLOAD);
            default -> false;
        };
    }

    private OperationResult execute(EngineCommand.Execute c) {
        if (c.operation() instanceof StoredOperation.Refused(var kind, _)
                && kind == OperationKind.OPTIM_STEP) {
            summed.remove(c.run());
            return new OperationResult.Stepped(0, Map.of());
        }
        return switch (operation(c)) {
            case Operation.ForwardBackward f -> {
                if (!f.forwardOnly()) summed.merge(c.run(), 1, Integer::sum);
                yield new OperationResult.Evaluated(
                        f.data().stream().map(datum -> new float[datum.tokens().length]).toList(),
                        Map.of("loss:sum", 1.0, "tokens:sum", 1.0, "weights:sum", 1.0));
            }
            case Operation.OptimStep _ -> new OperationResult.Stepped(1,
                    Map.of("grad_norm", (double) Optional.ofNullable(summed.remove(c.run())).orElse(0)));
            case Operation.SaveState(var name, var metadata, var ttl) ->
                saved(c, CheckpointKind.TRAINING, Optional.of(name), metadata, ttl);
            case Operation.SaveSamplerWeights(var name, var ttl, _) ->
                saved(c, CheckpointKind.SAMPLER, name, "{}", ttl);
            case Operation.LoadState(var path, _) -> new OperationResult.Loaded(path.biosUri(), 0);
            case Operation.LoadUpload(_, var adapter, _) -> {
                blobs.readSmall(adapter, 1 << 30);
                yield new OperationResult.Loaded("bios://" + c.run() + "/sampler_weights/upload", 0);
            }
        };
    }

    private OperationResult saved(EngineCommand.Execute c, CheckpointKind kind, Optional<CheckpointName> name,
            String metadata, Optional<Long> ttl) {
        RunConfig config = runs.get(c.run());
        BlobRef adapter = put(BlobScope.checkpoints(c.run(), 0), "adapter of " + c.run());
        Optional<BlobRef> optimizer = kind == CheckpointKind.SAMPLER ? Optional.empty()
                : Optional.of(put(BlobScope.checkpoints(c.run(), 0), "optimizer of " + c.run()));
        return new OperationResult.Saved(new CheckpointManifest(c.run(), kind, name, config.baseModel(),
                config.lora(), adapter.id().sha256(), adapter, optimizer, 0, AdamParams.DEFAULT, "adamw",
                metadata, config.parent(), c.acceptedAtMillis(), ttl.map(seconds ->
                        c.acceptedAtMillis() + 1000 * seconds)));
    }
}
