package bios.protocol.wire;

import bios.protocol.Fault;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.client.Answer;
import bios.protocol.client.ClientMessage;
import bios.protocol.client.Problem;
import bios.protocol.client.Request;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.RunId;
import bios.protocol.run.TensorData;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SamplingParams;

/// The ids of the client protocol's classes. An id is never reused; a record only gets components at its end
/// that [GrowingRecords] knows to be absent, an enum constants at its end.
final class ClientTypes implements WireTypes {
    @Override public void registerTo(Registry registry) {
        messages(registry);
        values(registry);
        requests(registry);
        answers(registry);
    }

    private static void messages(Registry registry) {
        registry.add(20, ClientMessage.Connect.class);
        registry.add(21, ClientMessage.Connected.class);
        registry.add(22, ClientMessage.Refused.class);
        registry.add(23, ClientMessage.Ping.class);
        registry.add(24, ClientMessage.Pong.class);
        registry.add(25, ClientMessage.Close.class);
        registry.add(26, ClientMessage.Payload.class);
        registry.add(27, ClientMessage.Offer.class);
        registry.add(28, ClientMessage.Fetch.class);
        registry.add(29, ClientMessage.Part.class);
        registry.add(30, ClientMessage.Fetched.class);
    }

    private static void values(Registry registry) {
        registry.add(40, Problem.class);
        registry.add(41, Fault.Kind.class);
        registry.add(42, ModelInfo.class);
        registry.add(43, ModelName.class);
        registry.add(44, RunId.class);
        registry.add(45, CheckpointName.class);
        registry.add(46, CheckpointPath.class);
        registry.add(47, CheckpointKind.class);
        registry.add(48, AdamParams.class);
        registry.add(49, Datum.class);
        registry.add(50, TensorData.class);
        registry.add(51, TensorData.DType.class);
        registry.add(52, LossFunction.class);
        registry.add(53, SamplingParams.class);
        registry.add(54, SampleResult.class);
        registry.add(55, SampleResult.Sequence.class);
        registry.add(56, SampleResult.TokenLogprob.class);
        registry.add(57, SampleResult.StopReason.class);
        registry.add(60, Operation.ForwardBackward.class);
        registry.add(61, Operation.OptimStep.class);
        registry.add(62, Operation.SaveState.class);
        registry.add(63, Operation.SaveSamplerWeights.class);
        registry.add(64, Operation.LoadState.class);
    }

    private static void requests(Registry registry) {
        registry.add(100, Request.OpenSession.class);
        registry.add(101, Request.KeepSession.class);
        registry.add(102, Request.ListModels.class);
        registry.add(103, Request.Tokenize.class);
        registry.add(104, Request.Detokenize.class);
        registry.add(105, Request.CreateRun.class);
        registry.add(106, Request.CreateRunFrom.class);
        registry.add(107, Request.Adapter.class);
        registry.add(108, Request.Submit.class);
        registry.add(109, Request.Snapshot.class);
        registry.add(110, Request.Retrieve.class);
        registry.add(111, Request.OpenSampler.class);
        registry.add(112, Request.Sample.class);
        registry.add(113, Request.ListRuns.class);
        registry.add(114, Request.DescribeRun.class);
        registry.add(115, Request.ListCheckpoints.class);
        registry.add(116, Request.DeleteCheckpoint.class);
        registry.add(117, Request.SetExpiry.class);
        registry.add(118, Request.History.class);
        registry.add(119, Request.Unload.class);
        registry.add(120, Request.TryAgain.class);
        registry.add(121, Request.GiveUp.class);
        registry.add(122, Request.Publish.class);
        registry.add(123, Request.Metrics.class);
        registry.add(124, Request.Usage.class);
        registry.add(125, Request.HourlyUsage.class);
    }

    private static void answers(Registry registry) {
        registry.add(200, Answer.Refused.class);
        registry.add(201, Answer.Done.class);
        registry.add(202, Answer.SessionOpened.class);
        registry.add(203, Answer.Models.class);
        registry.add(204, Answer.Tokens.class);
        registry.add(205, Answer.Text.class);
        registry.add(206, Answer.Submitted.class);
        registry.add(207, Answer.Pending.class);
        registry.add(208, Answer.Failed.class);
        registry.add(209, Answer.Created.class);
        registry.add(210, Answer.Unloaded.class);
        registry.add(211, Answer.Evaluated.class);
        registry.add(212, Answer.Stepped.class);
        registry.add(213, Answer.Saved.class);
        registry.add(214, Answer.Loaded.class);
        registry.add(215, Answer.SamplerOpened.class);
        registry.add(216, Answer.Sampled.class);
        registry.add(217, Answer.Runs.class);
        registry.add(218, Answer.Run.class);
        registry.add(219, Answer.Checkpoints.class);
        registry.add(220, Answer.Checkpoint.class);
        registry.add(221, Answer.History.class);
        registry.add(222, Answer.HistoryEntry.class);
        registry.add(223, Answer.Metrics.class);
        registry.add(224, Answer.OperationMetrics.class);
        registry.add(225, Answer.Usage.class);
        registry.add(226, Answer.UsageLine.class);
        registry.add(227, Answer.HourlyUsage.class);
        registry.add(228, Answer.UsageEvent.class);
        registry.add(229, Answer.Waiting.class);
    }
}
