package bios.coordinator.sampling;

import bios.coordinator.RetryDelay;
import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import bios.protocol.model.ModelName;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Stream;

/// Assigns sampling requests to engines and keeps their status and results. Pure: no actor, no clock, no I/O.
/// Not thread-safe.
///
/// @param <E> reference of an engine
final class SampleDispatcher<E> {
    private static final int MAX_REMEMBERED_ADAPTERS = 256;
    private static final RetryDelay RETRY = new RetryDelay(Duration.ofSeconds(1));
    /// Faults that end by waiting, however long.
    private static final Set<String> PASSING =
            Set.of("queue_full", EngineCommand.STORE_FAILED, "unavailable");

    /// Faults of a worker that has too little room: another one may have more.
    private static final Set<String> NO_ROOM = Set.of("out_of_memory", "adapter_too_large");

    private final SamplingSettings settings;
    private final Map<String, Request<E>> requests = new HashMap<>();
    private final Map<ModelName, Deque<Request<E>>> waiting = new HashMap<>();
    private final Map<E, EngineLoad<E>> engines = new LinkedHashMap<>();
    private final Map<String, Integer> unfinishedOf = new HashMap<>();
    private final LinkedHashSet<Request<E>> finished = new LinkedHashSet<>();
    /// Tasks whose results were deleted, until [#takeExpired].
    private final List<String> expired = new ArrayList<>();
    private final List<Request<E>> deferred = new ArrayList<>();
    private int unfinished;
    private long waitingBytes;
    private long resultBytes;

    /// An engine of the [bios.coordinator.fleet.EngineDirectory], and its load.
    record EngineStatus<E>(E engine, Set<ModelName> models, int queuedSequences) {}

    /// A request to be sent to an engine.
    record Assignment<E>(SampleTask task, E engine) {}

    /// The outcome of a submission.
    sealed interface Submission {
        /// The request is known, from now on or from an earlier submission.
        record Accepted() implements Submission {}

        /// The request is refused.
        record QueueFull(Fault fault) implements Submission {}
    }

    /// The status of a request.
    sealed interface Status {
        record Waiting(String state) implements Status {}

        record Completed(SampleResult result) implements Status {}

        record Failed(Fault fault) implements Status {}

        record NotOwned() implements Status {}

        record Unknown() implements Status {}
    }

    private static final class Request<E> {
        final String owner;
        final SampleTask task;
        Optional<E> engine = Optional.empty();
        long sentAtMillis;
        int enginesLost;
        int attemptsFailed;
        String lastFault = "";
        /// Engines that had no room for it: it goes to the others first.
        final Set<E> withoutRoom = new HashSet<>();
        long notBeforeMillis;
        Status status = new Status.Waiting("waiting for a worker");
        long finishedAtMillis;
        long resultBytes;

        Request(String owner, SampleTask task) {
            this.owner = owner;
            this.task = task;
        }

        boolean isWaiting() {
            return status instanceof Status.Waiting;
        }

        long promptBytes() {
            return 512 + 4L * task.prompt().length;
        }
    }

    private static final class EngineLoad<E> {
        final E engine;
        Set<ModelName> models;
        int reported;
        int sent;
        final Set<Request<E>> running = new LinkedHashSet<>();
        final LinkedHashMap<String, Boolean> adapters = new LinkedHashMap<>(16, 0.75f, true);

        EngineLoad(E engine) {
            this.engine = engine;
        }
    }

    SampleDispatcher(SamplingSettings settings) {
        this.settings = settings;
    }

    /// Accepts a request unless a limit is reached; a known request is accepted again without effect.
    Submission submit(String owner, SampleTask task) {
        if (requests.containsKey(task.id())) return new Submission.Accepted();
        var request = new Request<E>(owner, task);
        if (unfinished >= settings.maxWaiting()
                || waitingBytes + request.promptBytes() > settings.maxWaitingBytes())
            return queueFull("the service has " + unfinished
                    + " unfinished sampling requests, which is its limit");
        if (unfinishedOf.getOrDefault(owner, 0) >= settings.maxWaitingPerAccount())
            return queueFull("your account has " + settings.maxWaitingPerAccount()
                    + " unfinished sampling requests, which is its limit");
        requests.put(task.id(), request);
        unfinishedOf.merge(owner, 1, Integer::sum);
        unfinished++;
        waitingBytes += request.promptBytes();
        waiting.computeIfAbsent(task.baseModel(), _ -> new ArrayDeque<>()).addLast(request);
        return new Submission.Accepted();
    }

    private static Submission queueFull(String why) {
        return new Submission.QueueFull(Fault.user("queue_full", why + "; retry later"));
    }

    /// The status of the request as `owner` may see it.
    Status status(String owner, String task) {
        Request<E> request = requests.get(task);
        if (request == null) return new Status.Unknown();
        return request.owner.equals(owner) ? request.status : new Status.NotOwned();
    }

    /// The status of the request.
    Status status(String task) {
        Request<E> request = requests.get(task);
        return request == null ? new Status.Unknown() : request.status;
    }

    /// Updates the known engines. An engine that is missing in `known` keeps its requests until
    /// [#handleEngineLoss].
    void updateEngines(List<EngineStatus<E>> known) {
        engines.values().forEach(load -> load.models = Set.of());
        for (EngineStatus<E> engine : known) {
            EngineLoad<E> load = engines.computeIfAbsent(engine.engine(), EngineLoad::new);
            load.models = engine.models();
            load.reported = engine.queuedSequences();
        }
        engines.values().removeIf(load -> load.models.isEmpty() && load.running.isEmpty());
    }

    /// Handles the loss of an engine: its requests go back to the heads of their queues, those that have lost
    /// several engines after a delay. None fails for it: the engines know what they executed when they were
    /// lost, and refuse a request during which they died again and again (docs/decisions/0007-blame.md).
    void handleEngineLoss(E engine, long nowMillis) {
        EngineLoad<E> load = engines.remove(engine);
        if (load == null) return;
        for (Request<E> request : new ArrayList<>(load.running).reversed()) {
            request.engine = Optional.empty();
            if (++request.enginesLost == 1) requeue(request);
            else defer(request, RETRY.after(request.enginesLost - 1), "its worker was lost "
                    + request.enginesLost + " times", nowMillis);
        }
    }

    private void requeue(Request<E> request) {
        request.status = new Status.Waiting("waiting for a worker again");
        waiting.computeIfAbsent(request.task.baseModel(), _ -> new ArrayDeque<>()).addFirst(request);
    }

    private void defer(Request<E> request, Duration delay, String why, long nowMillis) {
        request.notBeforeMillis = nowMillis + delay.toMillis();
        request.status = new Status.Waiting(why + "; it is tried again in " + delay.toSeconds() + " s");
        deferred.add(request);
    }

    /// Stores the result of a request. Returns whether the request was unfinished; a repeated result has no
    /// effect.
    boolean complete(String task, SampleResult result, long nowMillis) {
        Request<E> request = requests.get(task);
        if (request == null || !request.isWaiting()) return false;
        release(request);
        finish(request, new Status.Completed(result), sizeBytes(result), nowMillis);
        return true;
    }

    /// Handles a failure reported by an engine. A fault of the user fails the request, and so does the
    /// refusal of one that has ended its workers. After another fault it is deferred and tried again: without
    /// limit if the fault passes by itself, else until the same one was met too often in a row; where there
    /// was no room, also until each engine of the model was tried. Returns whether the request has failed.
    boolean handleFailure(String task, Fault fault, long nowMillis) {
        Request<E> request = requests.get(task);
        if (request == null || !request.isWaiting() || request.engine.isEmpty()) return false;
        boolean another = NO_ROOM.contains(fault.code()) && anotherHasRoom(request);
        release(request);
        request.attemptsFailed = fault.code().equals(request.lastFault) ? request.attemptsFailed + 1 : 1;
        request.lastFault = fault.code();
        boolean again = another || PASSING.contains(fault.code()) || fault.kind() == Fault.Kind.SERVER
                && !fault.code().equals(SampleTask.WORKER_LOST)
                && request.attemptsFailed < settings.maxAttempts();
        if (again) {
            boolean soon = another || fault.code().equals("queue_full");
            defer(request, soon ? Duration.ZERO : RETRY.after(request.attemptsFailed),
                    "the worker failed (" + fault.message() + ")", nowMillis);
            return false;
        }
        finish(request, new Status.Failed(fault), 0, nowMillis);
        return true;
    }

    /// The engine of a request has no room for it. Whether there is one that was not tried; when all were
    /// tried, all are tried again.
    private boolean anotherHasRoom(Request<E> request) {
        request.withoutRoom.add(request.engine.orElseThrow());
        boolean another = serving(request).anyMatch(load -> !request.withoutRoom.contains(load.engine));
        if (!another) request.withoutRoom.clear();
        return another;
    }

    /// Ends an unfinished request that its owner does not want any more.
    ///
    /// @return the engine that works on it, if one does
    Optional<E> cancel(String owner, String task, long nowMillis) {
        Request<E> request = requests.get(task);
        if (request == null || !request.isWaiting() || !request.owner.equals(owner)) return Optional.empty();
        Optional<E> engine = request.engine;
        release(request);
        finish(request, new Status.Failed(Fault.user("cancelled", "the caller has ended the request")), 0,
                nowMillis);
        return engine;
    }

    /// The engine that works on an unfinished request, if one does.
    Optional<E> engine(String task) {
        return Optional.ofNullable(requests.get(task)).flatMap(request -> request.engine);
    }

    /// Puts the deferred requests whose delay has elapsed back into their queues.
    void requeueDeferred(long nowMillis) {
        List<Request<E>> due = deferred.stream().filter(r -> r.notBeforeMillis <= nowMillis).toList();
        deferred.removeAll(due);
        due.reversed().forEach(this::requeue);
    }

    private void release(Request<E> request) {
        request.engine.map(engines::get).ifPresentOrElse(load -> {
            load.running.remove(request);
            load.sent -= request.task.numSamples();
        }, () -> {
            waiting.getOrDefault(request.task.baseModel(), new ArrayDeque<>()).remove(request);
            deferred.remove(request);
        });
        request.engine = Optional.empty();
    }

    private void finish(Request<E> request, Status status, long bytes, long nowMillis) {
        request.status = status;
        request.finishedAtMillis = nowMillis;
        request.resultBytes = bytes + request.promptBytes();
        unfinished--;
        waitingBytes -= request.promptBytes();
        unfinishedOf.computeIfPresent(request.owner, (_, n) -> n == 1 ? null : n - 1);
        finished.add(request);
        resultBytes += request.resultBytes;
        expire(nowMillis);
    }

    /// Deletes expired results, and the oldest results while their total size exceeds the limit. The newest
    /// result is kept.
    void expire(long nowMillis) {
        for (Iterator<Request<E>> oldest = finished.iterator(); oldest.hasNext() && finished.size() > 1;) {
            Request<E> request = oldest.next();
            boolean old = nowMillis - request.finishedAtMillis > settings.resultAge().toMillis();
            if (!old && resultBytes <= settings.maxResultBytes()) break;
            oldest.remove();
            requests.remove(request.task.id());
            resultBytes -= request.resultBytes;
            expired.add(request.task.id());
        }
    }

    /// The tasks whose results were deleted since the last call.
    List<String> takeExpired() {
        List<String> tasks = List.copyOf(expired);
        expired.clear();
        return tasks;
    }

    /// Assigns waiting requests, in order, to engines that have room.
    List<Assignment<E>> dispatch(long nowMillis) {
        var assignments = new ArrayList<Assignment<E>>();
        for (Deque<Request<E>> queue : waiting.values()) {
            for (Iterator<Request<E>> each = queue.iterator(); each.hasNext();) {
                Request<E> request = each.next();
                if (route(request) instanceof Route.To<E>(var engine)) {
                    each.remove();
                    assignments.add(start(request, engines.get(engine), nowMillis));
                } else if (request.withoutRoom.isEmpty()) {
                    break; // the ones behind it have no more engines to go to
                }
            }
        }
        waiting.values().removeIf(Deque::isEmpty);
        return assignments;
    }

    /// Assigns requests again to their engines if no reply has arrived for long: the message or the reply may
    /// be lost.
    List<Assignment<E>> resendOverdue(long nowMillis) {
        var assignments = new ArrayList<Assignment<E>>();
        for (EngineLoad<E> load : engines.values())
            for (Request<E> request : load.running)
                if (nowMillis - request.sentAtMillis > settings.resendAfter().toMillis()) {
                    request.sentAtMillis = nowMillis;
                    assignments.add(new Assignment<>(request.task, load.engine));
                }
        return assignments;
    }

    private Route<E> route(Request<E> request) {
        String adapter = adapter(request);
        boolean another = serving(request).anyMatch(load -> !request.withoutRoom.contains(load.engine));
        List<Route.Candidate<E>> candidates = serving(request)
                .filter(load -> !another || !request.withoutRoom.contains(load.engine))
                .map(load -> new Route.Candidate<>(load.engine, Math.max(load.sent, load.reported),
                        load.adapters.containsKey(adapter))).toList();
        return Route.choose(candidates, settings.engineWindow(), settings.adapterSlack());
    }

    private Stream<EngineLoad<E>> serving(Request<E> request) {
        return engines.values().stream().filter(load -> load.models.contains(request.task.baseModel()));
    }

    private Assignment<E> start(Request<E> request, EngineLoad<E> load, long nowMillis) {
        request.engine = Optional.of(load.engine);
        request.sentAtMillis = nowMillis;
        request.status = new Status.Waiting("in progress on a worker");
        load.running.add(request);
        load.sent += request.task.numSamples();
        load.adapters.put(adapter(request), true);
        if (load.adapters.size() > MAX_REMEMBERED_ADAPTERS) load.adapters.pollFirstEntry();
        return new Assignment<>(request.task, load.engine);
    }

    private String adapter(Request<E> request) {
        return request.task.adapter().map(SampleTask.Adapter::contentId).orElse("");
    }

    private static long sizeBytes(SampleResult result) {
        long bytes = 256 + result.promptLogprobs().map(p -> 4L * p.length).orElse(0L);
        for (var sequence : result.sequences()) bytes += 64 + 8L * sequence.tokens().length
                + sequence.modelLogprobs().map(own -> 4L * own.length).orElse(0L)
                + sizeBytes(sequence.topkLogprobs());
        return bytes + sizeBytes(result.topkPromptLogprobs());
    }

    private static long sizeBytes(Optional<List<List<SampleResult.TokenLogprob>>> rows) {
        return rows.orElse(List.of()).stream().mapToLong(row -> 32 + 32L * row.size()).sum();
    }

    /// Weights that a request of an account uses.
    record WeightUse(String owner, SampleTask.Adapter adapter) {}

    /// The weights that an unfinished request uses.
    Optional<WeightUse> weights(String task) {
        return Optional.ofNullable(requests.get(task)).filter(Request::isWaiting).flatMap(request ->
                request.task.adapter().map(adapter -> new WeightUse(request.owner, adapter)));
    }

    /// The weights that unfinished requests use.
    Set<WeightUse> weightsInUse() {
        var all = new LinkedHashSet<WeightUse>();
        for (String task : requests.keySet()) weights(task).ifPresent(all::add);
        return all;
    }

    /// A request that is known.
    Optional<SampleRequestStore.StoredRequest> request(String task) {
        return Optional.ofNullable(requests.get(task)).map(request ->
                new SampleRequestStore.StoredRequest(request.owner, request.task));
    }

    /// The number of unfinished requests.
    int unfinished() {
        return unfinished;
    }
}
