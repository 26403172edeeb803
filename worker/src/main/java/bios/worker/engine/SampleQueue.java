package bios.worker.engine;

import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelName;
import bios.worker.adapter.Adapter;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// Sampling requests between their arrival and their answer: which wait for an adapter, which can go to the
/// device, and which model is next.
final class SampleQueue {
    private final AdapterCache shelf;
    private final Fetcher fetcher;
    private final int maxSequences;
    private final Map<AdapterCache.Key, List<PendingSample>> coming = new HashMap<>();
    private final Deque<PendingSample> crowded = new ArrayDeque<>();
    private final LinkedHashMap<ModelName, Queue> queues = new LinkedHashMap<>();   // the next one first
    private int sequences;

    private static final class Queue {
        final List<DeviceExecutor.Ready> ready = new ArrayList<>();
        boolean decoding;

        boolean busy() {
            return decoding || !ready.isEmpty();
        }
    }

    /// Gets adapters from the store and onto the device.
    interface Fetcher {
        void fetch(PendingSample first, List<Adapter> freed);
    }

    SampleQueue(AdapterCache shelf, Fetcher fetcher, int maxSequences, Iterable<ModelName> models) {
        this.shelf = shelf;
        this.fetcher = fetcher;
        this.maxSequences = maxSequences;
        for (ModelName model : models) queues.put(model, new Queue());
    }

    /// Sequences of all requests that are not answered.
    int sequences() {
        return sequences;
    }

    /// Takes a request that its model can serve; the fault says why not.
    Optional<Fault> take(PendingSample asked) {
        int all = sequences + asked.task().numSamples();
        if (sequences > 0 && all > maxSequences)
            return Optional.of(Fault.server("queue_full",
                    sequences + " sequences wait or decode already, of at most " + maxSequences
                    + "; try again in a moment"));
        sequences = all;
        if (crowded.isEmpty()) admit(asked);
        else crowded.add(asked);
        return Optional.empty();
    }

    private boolean admit(PendingSample asked) {
        if (asked.key().isEmpty()) {
            ready(asked, Optional.empty());
            return true;
        }
        AdapterCache.Key key = asked.key().get();
        long size = asked.task().adapter().orElseThrow().blob().bytes();
        switch (shelf.want(key, size)) {
            case AdapterCache.Answer.Here(var adapter) -> ready(asked, Optional.of(adapter));
            case AdapterCache.Answer.Coming() -> coming.get(key).add(asked);
            case AdapterCache.Answer.Fetch(var freed) -> {
                coming.put(key, new ArrayList<>(List.of(asked)));
                fetcher.fetch(asked, freed);
            }
            case AdapterCache.Answer.Full() -> {
                crowded.addFirst(asked);
                return false;
            }
            case AdapterCache.Answer.TooLarge(var limit) ->
                    answer(asked, new EngineReply.RequestFailed(Fault.server("adapter_too_large",
                            "the adapter has " + size + " bytes and this worker keeps " + limit
                            + "; raise bios.engine.adapter-bytes")));
        }
        return true;
    }

    private void ready(PendingSample asked, Optional<Adapter> adapter) {
        queues.get(asked.task().baseModel()).ready.add(new DeviceExecutor.Ready(asked, adapter));
    }

    /// A fetched adapter is on the device, or not.
    void placed(AdapterCache.Key key, DeviceExecutor.Placed placed) {
        List<PendingSample> waiting = coming.remove(key);
        switch (placed) {
            case DeviceExecutor.Placed.Here(var adapter) -> {
                shelf.arrived(key, adapter);
                waiting.forEach(asked -> ready(asked, Optional.of(adapter)));
            }
            case DeviceExecutor.Placed.Failed(var fault) -> {
                shelf.lost(key);
                waiting.forEach(asked -> answer(asked, new EngineReply.RequestFailed(fault)));
                retry();
            }
        }
    }

    /// Whether a sampler has something to do.
    boolean busy() {
        return queues.values().stream().anyMatch(Queue::busy);
    }

    /// A step that is to be taken.
    record Step(ModelName model, List<DeviceExecutor.Ready> fresh) {}

    /// The next model's step; there must be one.
    Step next() {
        ModelName model = queues.keySet().stream().filter(m -> queues.get(m).busy()).findFirst()
                .orElseThrow();
        Queue queue = queues.remove(model);
        queues.put(model, queue);
        var step = new Step(model, List.copyOf(queue.ready));
        queue.ready.clear();
        return step;
    }

    /// A step was taken: answers go out, adapters are released.
    void stepped(ModelName model, DeviceExecutor.Sampled step) {
        queues.get(model).decoding = !step.idle();
        for (DeviceExecutor.Answer done : step.answers()) {
            done.asked().key().ifPresent(shelf::release);
            answer(done.asked(), switch (done) {
                case DeviceExecutor.Answer.Drawn(var asked, var result) ->
                        new EngineReply.Sampled(asked.task().id(), result);
                case DeviceExecutor.Answer.Failed(_, var fault) -> new EngineReply.RequestFailed(fault);
            });
        }
        retry();
    }

    private void retry() {
        while (!crowded.isEmpty()) if (!admit(crowded.poll())) return;
    }

    private void answer(PendingSample asked, EngineReply reply) {
        sequences -= asked.task().numSamples();
        asked.replyTo().tell(reply);
    }
}
