package bios.protocol.engine;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import bios.protocol.wire.Message;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.receptionist.ServiceKey;

/// What the actor that owns a device is asked. Operations of one run are executed strictly in the order in
/// which they arrive; each gets exactly one [EngineEvent], and before [EngineEvent.Executed] comes its
/// [EngineEvent.Measured].
public sealed interface EngineCommand extends Message {
    /// Where the receptionist lists the engines that hold the model with this slug.
    static ServiceKey<EngineCommand> key(String slug) {
        return ServiceKey.create(EngineCommand.class, "engine-" + slug);
    }

    /// Where the receptionist lists all engines.
    ServiceKey<EngineCommand> ANY = ServiceKey.create(EngineCommand.class, "engine");

    /// The code of [EngineEvent.Failed] by which an engine says that it does not hold the run (it was
    /// restarted, or the run was closed): the entity opens the run again and repeats what is lost.
    String RUN_NOT_OPEN = "run_not_open";

    /// The code of [EngineEvent.Failed] by which an engine says that the blob store did not do its work: the
    /// same operation may succeed later. The entity gives it again what only had to be read.
    String STORE_FAILED = "store_failed";

    /// Makes a run's state: a new adapter of shape `lora` (B = 0, A from its seed), or a recovery point's
    /// exact state. An open run is replaced. Waits while the states of other runs take all room. Answered
    /// by [EngineEvent.Opened] or [EngineEvent.OpenFailed]; any time later [EngineEvent.Crowded] may come.
    record OpenRun(RunConfig config, LoraSpec lora, Optional<BlobRef> recoveryPoint,
            ActorRef<EngineEvent> replyTo) implements EngineCommand {}

    /// Executes one accepted operation.
    ///
    /// @param position its place in the run's line, from 1
    /// @param loaded the resolved checkpoint, for `LoadState`
    /// @param acceptedAtMillis epoch milliseconds, the time that a save records
    record Execute(RunId run, long position, StoredOperation operation, Optional<CheckpointManifest> loaded,
            long acceptedAtMillis, ActorRef<EngineEvent> replyTo) implements EngineCommand {}

    /// Copies the run's exact state behind `position` (all earlier operations executed) and writes it to the
    /// blob store in the background. Answered by [EngineEvent.RecoveryPointWritten] or
    /// [EngineEvent.RecoveryPointFailed].
    record TakeRecoveryPoint(RunId run, long position, ActorRef<EngineEvent> replyTo)
            implements EngineCommand {}

    /// Forgets the run's state. Not answered.
    record CloseRun(RunId run) implements EngineCommand {}

    /// Draws tokens. Answered by [EngineReply.Sampled] or [EngineReply.NotDone].
    record Sample(SampleTask task, ActorRef<EngineReply> replyTo) implements EngineCommand {}

    /// Which models it holds and how busy it is. Answered by [EngineReply.Description].
    record Describe(ActorRef<EngineReply> replyTo) implements EngineCommand {}

    /// Text to token ids with the model's tokenizer. Answered by [EngineReply.Tokenized].
    record Tokenize(ModelName model, String text, boolean addSpecialTokens, ActorRef<EngineReply> replyTo)
            implements EngineCommand {}

    /// Token ids to text. Answered by [EngineReply.Detokenized].
    record Detokenize(ModelName model, int[] tokens, boolean skipSpecialTokens, ActorRef<EngineReply> replyTo)
            implements EngineCommand {}

    /// The tokenizer's files, for archives. Answered by [EngineReply.TokenizerFiles].
    record FetchTokenizerFiles(ModelName model, ActorRef<EngineReply> replyTo) implements EngineCommand {}

    /// Takes no new requests for samples: it is no longer listed, and finishes what it has. Not answered.
    record Retire() implements EngineCommand {}

    /// What an engine tells the entity of a run.
    sealed interface EngineEvent extends Message {
        RunId run();

        /// The run's state is there.
        record Opened(RunId run) implements EngineEvent {}

        /// The run's state could not be made.
        record OpenFailed(RunId run, Fault fault) implements EngineEvent {}

        /// An operation was executed. For saves the blobs are durable.
        record Executed(RunId run, long position, OperationResult result) implements EngineEvent {}

        /// How long the device worked for an operation whose result comes next.
        record Measured(RunId run, long position, long nanos) implements EngineEvent {}

        /// An operation failed and changed nothing.
        record Failed(RunId run, long position, Fault fault) implements EngineEvent {}

        /// The state behind `position` is durable.
        ///
        /// @param step optimizer steps applied in it
        /// @param lora the adapter's shape in it
        record RecoveryPointWritten(RunId run, long position, BlobRef state, long step, LoraSpec lora)
                implements EngineEvent {}

        /// Others want the run's room: the entity makes what is not yet durable durable, sends [CloseRun],
        /// and opens the run again when there is something to do.
        record Crowded(RunId run) implements EngineEvent {}

        /// The state behind `position` could not be written; training goes on.
        record RecoveryPointFailed(RunId run, long position, Fault fault) implements EngineEvent {}
    }

    /// What an engine answers to anyone.
    sealed interface EngineReply extends Message {
        /// @param task id of the request
        record Sampled(String task, SampleResult result) implements EngineReply {}

        /// @param queuedSequences sequences waiting or decoding
        /// @param openRuns runs whose state is held
        record Description(List<ModelInfo> models, int queuedSequences, int openRuns)
                implements EngineReply {}

        record Tokenized(int[] tokens) implements EngineReply {}

        record Detokenized(String text) implements EngineReply {}

        /// @param files content by name, e.g. `tokenizer.json`
        record TokenizerFiles(Map<String, byte[]> files) implements EngineReply {}

        /// The request failed.
        record NotDone(Fault fault) implements EngineReply {}
    }
}
