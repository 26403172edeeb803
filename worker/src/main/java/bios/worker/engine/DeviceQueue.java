package bios.worker.engine;

import bios.protocol.model.ModelName;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Supplier;

/// The work that a device can do now: operations of runs that are decoded, in the order of each run; sampling
/// requests whose adapters are on the device; and calls of the engine. The engine adds to it while the device
/// works; the device's thread takes the next turn when it is free, so it never waits for the engine while
/// there is work, and a turn contains all that was ready when it began. Bookkeeping only; safe for any
/// thread.
///
/// A run's next pass may be launched *ahead*, while the device works for the run: the next micro-batch of its
/// evaluation, and evaluations behind an evaluation or an optimizer step, because an evaluation changes the
/// state only when it is finished, in the order of the operations. Everything else waits for the outcomes of
/// all operations before it: a step needs a gradient sum of which is known that it counts, and a copy the
/// counters of its state.
final class DeviceQueue {
    /// Passes that a device has at most, with the one that it works on: while it does, the next is prepared.
    private static final int PASSES_IN_FLIGHT = 2;
    private final int copiesPerRun;
    private final TurnOrder order = new TurnOrder();
    private final Deque<Runnable> calls = new ArrayDeque<>();
    /// The run that has waited longest for a pass first.
    private final LinkedHashMap<ResidentRun, Pending> runs = new LinkedHashMap<>();
    /// The model that has waited longest for a sampling step first.
    private final LinkedHashMap<ModelName, Sampling> samplers = new LinkedHashMap<>();
    private final Deque<Turn.Complete> completions = new ArrayDeque<>();
    private int inFlight;
    private int stepsInFlight;
    private boolean closed;

    /// @param copiesPerRun most copies of a run's state that are being written
    DeviceQueue(int copiesPerRun) {
        this.copiesPerRun = copiesPerRun;
    }

    private static final class Pending {
        final Deque<QueuedOperation> operations = new ArrayDeque<>();
        int copies;
        /// Its state is being written without a copy.
        boolean beingWritten;
        /// So many of its operations, from the first on, are launched as a whole.
        int launched;
        /// Passes with a share of it, and optimizer steps, of which the results are not taken.
        int inFlight;
        /// Nothing is launched ahead before its next operation is done.
        boolean waits;

        /// The first operation that is not launched as a whole.
        Optional<QueuedOperation> next() {
            return launched == 0 ? Optional.ofNullable(operations.peek())
                    : operations.stream().skip(launched).findFirst();
        }

        /// The operations from `from` on are launched again.
        void again(int from) {
            launched = Math.min(launched, from);
            waits = true;
        }
    }

    private static final class Sampling {
        final List<DeviceExecutor.Ready> added = new ArrayList<>();
        boolean decoding;
        boolean inFlight;
        /// A request is being decoded during which processes ended before.
        boolean suspected;

        boolean ready() {
            return !inFlight && (decoding || !added.isEmpty());
        }
    }

    /// The next work of the device's thread.
    sealed interface Work {
        /// A call of the engine.
        record Call(Runnable call) implements Work {}
    }

    /// One share of the device's time.
    sealed interface Turn extends Work {
        /// A step of a model's sampler, with new requests.
        record Sample(ModelName model, List<DeviceExecutor.Ready> added) implements Turn {}

        /// The next operation of every run whose next operation takes no pass through the model.
        record Tasks(Map<ResidentRun, QueuedOperation> operations) implements Turn {}

        /// Takes the results of a pass that is complete.
        record Complete(Supplier<Optional<EngineSelfMessage>> results) implements Turn {}

        /// One pass for the runs of one model that have an evaluation next, the longest waiting first.
        record Pass(List<DeviceExecutor.Candidate> candidates) implements Turn {}
    }

    /// Adds a call; it is made before the next turn. Once the queue is closed, the caller makes it.
    void add(Runnable call) {
        synchronized (this) {
            if (!closed) {
                calls.add(call);
                notifyAll();
                return;
            }
        }
        call.run();
    }

    /// The device's thread has ended.
    ///
    /// @return the calls that nobody has made
    synchronized List<Runnable> close() {
        closed = true;
        List<Runnable> left = List.copyOf(calls);
        calls.clear();
        return left;
    }

    /// Adds the next operation of a run.
    synchronized void add(ResidentRun run, QueuedOperation operation) {
        runs.computeIfAbsent(run, _ -> new Pending()).operations.add(operation);
        notifyAll();
    }

    /// Adds a sampling request.
    synchronized void add(ModelName model, DeviceExecutor.Ready request) {
        Sampling sampling = samplers.computeIfAbsent(model, _ -> new Sampling());
        sampling.added.add(request);
        sampling.suspected |= request.suspected();
        notifyAll();
    }

    /// Removes a run with its operations.
    synchronized void remove(ResidentRun run) {
        runs.remove(run);
    }

    /// The first operation of a run is done.
    synchronized void done(ResidentRun run, QueuedOperation operation) {
        Pending pending = runs.get(run);
        if (pending == null || pending.operations.peek() != operation) return;
        pending.operations.poll();
        pending.launched = Math.max(0, pending.launched - 1);
        pending.waits = false;
    }

    /// The first operation of a run has failed. What was launched behind it is launched again.
    synchronized void failed(ResidentRun run, QueuedOperation operation) {
        done(run, operation);
        Optional.ofNullable(runs.get(run)).ifPresent(pending -> pending.again(0));
    }

    /// An operation of a run is launched again from its beginning, and so is what was launched behind it,
    /// when the results of all that the run has in flight have arrived.
    synchronized void again(ResidentRun run, QueuedOperation operation) {
        Pending pending = runs.get(run);
        if (pending != null) pending.again(List.copyOf(pending.operations).indexOf(operation));
    }

    /// Whether passes of the run are in flight, so that a pass launched now is launched ahead.
    synchronized boolean ahead(ResidentRun run) {
        Pending pending = runs.get(run);
        return pending != null && pending.inFlight > 0;
    }

    /// A copy of the run's state is being written.
    ///
    /// @param live the state itself is read: the run pauses until it is written
    synchronized void copying(ResidentRun run, boolean live) {
        Pending pending = runs.get(run);
        if (pending == null) return;
        pending.copies++;
        pending.beingWritten |= live;
    }

    /// A copy of the run's state is written, or its writing has failed.
    synchronized void copied(ResidentRun run, boolean live) {
        Pending pending = runs.get(run);
        if (pending == null) return;
        pending.copies--;
        if (live) pending.beingWritten = false;
        notifyAll();
    }

    /// The device works on the optimizer step that is first in a run.
    synchronized void stepping(ResidentRun run) {
        stepsInFlight++;
        Pending pending = runs.get(run);
        if (pending == null) return;
        pending.launched = 1;
        pending.inFlight++;
    }

    /// The results of that step are taken.
    synchronized void stepped(ResidentRun run) {
        stepsInFlight--;
        Pending pending = runs.get(run);
        if (pending != null) pending.inFlight--;
        notifyAll();
    }

    /// Runs have a share of a pass that the device works on: the others come first next time.
    ///
    /// @param last the runs whose operation needs no further pass
    synchronized void launched(List<ResidentRun> share, List<ResidentRun> last) {
        inFlight++;
        for (ResidentRun run : share) {
            Pending pending = runs.get(run);
            if (pending == null) continue;
            runs.putLast(run, pending);
            pending.inFlight++;
            if (last.contains(run)) pending.launched++;
        }
    }

    /// The results of that pass are taken.
    synchronized void completed(List<ResidentRun> share) {
        inFlight--;
        for (ResidentRun run : share) {
            Pending pending = runs.get(run);
            if (pending != null) pending.inFlight--;
        }
        notifyAll();
    }

    /// The device works on a step of a sampler.
    synchronized void launched(ModelName model) {
        inFlight++;
        samplers.get(model).inFlight = true;
    }

    /// The results of that step are taken.
    ///
    /// @param decoding whether the sampler has more to do
    synchronized void completed(ModelName model, boolean decoding) {
        inFlight--;
        Sampling sampling = samplers.get(model);
        sampling.inFlight = false;
        sampling.decoding = decoding;
        sampling.suspected &= decoding || !sampling.added.isEmpty();
        notifyAll();
    }

    /// The results of a pass have arrived.
    synchronized void add(Turn.Complete completion) {
        completions.add(completion);
        notifyAll();
    }

    /// Takes the next work; waits until there is some.
    ///
    /// @param callsOnly takes no turns
    synchronized Work take(boolean callsOnly) throws InterruptedException {
        while (true) {
            Runnable call = calls.poll();
            if (call != null) return new Work.Call(call);
            if (!callsOnly && !completions.isEmpty()) return completions.poll();
            boolean full = callsOnly
                    || (suspected() ? inFlight + stepsInFlight > 0 : inFlight >= PASSES_IN_FLIGHT);
            Optional<TurnOrder.Kind> kind = full ? Optional.empty() : order.next(this::ready);
            if (kind.isPresent()) return turn(kind.get());
            wait(); // edge: the device's thread has nothing to do
        }
    }

    /// Whether something is to be executed that may have ended processes: until it is done, one pass or turn
    /// of tasks is in flight at a time, so that what is being executed when the process ends is known.
    private boolean suspected() {
        return runs.values().stream().map(pending -> pending.operations.peek())
                .anyMatch(first -> first != null && first.alone())
                || samplers.values().stream().anyMatch(sampling -> sampling.suspected);
    }

    private boolean ready(TurnOrder.Kind kind) {
        return switch (kind) {
            case SAMPLE -> samplers.values().stream().anyMatch(Sampling::ready);
            case TASKS -> runs.values().stream().anyMatch(p -> next(p).filter(o -> !pass(o)).isPresent());
            case PASS -> runs.values().stream().anyMatch(p -> next(p).filter(DeviceQueue::pass).isPresent());
        };
    }

    private static boolean pass(QueuedOperation operation) {
        return operation.task() instanceof DeviceTask.Evaluate;
    }

    /// The first operation of a run that is not launched as a whole, if it can be executed now.
    private Optional<QueuedOperation> next(Pending pending) {
        if (pending.beingWritten) return Optional.empty();
        return pending.next()
                .filter(o -> pending.inFlight == 0 || pass(o) && !o.alone() && !pending.waits)
                .filter(o -> !(o.task() instanceof DeviceTask.Copy) || pending.copies < copiesPerRun);
    }

    private Turn turn(TurnOrder.Kind kind) {
        return switch (kind) {
            case SAMPLE -> sample();
            case TASKS -> {
                Map<ResidentRun, QueuedOperation> tasks = new LinkedHashMap<>();
                runs.forEach((run, pending) -> next(pending).filter(o -> !pass(o))
                        .ifPresent(operation -> tasks.put(run, operation)));
                yield new Turn.Tasks(tasks);
            }
            case PASS -> pass();
        };
    }

    private Turn sample() {
        ModelName model = samplers.keySet().stream().filter(m -> samplers.get(m).ready()).findFirst()
                .orElseThrow();
        Sampling sampling = samplers.get(model);
        samplers.putLast(model, sampling);
        var added = List.copyOf(sampling.added);
        sampling.added.clear();
        return new Turn.Sample(model, added);
    }

    private Turn pass() {
        List<DeviceExecutor.Candidate> candidates = new ArrayList<>();
        runs.forEach((run, pending) -> next(pending).ifPresent(operation -> {
            boolean sameModel = candidates.isEmpty() || candidates.getFirst().run().model == run.model;
            if (sameModel && operation.task() instanceof DeviceTask.Evaluate(var evaluate))
                candidates.add(new DeviceExecutor.Candidate(run, operation, evaluate));
        }));
        return new Turn.Pass(candidates);
    }
}
