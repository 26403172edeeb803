package bios.protocol.client;

import bios.protocol.model.ModelInfo;
import bios.protocol.sampling.SampleResult;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// What the gateway answers to a [Request]. Each may be [Refused].
public sealed interface Answer {
    /// Nothing was stored.
    record Refused(Problem why) implements Answer {}

    /// The request was carried out.
    record Done() implements Answer {}

    /// A session of the service.
    record SessionOpened(String session) implements Answer {}

    /// The base models that are served.
    record Models(List<ModelInfo> models) implements Answer {}

    /// Token ids.
    record Tokens(int[] tokens) implements Answer {}

    /// Text of token ids.
    record Text(String text) implements Answer {}

    /// The request is stored; its result is retrieved under this id.
    ///
    /// @param run empty: a sampling request
    record Submitted(String request, Optional<String> run) implements Answer {}

    /// There is no result yet.
    ///
    /// @param why what it waits for
    /// @param stalled whether the run cannot go on until that is repaired
    record Pending(String why, boolean stalled) implements Answer {}

    /// The operation or sampling request has failed.
    record Failed(Problem why) implements Answer {}

    /// The run exists.
    record Created(String run) implements Answer {}

    /// The run is closed.
    record Unloaded(String run) implements Answer {}

    /// The result of a forward or forward-backward pass, as in [bios.protocol.run.OperationResult.Evaluated].
    ///
    /// @param logprobs of the target tokens, by datum; of `[N, K]` targets row by row
    /// @param columns K of each datum with `[N, K]` targets, 0 for one whose targets are a vector; empty: all
    ///     are vectors
    record Evaluated(List<float[]> logprobs, Map<String, Double> metrics, List<Integer> columns)
            implements Answer {
        /// The sum of the loss over all tokens.
        public double loss() {
            return metrics.get("loss:sum");
        }
    }

    /// The result of an optimizer step.
    ///
    /// @param step optimizer steps applied so far, including this one
    record Stepped(long step, Map<String, Double> metrics) implements Answer {}

    /// The result of a save.
    ///
    /// @param path of the checkpoint; empty for a snapshot
    /// @param sampler the sampler of a snapshot
    record Saved(Optional<String> path, Optional<String> sampler, long step, String userMetadata)
            implements Answer {}

    /// The result of a load.
    record Loaded(String run, String path, long step) implements Answer {}

    /// A sampler.
    record SamplerOpened(String sampler) implements Answer {}

    /// The result of a sampling request.
    record Sampled(SampleResult result) implements Answer {}

    /// A page of runs.
    record Runs(List<Run> runs, long total) implements Answer {}

    /// A run.
    ///
    /// @param targets PEFT's names of the layers with an adapter
    /// @param checkpoints newest version of each, oldest first
    /// @param parent path of the checkpoint that it was created from
    /// @param corrupted what of its state is not finite
    /// @param waiting the operation that can be given up; empty in listings. Since minor version 2
    record Run(String run, String baseModel, int rank, double alpha, List<String> targets, long step,
            long lastRequestMillis, List<Checkpoint> checkpoints, boolean closed, String userMetadata,
            Optional<String> parent, Optional<String> corrupted, Optional<Waiting> waiting)
            implements Answer {}

    /// An operation that has no outcome and can be given up; others wait for it.
    ///
    /// @param operation name of the call, as docs/reference/http.md has it
    /// @param setAside whether it is not tried again by itself; otherwise it waits for a store, or meets
    ///     the same fault at each attempt of its replay
    /// @param code of what it met, as docs/reference/errors.md lists them
    record Waiting(long seq, String operation, boolean setAside, String code, String message) {}

    /// A page of checkpoints.
    record Checkpoints(List<Checkpoint> checkpoints, long total) implements Answer {}

    /// A checkpoint.
    ///
    /// @param training whether training can resume from it
    /// @param published whether every account can read it; since minor version 1
    record Checkpoint(String path, boolean training, long bytes, long step, long createdAtMillis,
            Optional<Long> expiresAtMillis, String userMetadata, boolean published) {}

    /// The newest entries of a run's history, the newest last.
    record History(List<HistoryEntry> entries) implements Answer {}

    /// An entry of a run's history.
    ///
    /// @param kind in lower case, as docs/reference/http.md lists them
    /// @param number rises with each entry of the run; since minor version 1
    record HistoryEntry(long timeMillis, Optional<String> node, String kind, Optional<Long> position,
            Optional<Long> seq, Map<String, String> detail, Optional<Long> number) {}

    /// What operations of a run have reported, in their order.
    record Metrics(List<OperationMetrics> operations) implements Answer {}

    /// What an operation has reported.
    ///
    /// @param number its position in the run, from 1
    /// @param operation name of the call, as docs/reference/http.md has it
    /// @param step optimizer steps applied then
    /// @param failure code of the fault with which it failed
    record OperationMetrics(long number, long seq, String operation, long step, Map<String, Double> metrics,
            Optional<String> failure, long timeMillis) {}

    /// What an account has used: the sum, its runs, and the base models that were sampled themselves.
    record Usage(String owner, UsageLine sum, List<UsageLine> runs, List<UsageLine> baseModels)
            implements Answer {}

    /// What a run has used, or a base model that was sampled, or all of them.
    ///
    /// @param run empty: a base model, or the sum
    /// @param baseModel empty: the sum
    /// @param trainedTokens positions in `forward_backward`
    /// @param evaluatedTokens positions in `forward`
    /// @param storedBytes of the checkpoints that there are now
    record UsageLine(Optional<String> run, String baseModel, Optional<String> project,
            Optional<String> session, long trainedTokens, long evaluatedTokens, long prefilledTokens,
            long sampledTokens, long samplingRequests, double deviceSeconds, long storedBytes) {}

    /// What an account has used by the hour, the oldest hour first.
    record HourlyUsage(List<UsageEvent> events) implements Answer {}

    /// Tokens of one kind in one hour.
    ///
    /// @param fromMillis when the hour began, epoch milliseconds
    /// @param kind `training`, `sampling_prefill` or `sampling_sample`
    record UsageEvent(long fromMillis, String baseModel, Optional<String> session, Optional<String> project,
            String kind, long tokens) {}
}
