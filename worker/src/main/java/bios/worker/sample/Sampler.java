package bios.worker.sample;

import static bios.protocol.Require.require;

import bios.protocol.Fault;
import bios.protocol.sampling.DrawnTokens;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import bios.worker.adapter.Adapter;
import bios.worker.device.Device;
import bios.worker.device.HostArray;
import bios.worker.device.Tensor;
import bios.worker.model.BaseModel;
import bios.worker.model.CachedPass;
import bios.worker.model.KeyValueCache;
import bios.worker.model.KeyValuePages;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.function.Function;

/// Decodes many sequences of one base model at once, of any adapters (continuous batching, Yu et al. 2022,
/// over pages of keys and values, Kwon et al. 2023). Each pass puts one token of every decoding sequence and
/// parts of new prompts through the model together. A sequence is admitted when pages are free for all of it
/// so far. When pages run out, or the device's memory for them, the latest sequence is evicted, waits, and
/// later goes through the model again from its first token: that costs time; the results are bitwise the
/// same. Sequences of one request share the pages of their prompt. A request that fails for lack of device
/// memory although no other sequence has pages fails with the numbers: [#launch] throws
/// [bios.worker.device.OutOfDeviceMemory].
///
/// Used by the thread that calls the device's verbs.
public final class Sampler implements AutoCloseable {
    private final BaseModel model;
    private final Device device;
    private final Optional<Function<int[], String>> decoder;
    private final SamplerSettings settings;
    private final KeyValuePages pages;
    private final TreeSet<SampledSequence> waiting = new TreeSet<>(SampledSequence.EARLIEST);
    private final TreeSet<SampledSequence> active = new TreeSet<>(SampledSequence.EARLIEST);
    private final Map<Long, Request> requests = new HashMap<>();
    private Optional<LaunchedDecode> launched = Optional.empty();
    private Set<Request> failed = Set.of();
    private long lastRequest;
    private long lastSequence;

    /// @param decoder text of tokens, for stop strings; empty when the model has no tokenizer
    public Sampler(BaseModel model, Optional<Function<int[], String>> decoder, SamplerSettings settings) {
        this.model = model;
        this.device = model.device();
        this.decoder = decoder;
        this.settings = settings;
        // No more than all sequences could ever fill.
        long most = Math.ceilDiv(model.spec().contextLength(), Device.BLOCK) * (long) settings.maxSequences();
        long affordable = settings.cacheBytes() / KeyValuePages.pageBytes(model.spec(),
                settings.cacheType());
        int limit = (int) Math.clamp(affordable, 1, Math.min(most, Integer.MAX_VALUE));
        this.pages = new KeyValuePages(model.spec(), device, limit, settings.cacheType());
    }

    /// A request that is done.
    ///
    /// @param id what [#submit] returned for it
    public record Finished(long id, SampleResult result) {}

    /// A request that has failed: the others continue.
    ///
    /// @param id what [#submit] returned for it
    public record Failed(long id, Fault why) {}

    /// The requests that a pass has ended.
    public record Ended(List<Finished> finished, List<Failed> failed) {}

    /// Most tokens of one sequence, prompt included: the context, or less when the cache is smaller.
    public int capacity() {
        return (int) Math.min(model.spec().contextLength(), (long) pages.limit() * Device.BLOCK);
    }

    /// Why a task can never be served here; empty when it can. A fault of the user is one of any worker; a
    /// fault of the server is one of this one, whose cache is too small.
    public Optional<Fault> refusal(SampleTask task) {
        int vocabulary = model.spec().vocabularySize();
        int[] prompt = task.prompt();
        if (prompt.length == 0) return refuse("prompt is empty; give at least one token");
        for (int i = 0; i < prompt.length; i++)
            if (prompt[i] < 0 || prompt[i] >= vocabulary) return refuse("prompt holds " + prompt[i]
                    + " at position " + i + "; token ids of this model are 0 to " + (vocabulary - 1));
        if (task.numSamples() < 1)
            return refuse("num_samples is " + task.numSamples() + "; ask for at least 1");
        if (task.topkPromptLogprobs() < 0)
            return refuse("topk_prompt_logprobs is " + task.topkPromptLogprobs() + "; expected 0 or more");
        if (task.topkSampleLogprobs() < 0)
            return refuse("topk_sample_logprobs is " + task.topkSampleLogprobs() + "; expected 0 or more");
        if (!task.params().stopStrings().isEmpty() && decoder.isEmpty())
            return refuse("sampling_params.stop holds text, but " + model.info().name()
                    + " has no tokenizer.json; stop at token ids instead");
        return tooLong(prompt.length, task.params().maxTokens());
    }

    /// A token that is drawn last goes through no pass: after a prompt that fills the context or the cache,
    /// one can be drawn.
    private Optional<Fault> tooLong(int prompt, Optional<Integer> tokens) {
        int context = model.spec().contextLength();
        boolean one = tokens.orElse(1) == 1;
        long most = (long) prompt + (one ? 0 : tokens.orElseThrow());
        String both = one ? "a prompt of " + prompt + " tokens exceeds "
                : "a prompt of " + prompt + " tokens and max_tokens of " + tokens.orElseThrow() + " exceed ";
        String shorter = one ? "; shorten the prompt" : "; shorten the prompt or lower max_tokens";
        if (most > context) return refuse(both + "the model's context of " + context + shorter);
        if (most > capacity())
            return Optional.of(Fault.server("out_of_memory", both + "the " + capacity()
                    + " tokens that this worker's cache holds" + shorter
                    + ", or raise bios.engine.sampler.cache-bytes"));
        return Optional.empty();
    }

    private static Optional<Fault> refuse(String message) {
        return Optional.of(Fault.user("invalid_request", message));
    }

    /// Queues a task that has no [#refusal]. Computes nothing.
    ///
    /// @param adapter stays open until the task is finished
    /// @return id of the request in [Finished]
    public long submit(SampleTask task, Optional<Adapter> adapter) {
        require(refusal(task).isEmpty(), "a task that cannot be served: %s", refusal(task));
        int maxTokens = task.params().maxTokens().orElse(Math.max(1, capacity() - task.prompt().length));
        Request request = new Request(++lastRequest, task, adapter, model.spec().endTokens(), maxTokens,
                decoder.orElse(_ -> {
                    throw new IllegalStateException("no tokenizer");
                }));
        for (int i = 0; i < task.numSamples(); i++)
            request.sequences.add(new SampledSequence(request, i, ++lastSequence));
        requests.put(request.id, request);
        waiting.add(request.sequences.getFirst());
        return request.id;
    }

    /// Sequences that wait or decode.
    public int queued() {
        return (int) requests.values().stream().flatMap(r -> r.sequences.stream())
                .filter(s -> !s.finished()).count();
    }

    /// Whether [#launch] has nothing to do.
    public boolean idle() {
        return requests.isEmpty();
    }

    /// Pages that no sequence uses, and all pages.
    public record Pages(int free, int limit) {}

    /// Free pages of the cache, and all pages.
    public Pages pages() {
        return new Pages(pages.free(), pages.limit());
    }

    /// Prepares and launches a pass and waits for its results, for tests and benchmarks.
    public List<Finished> step() {
        Ended ended = complete(launch());
        require(ended.failed.isEmpty(), "%s", ended.failed);
        return ended.finished;
    }

    /// Starts a pass: plans it, uploads its data once and enqueues its verbs. Waits for nothing. Each launch
    /// is completed before the next. When this throws, everything is as before the call, and it may be
    /// called again; [#cancelFailed] gives up the requests of that pass instead.
    public LaunchedDecode launch() {
        require(launched.isEmpty(), "a pass is on the device");
        SchedulerStep step = new SchedulerStep(waiting, active, pages, settings);
        try {
            List<ScheduledTokens> scheduled = step.plan();
            LaunchedDecode pass = scheduled.isEmpty()
                    ? LaunchedDecode.nothing(step) : launch(step, scheduled);
            launched = Optional.of(pass);
            return pass;
        } catch (Throwable e) {
            failed = step.participants();
            step.undo();
            throw e;
        }
    }

    private LaunchedDecode launch(SchedulerStep step, List<ScheduledTokens> scheduled) {
        OutputPlan plan = new OutputPlan(model, settings.logitRows(), scheduled);
        CachedPass pass = model.prepareCached(scheduled.stream().map(ScheduledTokens::input).toList());
        List<HostArray> arrays = new ArrayList<>(List.of(pass.tokens(), pass.positions()));
        arrays.addAll(plan.arrays());
        try (Device.Scope scope = device.scope()) {
            List<Tensor> uploaded = device.upload(scope, arrays);
            OutputPlan.Prepared outputs = plan.prepare(scope, uploaded.subList(2, uploaded.size()));
            CachedPass.Output hidden = model.forward(scope, pass, uploaded.get(0), uploaded.get(1));
            return new LaunchedDecode(step, scheduled, Optional.of(plan),
                    Optional.of(plan.launch(scope, hidden, outputs)));
        }
    }

    /// Waits for the results of a pass and adds them to the requests. When the wait throws, everything is as
    /// before the pass was launched, and it may be launched again; see [#cancelFailed].
    ///
    /// @return the requests that are done
    public Ended complete(LaunchedDecode pass) {
        require(launched.filter(l -> l == pass).isPresent(), "not the pass on the device");
        launched = Optional.empty();
        failed = pass.step().participants();
        if (pass.plan().isPresent()) {
            OutputPlan.Values values;
            try {
                values = pass.plan().get().read(pass.results().orElseThrow());
            } catch (Throwable e) {
                pass.step().undo();
                throw e;
            }
            for (ScheduledTokens s : pass.scheduled()) s.sequence().cache().orElseThrow().advance(s.count());
            pass.plan().get().apply(values).forEach(this::continueSequences);
        }
        failed = Set.of();
        List<Failed> ended = failures();
        return new Ended(finished(), ended);
    }

    /// What each sequence of an unfinished request has drawn since the last call, whose digests of the tokens
    /// before are empty.
    public List<DrawnTokens> drawnSinceReport(long request) {
        return requests.get(request).sequences.stream().map(SampledSequence::drawnSinceReport).toList();
    }

    /// Gives up unfinished requests; no pass is on the device.
    public void cancel(List<Long> ids) {
        require(launched.isEmpty(), "a pass is on the device");
        remove(Set.copyOf(ids.stream().map(requests::get).toList()));
    }

    /// Gives up the requests of the pass that threw last; the others continue.
    ///
    /// @return their ids
    public List<Long> cancelFailed() {
        List<Long> ids = remove(failed);
        failed = Set.of();
        return ids;
    }

    private List<Long> remove(Set<Request> given) {
        for (SampledSequence s : List.copyOf(active)) if (given.contains(s.request)) {
            s.release();
            active.remove(s);
        }
        waiting.removeIf(s -> given.contains(s.request));
        List<Long> ids = given.stream().map(r -> r.id).sorted().toList();
        ids.forEach(requests::remove);
        return ids;
    }

    /// Gives up the requests whose outputs are not finite.
    private List<Failed> failures() {
        Map<Long, Request> given = new TreeMap<>();
        requests.forEach((id, request) -> {
            if (request.failure().isPresent()) given.put(id, request);
        });
        remove(Set.copyOf(given.values()));
        return given.values().stream().map(r -> new Failed(r.id, r.failure().orElseThrow())).toList();
    }

    /// Starts the other sequences of a request after its prompt, with copies of the first one's cache or in
    /// the queue, and releases the pages of those that are finished.
    private void continueSequences(List<SampledSequence> sampled) {
        SampledSequence first = sampled.getFirst();
        if (first.request.failure().isPresent()) return;
        for (SampledSequence s : sampled.subList(1, sampled.size())) {
            if (s.finished()) continue;
            boolean room = active.size() < settings.maxSequences();
            Optional<KeyValueCache> copy = room ? first.cache().orElseThrow().fork() : Optional.empty();
            copy.ifPresent(s::attach);
            (copy.isPresent() ? active : waiting).add(s);
        }
        for (SampledSequence s : sampled)
            if (s.finished()) {
                s.release();
                active.remove(s);
            }
    }

    private List<Finished> finished() {
        List<Request> done = requests.values().stream().filter(Request::finished)
                .sorted(Comparator.comparingLong(r -> r.id)).toList();
        done.forEach(r -> requests.remove(r.id));
        return done.stream().map(r -> new Finished(r.id, r.result())).toList();
    }

    /// Gives back the memory of all pages, if no sequence has one.
    public void releaseUnused() {
        pages.releaseUnused();
    }

    /// Gives up everything.
    @Override public void close() {
        active.forEach(SampledSequence::release);
        active.clear();
        waiting.clear();
        requests.clear();
        pages.close();
    }
}
