package bios.protocol.wire;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.engine.EngineCommand;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import bios.protocol.model.TargetModule;
import bios.protocol.model.UnservedModel;
import bios.protocol.owner.OwnerCommand;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Datum;
import bios.protocol.run.DeathReport;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationMetrics;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RequestId;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.RunUsage;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.StoredOperation;
import bios.protocol.run.TensorData;
import bios.protocol.run.WaitingOperation;
import bios.protocol.run.OperationTiming;
import bios.protocol.sampling.DrawnTokens;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingCommand;
import bios.protocol.sampling.SamplingCommand.SamplingReply;
import bios.protocol.sampling.SamplingParams;
import bios.protocol.session.SessionCommand;

/// The ids of the protocol module's classes. A new class takes the next free id of its group; a change of a
/// class raises [WireSerializer#VERSION].
public final class ProtocolTypes implements WireTypes {
    /// Called by [WireSerializer], which finds the class in the settings.
    public ProtocolTypes() {}

    @Override public void registerTo(Registry registry) {
        model(registry);
        checkpoint(registry);
        partsOfARun(registry);
        operations(registry);
        runCommands(registry);
        runReplies(registry);
        engineCommands(registry);
        engineEvents(registry);
        engineReplies(registry);
        sampling(registry);
        sessionCommands(registry);
        sessionReplies(registry);
        largeReplies(registry);
        owners(registry);
    }

    private static void model(Registry registry) {
        registry.add(20, LoraSpec.class);
        registry.add(21, ModelInfo.class);
        registry.add(22, ModelName.class);
        registry.add(23, TargetModule.class);
        registry.add(24, UnservedModel.class);
    }

    private static void checkpoint(Registry registry) {
        registry.add(30, BlobId.class);
        registry.add(31, BlobRef.class);
        registry.add(32, CheckpointKind.class);
        registry.add(33, CheckpointManifest.class);
        registry.add(34, CheckpointName.class);
        registry.add(35, CheckpointPath.class);
    }

    private static void partsOfARun(Registry registry) {
        registry.add(40, Fault.class);
        registry.add(41, Fault.Kind.class);
        registry.add(42, AdamParams.class);
        registry.add(43, Datum.class);
        registry.add(44, LossFunction.class);
        registry.add(45, OperationKind.class);
        registry.add(46, RequestId.class);
        registry.add(47, RunConfig.class);
        registry.add(48, RunId.class);
        registry.add(49, StoredOperation.Inline.class);
        registry.add(50, StoredOperation.InBlob.class);
        registry.add(51, TensorData.class);
        registry.add(52, TensorData.DType.class);
        registry.add(53, OperationResult.Evaluated.class);
        registry.add(54, OperationResult.Stepped.class);
        registry.add(55, OperationResult.Saved.class);
        registry.add(56, OperationResult.Loaded.class);
        registry.add(57, OperationTiming.class);
        registry.add(58, HistoryEntry.class);
        registry.add(59, HistoryEntry.Kind.class);
        registry.add(38, StoredOperation.Refused.class);
        registry.add(36, RunUsage.class);
        registry.add(37, RunUsage.Hour.class);
        registry.add(39, OperationResult.EvaluatedMatrix.class);
        registry.add(65, WaitingOperation.class);
    }

    private static void operations(Registry registry) {
        registry.add(60, Operation.ForwardBackward.class);
        registry.add(61, Operation.OptimStep.class);
        registry.add(62, Operation.SaveState.class);
        registry.add(63, Operation.SaveSamplerWeights.class);
        registry.add(64, Operation.LoadState.class);
    }

    private static void runCommands(Registry registry) {
        registry.add(100, RunCommand.Create.class);
        registry.add(101, RunCommand.Submit.class);
        registry.add(102, RunCommand.Retrieve.class);
        registry.add(103, RunCommand.Describe.class);
        registry.add(104, RunCommand.Resolve.class);
        registry.add(106, RunCommand.DeleteCheckpoint.class);
        registry.add(107, RunCommand.SetExpiry.class);
        registry.add(108, RunCommand.ReleaseSnapshots.class);
        registry.add(109, RunCommand.Unload.class);
        registry.add(110, RunCommand.GetTimings.class);
        registry.add(111, RunCommand.GetHistory.class);
        registry.add(112, RunCommand.CheckOwner.class);
        registry.add(113, RunCommand.Retry.class);
        registry.add(114, RunCommand.GiveUp.class);
        registry.add(115, RunCommand.ReportDeath.class);
        registry.add(116, DeathReport.class);
        registry.add(119, RunCommand.Leave.class);
        registry.add(120, RunCommand.KeepWeights.class);
        registry.add(121, RunCommand.Publish.class);
        registry.add(122, RunCommand.SetProject.class);
        registry.add(123, RunCommand.GetMetrics.class);
        registry.add(124, RunCommand.Summarize.class);
    }

    private static void runReplies(Registry registry) {
        registry.add(130, RunCommand.RunReply.Accepted.class);
        registry.add(131, RunCommand.RunReply.Completed.class);
        registry.add(132, RunCommand.RunReply.Failed.class);
        registry.add(133, RunCommand.RunReply.Pending.class);
        registry.add(134, RunCommand.RunReply.Described.class);
        registry.add(135, RunCommand.RunReply.Resolved.class);
        registry.add(136, RunCommand.RunReply.Done.class);
        registry.add(137, RunCommand.RunReply.Refused.class);
        registry.add(138, RunCommand.Reason.class);
        registry.add(139, RunCommand.RunReply.Timings.class);
        registry.add(140, RunCommand.RunReply.History.class);
        registry.add(141, RunCommand.RunReply.Stalled.class);
        registry.add(142, RunCommand.RunReply.Metrics.class);
        registry.add(143, OperationMetrics.class);
        registry.add(144, RunCommand.RunReply.Summary.class);
    }

    private static void engineCommands(Registry registry) {
        registry.add(200, EngineCommand.OpenRun.class);
        registry.add(201, EngineCommand.Execute.class);
        registry.add(202, EngineCommand.TakeRecoveryPoint.class);
        registry.add(203, EngineCommand.CloseRun.class);
        registry.add(204, EngineCommand.Sample.class);
        registry.add(205, EngineCommand.Describe.class);
        registry.add(206, EngineCommand.Tokenize.class);
        registry.add(207, EngineCommand.Detokenize.class);
        registry.add(208, EngineCommand.FetchTokenizerFiles.class);
        registry.add(209, EngineCommand.FollowSample.class);
        registry.add(210, EngineCommand.CancelSample.class);
        registry.add(211, EngineCommand.DetokenizeNext.class);
        registry.add(212, EngineCommand.DetokenizeEach.class);
        registry.add(213, EngineCommand.AlignText.class);
        registry.add(214, EngineCommand.AlignTokens.class);
        registry.add(219, EngineCommand.Drain.class);
    }

    private static void engineEvents(Registry registry) {
        registry.add(230, EngineCommand.EngineEvent.Opened.class);
        registry.add(231, EngineCommand.EngineEvent.OpenFailed.class);
        registry.add(232, EngineCommand.EngineEvent.Executed.class);
        registry.add(233, EngineCommand.EngineEvent.Failed.class);
        registry.add(234, EngineCommand.EngineEvent.RecoveryPointWritten.class);
        registry.add(235, EngineCommand.EngineEvent.RecoveryPointFailed.class);
        registry.add(236, EngineCommand.EngineEvent.Measured.class);
        registry.add(237, EngineCommand.EngineEvent.EvictionRequested.class);
        registry.add(238, EngineCommand.EngineEvent.StateNotFinite.class);
    }

    private static void engineReplies(Registry registry) {
        registry.add(250, EngineCommand.EngineReply.Sampled.class);
        registry.add(251, EngineCommand.EngineReply.Description.class);
        registry.add(252, EngineCommand.EngineReply.Tokenized.class);
        registry.add(253, EngineCommand.EngineReply.Detokenized.class);
        registry.add(254, EngineCommand.EngineReply.TokenizerFiles.class);
        registry.add(255, EngineCommand.EngineReply.RequestFailed.class);
        registry.add(256, EngineCommand.EngineReply.Drawn.class);
        registry.add(257, EngineCommand.EngineReply.DetokenizedNext.class);
        registry.add(258, EngineCommand.EngineReply.DetokenizedEach.class);
        registry.add(259, EngineCommand.EngineReply.Aligned.class);
    }

    private static void sampling(Registry registry) {
        registry.add(300, SampleResult.class);
        registry.add(301, SampleResult.Sequence.class);
        registry.add(302, SampleResult.TokenLogprob.class);
        registry.add(303, SampleResult.StopReason.class);
        registry.add(304, SampleTask.class);
        registry.add(305, SampleTask.Adapter.class);
        registry.add(306, SamplingParams.class);
        registry.add(307, DrawnTokens.class);
        registry.add(310, SamplingCommand.Submit.class);
        registry.add(311, SamplingCommand.Retrieve.class);
        registry.add(312, SamplingCommand.Follow.class);
        registry.add(313, SamplingCommand.Cancel.class);
        registry.add(320, SamplingReply.Accepted.class);
        registry.add(321, SamplingReply.Completed.class);
        registry.add(322, SamplingReply.Failed.class);
        registry.add(323, SamplingReply.Pending.class);
        registry.add(324, SamplingReply.Foreign.class);
        registry.add(325, SamplingReply.Gone.class);
        registry.add(326, SamplingReply.Refused.class);
        registry.add(327, SamplingReply.Drawn.class);
    }

    private static void sessionCommands(Registry registry) {
        registry.add(330, SessionCommand.Open.class);
        registry.add(331, SessionCommand.Heartbeat.class);
        registry.add(332, SessionCommand.AddRun.class);
        registry.add(333, SessionCommand.OpenSampler.class);
        registry.add(334, SessionCommand.FindSampler.class);
        registry.add(335, SessionCommand.Describe.class);
        registry.add(336, SessionCommand.Sampler.class);
        registry.add(337, SessionCommand.SetProject.class);
    }

    private static void sessionReplies(Registry registry) {
        registry.add(350, SessionCommand.SessionReply.SamplerOpened.class);
        registry.add(351, SessionCommand.SessionReply.Described.class);
        registry.add(352, SessionCommand.SessionReply.Refused.class);
    }

    private static void owners(Registry registry) {
        registry.add(370, OwnerCommand.CountSampling.class);
        registry.add(371, OwnerCommand.Record.class);
        registry.add(372, OwnerCommand.GetAudit.class);
        registry.add(373, OwnerCommand.GetUsage.class);
        registry.add(374, OwnerCommand.SampleUse.class);
        registry.add(375, OwnerCommand.AuditEntry.class);
        registry.add(376, OwnerCommand.SampledTotal.class);
        registry.add(380, OwnerCommand.OwnerReply.Done.class);
        registry.add(381, OwnerCommand.OwnerReply.Audit.class);
        registry.add(382, OwnerCommand.OwnerReply.Sampled.class);
        registry.add(383, OwnerCommand.OwnerReply.Unavailable.class);
    }

    private static void largeReplies(Registry registry) {
        registry.add(360, LargeReply.class);
        registry.add(361, Outbox.FetchPart.class);
        registry.add(362, Outbox.Part.class);
    }
}
