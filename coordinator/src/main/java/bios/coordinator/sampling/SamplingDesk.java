package bios.coordinator.sampling;

import bios.protocol.Fault;
import bios.protocol.model.ModelName;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// The requests of one router and the engines that it knows: all of its judgement, without actors,
/// clock or I/O. For one thread.
///
/// @param <E> an engine
final class SamplingDesk<E> {
    private static final int REMEMBERED_ADAPTERS = 256;

    private final SamplingSettings settings;
    private final Map<String, Entry<E>> entries = new HashMap<>();
    private final Map<ModelName, Deque<Entry<E>>> waiting = new HashMap<>();
    private final Map<E, Load<E>> engines = new LinkedHashMap<>();
    private final Map<String, Integer> unfinishedOf = new HashMap<>();
    private final LinkedHashSet<Entry<E>> finished = new LinkedHashSet<>();
    private final List<Entry<E>> resting = new ArrayList<>();
    private int unfinished;
    private long waitingBytes;
    private long resultBytes;

    /// An engine as the fleet shows it.
    record Seen<E>(E engine, Set<ModelName> models, int queuedSequences) {}

    /// A request that is to be sent.
    record Send<E>(SampleTask task, E engine) {}

    /// What became of a submission.
    sealed interface Submission {
        /// It is known now, or was before.
        record Known() implements Submission {}

        /// It was refused.
        record Full(Fault fault) implements Submission {}
    }

    /// Where a request stands.
    sealed interface Standing {
        record Open(String state) implements Standing {}

        record Done(SampleResult result) implements Standing {}

        record Broken(Fault fault) implements Standing {}

        record Foreign() implements Standing {}

        record Unknown() implements Standing {}
    }

    private static final class Entry<E> {
        final String owner;
        final SampleTask task;
        Optional<E> engine = Optional.empty();
        long sentAtMillis;
        int lost;
        int failed;
        Standing standing = new Standing.Open("waiting for a worker");
        long finishedAtMillis;
        long resultBytes;

        Entry(String owner, SampleTask task) {
            this.owner = owner;
            this.task = task;
        }

        boolean open() {
            return standing instanceof Standing.Open;
        }

        long promptBytes() {
            return 512 + 4L * task.prompt().length;
        }
    }

    private static final class Load<E> {
        final E engine;
        Set<ModelName> models;
        int reported;
        int sent;
        final Set<Entry<E>> running = new LinkedHashSet<>();
        final LinkedHashMap<String, Boolean> adapters = new LinkedHashMap<>(16, 0.75f, true);

        Load(E engine) {
            this.engine = engine;
        }
    }

    SamplingDesk(SamplingSettings settings) {
        this.settings = settings;
    }

    /// Accepts a request, unless it is known already or too much is waiting.
    Submission submit(String owner, SampleTask task) {
        if (entries.containsKey(task.id())) return new Submission.Known();
        var entry = new Entry<E>(owner, task);
        if (unfinished >= settings.maxWaiting()
                || waitingBytes + entry.promptBytes() > settings.maxWaitingBytes())
            return full("the service has " + unfinished
                    + " unfinished sampling requests, as many as it takes");
        if (unfinishedOf.getOrDefault(owner, 0) >= settings.maxWaitingPerAccount())
            return full("your account has " + settings.maxWaitingPerAccount()
                    + " unfinished sampling requests, as many as it may");
        entries.put(task.id(), entry);
        unfinishedOf.merge(owner, 1, Integer::sum);
        unfinished++;
        waitingBytes += entry.promptBytes();
        waiting.computeIfAbsent(task.baseModel(), _ -> new ArrayDeque<>()).addLast(entry);
        return new Submission.Known();
    }

    private static Submission full(String why) {
        return new Submission.Full(Fault.user("queue_full", why + "; try again in a moment"));
    }

    /// Where the request stands for `owner`.
    Standing standing(String owner, String task) {
        Entry<E> entry = entries.get(task);
        if (entry == null) return new Standing.Unknown();
        return entry.owner.equals(owner) ? entry.standing : new Standing.Foreign();
    }

    /// Where the request stands, whoever asks.
    Standing latest(String task) {
        Entry<E> entry = entries.get(task);
        return entry == null ? new Standing.Unknown() : entry.standing;
    }

    /// Takes note of the engines there are. Engines that went missing but are not known
    /// dead keep their requests.
    void seen(List<Seen<E>> fleet) {
        engines.values().forEach(load -> load.models = Set.of());
        for (Seen<E> seen : fleet) {
            Load<E> load = engines.computeIfAbsent(seen.engine(), Load::new);
            load.models = seen.models();
            load.reported = seen.queuedSequences();
        }
        engines.values().removeIf(load -> load.models.isEmpty() && load.running.isEmpty());
    }

    /// An engine died: its requests go to the head of their queues, or fail if they have lost too many
    /// engines. Gives those that failed.
    List<String> gone(E engine, long nowMillis) {
        Load<E> load = engines.remove(engine);
        if (load == null) return List.of();
        var broken = new ArrayList<String>();
        for (Entry<E> entry : new ArrayList<>(load.running).reversed()) {
            entry.engine = Optional.empty();
            if (++entry.lost < settings.maxAttempts()) again(entry);
            else {
                finish(entry, new Standing.Broken(Fault.server("sampling_failed",
                        "the worker died " + entry.lost
                        + " times while it worked on this request; it is not tried again")), 0, nowMillis);
                broken.add(entry.task.id());
            }
        }
        return broken;
    }

    private void again(Entry<E> entry) {
        entry.standing = new Standing.Open("waiting to be started again");
        waiting.computeIfAbsent(entry.task.baseModel(), _ -> new ArrayDeque<>()).addFirst(entry);
    }

    /// An engine has drawn. Whether the request was waiting for it; a repetition is the same
    /// result and changes nothing.
    boolean sampled(String task, SampleResult result, long nowMillis) {
        Entry<E> entry = entries.get(task);
        if (entry == null || !entry.open()) return false;
        release(entry);
        finish(entry, new Standing.Done(result), size(result), nowMillis);
        return true;
    }

    /// An engine could not do the request: a user's fault ends it; with another it rests until [#rested] and
    /// is tried again, without end if the engine only had too much to do. Whether it ended.
    boolean failed(String task, Fault fault, long nowMillis) {
        Entry<E> entry = entries.get(task);
        if (entry == null || !entry.open() || entry.engine.isEmpty()) return false;
        release(entry);
        if (fault.code().equals("queue_full") || fault.kind() == Fault.Kind.SERVER
                && ++entry.failed < settings.maxAttempts()) {
            entry.standing = new Standing.Open("a worker could not do it (" + fault.message()
                    + "); it is tried again");
            resting.add(entry);
            return false;
        }
        finish(entry, new Standing.Broken(fault), 0, nowMillis);
        return true;
    }

    /// Requests that an engine gave back wait for an engine again.
    void rested() {
        resting.forEach(this::again);
        resting.clear();
    }

    private void release(Entry<E> entry) {
        entry.engine.map(engines::get).ifPresentOrElse(load -> {
            load.running.remove(entry);
            load.sent -= entry.task.numSamples();
        }, () -> {
            waiting.getOrDefault(entry.task.baseModel(), new ArrayDeque<>()).remove(entry);
            resting.remove(entry);
        });
        entry.engine = Optional.empty();
    }

    private void finish(Entry<E> entry, Standing standing, long bytes, long nowMillis) {
        entry.standing = standing;
        entry.finishedAtMillis = nowMillis;
        entry.resultBytes = bytes + entry.promptBytes();
        unfinished--;
        waitingBytes -= entry.promptBytes();
        unfinishedOf.computeIfPresent(entry.owner, (_, n) -> n == 1 ? null : n - 1);
        finished.add(entry);
        resultBytes += entry.resultBytes;
        expire(nowMillis);
    }

    /// Forgets results that are too old, and the oldest while all together are too large. The newest stays.
    void expire(long nowMillis) {
        for (Iterator<Entry<E>> oldest = finished.iterator(); oldest.hasNext() && finished.size() > 1;) {
            Entry<E> entry = oldest.next();
            boolean old = nowMillis - entry.finishedAtMillis > settings.resultAge().toMillis();
            if (!old && resultBytes <= settings.maxResultBytes()) break;
            oldest.remove();
            entries.remove(entry.task.id());
            resultBytes -= entry.resultBytes;
        }
    }

    /// The waiting requests for which there is room, in order.
    List<Send<E>> dispatch(long nowMillis) {
        var sends = new ArrayList<Send<E>>();
        for (Deque<Entry<E>> queue : waiting.values()) {
            while (!queue.isEmpty() && route(queue.peekFirst()) instanceof Route.To<E>(var engine))
                sends.add(start(queue.pollFirst(), engines.get(engine), nowMillis));
        }
        waiting.values().removeIf(Deque::isEmpty);
        return sends;
    }

    /// The requests whose engine has been silent for too long: the message or its answer may be lost.
    List<Send<E>> overdue(long nowMillis) {
        var sends = new ArrayList<Send<E>>();
        for (Load<E> load : engines.values())
            for (Entry<E> entry : load.running)
                if (nowMillis - entry.sentAtMillis > settings.resendAfter().toMillis()) {
                    entry.sentAtMillis = nowMillis;
                    sends.add(new Send<>(entry.task, load.engine));
                }
        return sends;
    }

    private Route<E> route(Entry<E> entry) {
        String adapter = adapter(entry);
        List<Route.Candidate<E>> candidates = engines.values().stream()
                .filter(load -> load.models.contains(entry.task.baseModel()))
                .map(load -> new Route.Candidate<>(load.engine, Math.max(load.sent, load.reported),
                        load.adapters.containsKey(adapter))).toList();
        return Route.choose(candidates, settings.engineWindow(), settings.adapterSlack());
    }

    private Send<E> start(Entry<E> entry, Load<E> load, long nowMillis) {
        entry.engine = Optional.of(load.engine);
        entry.sentAtMillis = nowMillis;
        entry.standing = new Standing.Open("a worker has it");
        load.running.add(entry);
        load.sent += entry.task.numSamples();
        load.adapters.put(adapter(entry), true);
        if (load.adapters.size() > REMEMBERED_ADAPTERS) load.adapters.pollFirstEntry();
        return new Send<>(entry.task, load.engine);
    }

    private String adapter(Entry<E> entry) {
        return entry.task.adapter().map(SampleTask.Adapter::contentId).orElse("");
    }

    private static long size(SampleResult result) {
        long bytes = 256 + result.promptLogprobs().map(p -> 4L * p.length).orElse(0L);
        for (var sequence : result.sequences()) bytes += 64 + 8L * sequence.tokens().length;
        for (var row : result.topkPromptLogprobs().orElse(List.of())) bytes += 32 + 32L * row.size();
        return bytes;
    }

    /// Requests that are not finished.
    int unfinished() {
        return unfinished;
    }
}
