package bios.protocol.client;

import bios.protocol.model.TargetModule;
import bios.protocol.run.Operation;
import bios.protocol.sampling.SamplingParams;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// What a JVM client asks of the gateway: the requests of docs/reference/http.md, with the same rules. Each
/// can be repeated, unless [#repeatable] says otherwise. Ids and paths are text here, so that a wrong one is
/// refused as over HTTP.
public sealed interface Request {
    /// Whether the request can be repeated when its answer is lost. Otherwise the repetition may act on
    /// something else.
    default boolean repeatable() {
        return true;
    }

    /// The minor version that a gateway must have, because an earlier one ignores a part of the request
    /// without which it does something else; 0: none.
    default int minor() {
        return 0;
    }

    /// Opens a session of the service, or finds it. Answer: [Answer.SessionOpened].
    ///
    /// @param session a UUID
    /// @param userMetadata a JSON object
    record OpenSession(String session, List<String> tags, String userMetadata, String client)
            implements Request {}

    /// Says that the session is in use. Answer: [Answer.Done].
    record KeepSession(String session) implements Request {}

    /// Answer: [Answer.Models].
    record ListModels() implements Request {}

    /// Answer: [Answer.Tokens].
    record Tokenize(String baseModel, String text, boolean addSpecialTokens) implements Request {}

    /// Answer: [Answer.Text].
    record Detokenize(String baseModel, int[] tokens, boolean skipSpecialTokens) implements Request {}

    /// Creates a run. Answer: [Answer.Submitted] with the run; its result is [Answer.Created].
    ///
    /// @param number of the run in the session
    /// @param adapter empty: the default shape
    record CreateRun(String session, long number, String baseModel, Optional<Adapter> adapter,
            String userMetadata) implements Request {}

    /// Creates a run from a training state. Answer: [Answer.Submitted]; its result is [Answer.Loaded].
    record CreateRunFrom(String session, long number, String path, String userMetadata) implements Request {}

    /// The shape of a run's adapter.
    ///
    /// @param seed empty: derived from session and number
    /// @param targets PEFT's names of the layers; empty: all linear layers
    record Adapter(int rank, double alpha, Optional<Long> seed, List<String> targets) {
        /// All linear layers.
        public static Adapter ofRank(int rank) {
            return new Adapter(rank, 32, Optional.empty(), List.of());
        }

        /// The same with a seed.
        public Adapter withSeed(long seed) {
            return new Adapter(rank, alpha, Optional.of(seed), targets);
        }

        /// The same on these layers.
        public Adapter on(TargetModule... modules) {
            return new Adapter(rank, alpha, seed, List.of(modules).stream().map(TargetModule::peftName)
                    .toList());
        }
    }

    /// Submits an operation under a number of the run; a number that is known gets its first answer.
    /// Answer: [Answer.Submitted].
    record Submit(String run, long seq, Operation operation) implements Request {}

    /// Saves the weights as a snapshot that becomes a sampler of the session. Answer: [Answer.Submitted];
    /// its result is [Answer.Saved].
    ///
    /// @param sampler its number in the session
    record Snapshot(String run, long seq, long sampler) implements Request {}

    /// Waits a while for a result. Answer: [Answer.Pending], [Answer.Failed] or the result.
    record Retrieve(String request) implements Request {}

    /// Opens a sampler of a base model or of sampler weights, exactly one of them.
    /// Answer: [Answer.SamplerOpened].
    record OpenSampler(String session, long number, Optional<String> baseModel, Optional<String> path)
            implements Request {}

    /// Answer: [Answer.Submitted]; its result is [Answer.Sampled].
    record Sample(String sampler, long seq, int[] prompt, SamplingParams params, int samples,
            boolean promptLogprobs, int topkPromptLogprobs) implements Request {}

    /// Answer: [Answer.Runs].
    ///
    /// @param filter names and values, as in the query over HTTP; since minor version 1
    record ListRuns(int offset, int limit, Map<String, String> filter) implements Request {}

    /// Answer: [Answer.Run].
    record DescribeRun(String run) implements Request {}

    /// The checkpoints of a run, or of all runs. Answer: [Answer.Checkpoints].
    ///
    /// @param offset of the listing of all runs
    /// @param filter of that listing: names and values, as in the query over HTTP; since minor version 1
    record ListCheckpoints(Optional<String> run, int offset, int limit, Map<String, String> filter)
            implements Request {}

    /// Answer: [Answer.Done].
    record DeleteCheckpoint(String path) implements Request {}

    /// Sets when a checkpoint is deleted by itself; empty: never. Answer: [Answer.Done].
    record SetExpiry(String path, Optional<Long> ttlSeconds) implements Request {}

    /// Lets every account read a checkpoint, or its owner only. Answer: [Answer.Done].
    record Publish(String path, boolean published) implements Request {}

    /// The newest entries of a run's history. Answer: [Answer.History].
    ///
    /// @param after waits until there are entries with a higher number, and gets the oldest of these; the
    ///     answer is empty if none came for a while. Since minor version 1
    record History(String run, int limit, Optional<Long> after) implements Request {}

    /// What the newest operations of a run have reported. Answer: [Answer.Metrics].
    ///
    /// @param after as in [History]
    record Metrics(String run, int limit, Optional<Long> after) implements Request {}

    /// What an account has used. Answer: [Answer.Usage].
    ///
    /// @param owner the account; another one than the caller's is for operators
    /// @param filter of the runs: names and values, as in the query over HTTP
    record Usage(Optional<String> owner, Map<String, String> filter) implements Request {}

    /// What an account has used by the hour. Answer: [Answer.HourlyUsage].
    ///
    /// @param from epoch milliseconds, inclusive
    /// @param to epoch milliseconds, exclusive
    record HourlyUsage(Optional<String> owner, Optional<Long> from, Optional<Long> to) implements Request {}

    /// Closes a run for good. Answer: [Answer.Submitted]; its result is [Answer.Unloaded].
    record Unload(String run) implements Request {}

    /// Tries the operation that was set aside again. Answer: [Answer.Done].
    ///
    /// @param seq the operation that is meant; empty: whichever is set aside. Since minor version 2
    record TryAgain(String run, Optional<Long> seq) implements Request {
        @Override public boolean repeatable() {
            return seq.isPresent();
        }

        @Override public int minor() {
            return seq.isPresent() ? 2 : 0;
        }
    }

    /// Fails the operation that was set aside, or that waits in vain ([Answer.Waiting]). Answer:
    /// [Answer.Done].
    ///
    /// @param seq the operation that is meant; empty: whichever waits. Since minor version 2
    record GiveUp(String run, Optional<Long> seq) implements Request {
        @Override public boolean repeatable() {
            return seq.isPresent();
        }

        @Override public int minor() {
            return seq.isPresent() ? 2 : 0;
        }
    }
}
