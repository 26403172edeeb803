package bios.worker.engine;

import bios.persistence.marks.ExecutionMarks;
import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.sampling.SampleTask;
import bios.worker.adapter.Adapter;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.BiConsumer;
import org.apache.pekko.actor.typed.ActorRef;

/// Sampling requests from their arrival to their answer: those whose adapter is being loaded or has no room
/// wait; the others go to the [DeviceQueue]. A request during which processes of this worker ended is decoded
/// alone, and after [#DEATHS] ends alone it is not decoded any more (docs/decisions/0007-blame.md). Only the
/// engine uses it.
final class SampleQueue {
    /// The fault of a request that was cancelled.
    static final Fault CANCELLED = Fault.user("cancelled", "the caller has ended the request");
    /// A request during which the worker ended so often, alone, is refused.
    private static final int DEATHS = 3;
    /// After this many ends in company a request is decoded alone.
    private static final int DEATHS_IN_COMPANY = 2;

    private final AdapterCache cache;
    private final DeviceQueue device;
    private final BiConsumer<PendingSample, List<Adapter>> loader;
    private final int maxSequences;
    private final ExecutionMarks marks;
    /// Requests by the adapter that is being loaded for them.
    private final Map<AdapterCache.Key, List<PendingSample>> loading = new HashMap<>();
    /// Requests for whose adapter there is no room, in their order.
    private final Deque<PendingSample> waiting = new ArrayDeque<>();
    /// Who gets the answer of each task that is not answered: a task that is sent again while it is worked on
    /// is computed once.
    private final Map<SampleTask, Set<ActorRef<EngineReply>>> receivers = new HashMap<>();
    /// The unanswered requests by the id of their task, and what is known of those that are followed.
    private final Map<String, PendingSample> unanswered = new HashMap<>();
    private final Map<String, FollowedSample> followed = new HashMap<>();
    private int sequences;
    /// Requests for the device, in their order; the first waits while it must not have company.
    private final Deque<DeviceExecutor.Ready> ready = new ArrayDeque<>();
    private int decoding;
    private boolean decodingAlone;

    /// @param loader frees the evicted adapters and loads that of the request
    /// @param maxSequences most sequences of all requests
    /// @param marks what earlier processes left
    SampleQueue(AdapterCache cache, DeviceQueue device, BiConsumer<PendingSample, List<Adapter>> loader,
            int maxSequences, ExecutionMarks marks) {
        this.cache = cache;
        this.device = device;
        this.loader = loader;
        this.maxSequences = maxSequences;
        this.marks = marks;
    }

    /// Sequences of all requests that are not answered.
    int sequences() {
        return sequences;
    }

    /// Adds a request that its model can serve; the fault says why it is not accepted. A task that is here
    /// already gets another receiver of its answer.
    Optional<Fault> add(PendingSample request) {
        Set<ActorRef<EngineReply>> known = receivers.get(request.task());
        if (known != null) {
            known.add(request.replyTo());
            return Optional.empty();
        }
        int deaths = marks.sampleDeaths(request.task().id()).alone();
        if (deaths >= DEATHS)
            return Optional.of(Fault.server(SampleTask.WORKER_LOST, "the worker died " + deaths
                    + " times while it decoded this request alone"));
        int all = sequences + request.task().numSamples();
        if (sequences > 0 && all > maxSequences)
            return Optional.of(Fault.server("queue_full",
                    sequences + " sequences wait or decode already, of at most " + maxSequences
                    + "; try again in a moment"));
        sequences = all;
        receivers.put(request.task(), new LinkedHashSet<>(Set.of(request.replyTo())));
        unanswered.put(request.task().id(), request);
        if (waiting.isEmpty()) admit(request);
        else waiting.add(request);
        return Optional.empty();
    }

    /// Answers with what an unfinished request has drawn, as soon as there is something.
    void follow(EngineCommand.FollowSample question) {
        PendingSample request = unanswered.get(question.task());
        if (request == null) return;
        request.followed().set(true);
        followed.computeIfAbsent(question.task(), _ -> new FollowedSample(request.task()))
                .ask(question);
    }

    /// Gives a request up: at once if it waits, else after the next step of its sampler.
    void cancel(String task) {
        PendingSample request = unanswered.get(task);
        if (request == null) return;
        request.cancelled().set(true);
        if (waiting.remove(request)) answer(request, new EngineReply.RequestFailed(CANCELLED));
    }

    /// A sampler has drawn tokens.
    void drawn(List<EngineSelfMessage.Progress> progress) {
        for (EngineSelfMessage.Progress drawn : progress) {
            FollowedSample sample = followed.get(drawn.request().task().id());
            if (sample != null) sample.add(drawn.sequences());
        }
    }

    private boolean admit(PendingSample request) {
        if (request.key().isEmpty()) {
            dispatch(request, Optional.empty());
            return true;
        }
        AdapterCache.Key key = request.key().get();
        long size = request.task().adapter().orElseThrow().blob().bytes();
        switch (cache.request(key, size)) {
            case AdapterCache.Answer.Hit(var adapter) -> dispatch(request, Optional.of(adapter));
            case AdapterCache.Answer.Loading() -> loading.get(key).add(request);
            case AdapterCache.Answer.Load(var evicted) -> {
                loading.put(key, new ArrayList<>(List.of(request)));
                loader.accept(request, evicted);
            }
            case AdapterCache.Answer.Full() -> {
                waiting.addFirst(request);
                return false;
            }
            case AdapterCache.Answer.TooLarge(var limit) ->
                    answer(request, new EngineReply.RequestFailed(Fault.server("adapter_too_large",
                            "the adapter has " + size + " bytes and this worker keeps " + limit
                            + "; raise bios.engine.adapter-bytes")));
        }
        return true;
    }

    private void dispatch(PendingSample request, Optional<Adapter> adapter) {
        var deaths = marks.sampleDeaths(request.task().id());
        boolean suspected = deaths.alone() > 0 || deaths.ends() >= DEATHS_IN_COMPANY;
        ready.add(new DeviceExecutor.Ready(request, adapter, suspected));
        decodeNext();
    }

    private void decodeNext() {
        while (!ready.isEmpty() && !decodingAlone && !(ready.peek().suspected() && decoding > 0)) {
            DeviceExecutor.Ready next = ready.poll();
            decoding++;
            decodingAlone = next.suspected();
            device.add(next.request().task().baseModel(), next);
        }
    }

    /// An adapter is on the device.
    void loaded(AdapterCache.Key key, Adapter adapter) {
        cache.loaded(key, adapter);
        loading.remove(key).forEach(request -> dispatch(request, Optional.of(adapter)));
    }

    /// An adapter could not be loaded: its requests fail.
    void loadFailed(AdapterCache.Key key, Fault fault) {
        cache.loadFailed(key);
        loading.remove(key).forEach(request -> answer(request, new EngineReply.RequestFailed(fault)));
        admitWaiting();
    }

    /// A sampler has finished requests: answers them and releases their adapters.
    void finished(List<DeviceExecutor.SampleOutcome> outcomes) {
        for (DeviceExecutor.SampleOutcome outcome : outcomes) {
            outcome.request().key().ifPresent(cache::release);
            answer(outcome.request(), switch (outcome) {
                case DeviceExecutor.SampleOutcome.Drawn(var request, var result) ->
                        new EngineReply.Sampled(request.task().id(), result);
                case DeviceExecutor.SampleOutcome.Failed(_, var fault) ->
                        new EngineReply.RequestFailed(fault);
            });
            marks.sampled(outcome.request().task().id());
        }
        decoding -= outcomes.size();
        decodingAlone &= decoding > 0;
        decodeNext();
        admitWaiting();
    }

    /// Removes the adapters that nothing has used since the last call; they are to be freed.
    List<Adapter> removeUnusedAdapters() {
        return cache.removeUnused();
    }

    private void admitWaiting() {
        while (!waiting.isEmpty()) if (!admit(waiting.poll())) return;
    }

    private void answer(PendingSample request, EngineReply reply) {
        sequences -= request.task().numSamples();
        unanswered.remove(request.task().id(), request);
        if (!unanswered.containsKey(request.task().id())) followed.remove(request.task().id());
        receivers.remove(request.task()).forEach(receiver -> receiver.tell(reply));
    }
}
