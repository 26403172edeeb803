package bios.protocol.engine;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import bios.protocol.model.UnservedModel;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import bios.protocol.sampling.DrawnTokens;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import bios.protocol.wire.Message;
import bios.protocol.wire.Reply;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.receptionist.ServiceKey;

/// Commands to an engine, the actor that owns a device. Operations of one run are executed strictly in the
/// order in which they arrive; each is answered with exactly one [EngineEvent], and before
/// [EngineEvent.Executed] with its [EngineEvent.Measured].
public sealed interface EngineCommand extends Message {
    /// The key under which the receptionist lists the engines that serve the model with this slug.
    static ServiceKey<EngineCommand> key(String slug) {
        return ServiceKey.create(EngineCommand.class, "engine-" + slug);
    }

    /// The key under which the receptionist lists all engines.
    ServiceKey<EngineCommand> ANY = ServiceKey.create(EngineCommand.class, "engine");

    /// The code of [EngineEvent.Failed] when the run is not open in the engine (the engine was restarted, or
    /// the run was closed): the entity opens the run again and replays the lost operations.
    String RUN_NOT_OPEN = "run_not_open";

    /// The code of [EngineEvent.Failed] when the blob store failed: the same operation may succeed later. If
    /// only the read of an operation failed, the entity sends it again.
    String STORE_FAILED = "store_failed";

    /// The code of [EngineEvent.OpenFailed] when the base model of that name has other weights or another
    /// configuration than the run was created on.
    String BASE_MODEL_CHANGED = "base_model_changed";

    /// Creates a run's state: a new adapter of shape `lora` (B = 0, A from its seed), or the exact state of a
    /// recovery point. Replaces the state of an open run. Waits while the states of other runs take all
    /// memory. Reply: [EngineEvent.Opened] or [EngineEvent.OpenFailed]; later [EngineEvent.EvictionRequested]
    /// may follow.
    ///
    /// @param incarnation of the entity that opens the run, see [bios.protocol.checkpoint.BlobScope]: a part
    ///     of the names of the blobs that the engine writes
    record OpenRun(RunConfig config, LoraSpec lora, Optional<BlobRef> recoveryPoint,
            ActorRef<EngineEvent> replyTo, long incarnation) implements EngineCommand {}

    /// Executes one accepted operation.
    ///
    /// @param position its position among the operations of the run, from 1
    /// @param loaded the resolved checkpoint, for `LoadState`
    /// @param acceptedAtMillis the time that a save records, epoch milliseconds
    /// @param alone whether the device executes nothing else with it, because a worker ended during it before
    record Execute(RunId run, long position, StoredOperation operation, Optional<CheckpointManifest> loaded,
            long acceptedAtMillis, boolean alone, ActorRef<EngineEvent> replyTo) implements EngineCommand {
        /// An operation that may be executed together with those of other runs.
        public Execute(RunId run, long position, StoredOperation operation,
                Optional<CheckpointManifest> loaded, long acceptedAtMillis, ActorRef<EngineEvent> replyTo) {
            this(run, position, operation, loaded, acceptedAtMillis, false, replyTo);
        }
    }

    /// Copies the run's exact state after `position` (all operations up to it executed) and writes it to the
    /// blob store in the background. Reply: [EngineEvent.RecoveryPointWritten] or
    /// [EngineEvent.RecoveryPointFailed].
    record TakeRecoveryPoint(RunId run, long position, ActorRef<EngineEvent> replyTo)
            implements EngineCommand {}

    /// Discards the run's state. No reply.
    record CloseRun(RunId run) implements EngineCommand {}

    /// Samples tokens. Reply: [EngineReply.Sampled] or [EngineReply.RequestFailed].
    record Sample(SampleTask task, ActorRef<EngineReply> replyTo) implements EngineCommand {}

    /// Asks for what an unfinished sampling request has drawn beyond `received`. Reply: [EngineReply.Drawn],
    /// as soon as there is more; none when the request ends or is not here. A later `FollowSample` of the
    /// same request replaces an earlier one.
    ///
    /// @param task id of the request
    /// @param received for each sequence how many tokens are known already
    record FollowSample(String task, int[] received, ActorRef<EngineReply> replyTo)
            implements EngineCommand {}

    /// Cancels a sampling request: it fails with `cancelled`. No reply.
    ///
    /// @param task id of the request
    record CancelSample(String task) implements EngineCommand {}

    /// Asks which models it serves and how busy it is. Reply: [EngineReply.Description].
    record Describe(ActorRef<EngineReply> replyTo) implements EngineCommand {}

    /// Converts text to token ids with the model's tokenizer. Reply: [EngineReply.Tokenized].
    record Tokenize(ModelName model, String text, boolean addSpecialTokens, ActorRef<EngineReply> replyTo)
            implements EngineCommand {}

    /// Converts token ids to text. Reply: [EngineReply.Detokenized].
    record Detokenize(ModelName model, int[] tokens, boolean skipSpecialTokens, ActorRef<EngineReply> replyTo)
            implements EngineCommand {}

    /// Converts the tokens of a growing sequence to text, each to the characters that it completes, without
    /// special tokens. Reply: [EngineReply.DetokenizedNext].
    ///
    /// @param known the last tokens before `next`
    /// @param last whether the sequence ends: what is left of an incomplete character is text then
    record DetokenizeNext(ModelName model, int[] known, int[] next, boolean last,
            ActorRef<EngineReply> replyTo) implements EngineCommand {}

    /// Converts each token id on its own to text, special tokens too. Reply: [EngineReply.DetokenizedEach].
    record DetokenizeEach(ModelName model, int[] tokens, ActorRef<EngineReply> replyTo)
            implements EngineCommand {}

    /// Converts a prompt to token ids, with the model's special tokens, and finds the part of each in it.
    /// Reply: [EngineReply.Aligned].
    record AlignText(ModelName model, String text, ActorRef<EngineReply> replyTo) implements EngineCommand {}

    /// Converts the token ids of a prompt to text, special tokens too, and finds the part of each in it.
    /// Reply: [EngineReply.Aligned].
    record AlignTokens(ModelName model, int[] tokens, ActorRef<EngineReply> replyTo)
            implements EngineCommand {}

    /// Reads the tokenizer's files, for archives. Reply: [EngineReply.TokenizerFiles].
    record FetchTokenizerFiles(ModelName model, ActorRef<EngineReply> replyTo) implements EngineCommand {}

    /// Drains the sample queue: the engine is no longer listed, and finishes the requests that it has. No
    /// reply.
    record Drain() implements EngineCommand {}

    /// Messages of an engine to the entity of a run.
    sealed interface EngineEvent extends Message {
        RunId run();

        /// The run's state is ready.
        record Opened(RunId run) implements EngineEvent {}

        /// The run's state could not be created.
        record OpenFailed(RunId run, Fault fault) implements EngineEvent {}

        /// An operation was executed. For saves the blobs are durable.
        record Executed(RunId run, long position, OperationResult result) implements EngineEvent {}

        /// The device time of an operation, whose result follows.
        record Measured(RunId run, long position, long nanos) implements EngineEvent {}

        /// An operation failed and changed nothing.
        record Failed(RunId run, long position, Fault fault) implements EngineEvent {}

        /// The state after `position` is durable.
        ///
        /// @param step optimizer steps applied in it
        /// @param lora the adapter's shape in it
        record RecoveryPointWritten(RunId run, long position, BlobRef state, long step, LoraSpec lora)
                implements EngineEvent {}

        /// A weight or moment of the state after `position` is infinite or NaN. Its recovery point is written
        /// all the same, with what a replay would give.
        record StateNotFinite(RunId run, long position, Fault fault) implements EngineEvent {}

        /// Other runs need the run's memory: the entity makes the state durable, sends [CloseRun], and opens
        /// the run again when it has something to do.
        record EvictionRequested(RunId run) implements EngineEvent {}

        /// The state after `position` could not be written; training continues.
        record RecoveryPointFailed(RunId run, long position, Fault fault) implements EngineEvent {}
    }

    /// Replies of an engine.
    sealed interface EngineReply extends Reply {
        /// @param task id of the request
        record Sampled(String task, SampleResult result) implements EngineReply {}

        /// @param queuedSequences sequences waiting or decoding
        /// @param openRuns runs whose state is in memory
        /// @param unserved models that the engine was given and does not serve
        record Description(List<ModelInfo> models, int queuedSequences, int openRuns,
                List<UnservedModel> unserved) implements EngineReply {}

        record Tokenized(int[] tokens) implements EngineReply {}

        record Detokenized(String text) implements EngineReply {}

        /// What a followed request has drawn beyond what is known; bounded, there may be more.
        ///
        /// @param task id of the request
        /// @param sequences one of each sequence
        record Drawn(String task, List<DrawnTokens> sequences) implements EngineReply {}

        /// @param texts of each token up to the last one that completes a character: those after it wait for
        ///     the rest of their character
        record DetokenizedNext(List<String> texts) implements EngineReply {}

        /// @param texts of each token, as it stands inside a text; U+FFFD stands for bytes that are no whole
        ///     character
        record DetokenizedEach(List<String> texts) implements EngineReply {}

        /// A prompt's tokens, its text, and where the part of each token ends in that: it begins where the
        /// part of the token before ends. Tokens that the tokenizer adds have an empty part.
        record Aligned(int[] tokens, String text, int[] ends) implements EngineReply {}

        /// @param files content by name, e.g. `tokenizer.json`
        record TokenizerFiles(Map<String, byte[]> files) implements EngineReply {}

        /// The request failed.
        record RequestFailed(Fault fault) implements EngineReply {}
    }
}
