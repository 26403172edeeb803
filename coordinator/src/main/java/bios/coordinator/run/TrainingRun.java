package bios.coordinator.run;

import static bios.protocol.Require.require;

import bios.coordinator.run.PendingOperation.Outcome;
import bios.coordinator.run.RunEvent.*;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.TargetModule;
import bios.protocol.run.DeathReport;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationKind;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunConfig;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.RunUsage;
import bios.protocol.run.StorageUse;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;
import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.annotation.JsonProperty;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/// A training run: its accepted operations, its last recovery point, and its checkpoints. Pure: no clock, no
/// actor, no I/O; the same events give the same run.
///
/// @param config empty until the run is created
/// @param lora the adapter's shape now; empty until the run is created
/// @param accepted the position of the last accepted operation; 0: none
/// @param known the sequence numbers that were accepted
/// @param pending the operations after the recovery point, in order
/// @param recovery the last recovery point
/// @param trained whether an operation before the recovery point changed the weights
/// @param blocking the failure because of which later operations fail, so that training does not continue
///     unnoticed
/// @param suspect the operation that was being executed when a worker ended
/// @param garbage blobs without references, to be deleted
/// @param lastRequestMillis when the last operation was accepted
/// @param closed whether the run was unloaded
/// @param history the newest entries of the history, the newest last
/// @param executedUpTo operations up to this position were executed to their end; a lower bound
/// @param deaths the last known end of each worker, by its register
/// @param setAside the operation that is not tried again by itself
/// @param usage what its operations up to the recovery point have used; empty: nothing is counted yet
/// @param storage its named checkpoints by the hour; empty: none has changed yet
/// @param givenUp events up to this number that the journal lacks were given up; empty: none were
public record TrainingRun(Optional<RunConfig> config, Optional<LoraSpec> lora, long accepted,
        IntervalSet known,
        @JsonProperty("line") List<PendingOperation> pending, RecoveryPoint recovery, boolean trained,
        Checkpoints checkpoints,
        @JsonProperty("poison") Optional<BlockingFailure> blocking,
        @JsonProperty("attempt") Optional<Suspect> suspect, List<BlobId> garbage, long lastRequestMillis,
        boolean closed,
        @JsonInclude(JsonInclude.Include.NON_EMPTY) List<HistoryEntry> history,
        @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Long> executedUpTo,
        @JsonInclude(JsonInclude.Include.NON_EMPTY) Map<String, WorkerDeath> deaths,
        @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<SetAside> setAside,
        @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<RunUsage> usage,
        @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<StorageUse> storage,
        @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Long> givenUp) {
    /// The run before it is created.
    public static final TrainingRun NONE = new TrainingRun(Optional.empty(), Optional.empty(), 0,
            IntervalSet.EMPTY, List.of(),
            new RecoveryPoint(0, Optional.empty(), 0, Optional.empty(), Optional.empty(), List.of(),
                    Optional.empty()),
            false,
            Checkpoints.NONE, Optional.empty(), Optional.empty(), List.of(), 0, false, List.of(),
            Optional.empty(), Map.of(), Optional.empty(), Optional.empty(), Optional.empty(),
            Optional.empty());

    /// The fault of an `optim_step` without a gradient. It does not block later operations.
    public static final String NO_GRADIENT = "no_gradient";
    private static final int MOST_WORKERS = 16;

    /// The fault of the next operation after an operator gave up lost events of the run: its client trains on
    /// only when it knows.
    private static final Fault DATA_LOST = Fault.server("data_lost", "the journal lost acknowledged"
            + " operations of this run, and the operator gave them up: its state is an older one. Its history"
            + " says what was given up. Ask for its step, and repeat what is missing or load a checkpoint");

    /// The recovery point: a recovery replays the operations after it.
    ///
    /// @param position operations up to it are in `state`; 0: the new adapter
    /// @param lora the adapter's shape in it; empty at position 0
    /// @param results the results as an earlier build stored them, instead of `pages`
    /// @param pages results up to `position`, oldest first
    /// @param openSum present: the gradient sum in it holds what no step has applied
    public record RecoveryPoint(long position, Optional<BlobRef> state, long step, Optional<LoraSpec> lora,
            Optional<BlobRef> results,
            @JsonInclude(JsonInclude.Include.NON_EMPTY) List<ResultsPage> pages,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Boolean> openSum) {
        public RecoveryPoint {
            pages = pages == null ? List.of() : List.copyOf(pages); // absent in snapshots of an earlier build
            openSum = openSum == null ? Optional.empty() : openSum; // as are these
        }

        /// All pages, including those of an earlier build.
        List<ResultsPage> allPages() {
            return results.map(blob -> List.of(ResultsPage.unknown(blob, position))).orElse(pages);
        }
    }

    /// A failed operation that changes state.
    ///
    /// @param until operations after this position were accepted when the client knew of the failure; empty:
    ///     the client does not know of it yet
    /// @param nextStep present: it also blocks the next optimizer step, whenever that is accepted. The
    ///     failure is that of a part of a batch, which its client may have asked for before it has sent the
    ///     step, and the sum holds other parts
    /// @param lacksPart present: the gradient sum lacks what the operation would have added, so an optimizer
    ///     step that it blocks drops the sum
    /// @param forwardBackwardSeq the client's number of the operation, if it is a `forward_backward`
    /// @param stepAfter the position of a late part of the batch, because of which it blocks the next step:
    ///     steps before it may have been executed. Empty: steps after `position`
    public record BlockingFailure(long position, Fault why, Optional<Long> until,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Boolean> nextStep,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Boolean> lacksPart,
            @JsonInclude(JsonInclude.Include.NON_ABSENT)
            @JsonProperty("pass") Optional<Long> forwardBackwardSeq,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Long> stepAfter) {
        public BlockingFailure {
            // These are absent in earlier builds.
            forwardBackwardSeq = forwardBackwardSeq == null ? Optional.empty() : forwardBackwardSeq;
            nextStep = nextStep == null ? Optional.empty() : nextStep;
            lacksPart = lacksPart == null ? Optional.empty() : lacksPart;
            stepAfter = stepAfter == null ? Optional.empty() : stepAfter;
        }

        BlockingFailure(long position, Fault why, Optional<Long> until) {
            this(position, why, until, Optional.empty(), Optional.empty(), Optional.empty(),
                    Optional.empty());
        }

        private BlockingFailure until(long seen) {
            return new BlockingFailure(position, why, Optional.of(seen), nextStep, lacksPart,
                    forwardBackwardSeq, stepAfter);
        }

        private BlockingFailure withoutNextStep() {
            return new BlockingFailure(position, why, until, Optional.empty(), lacksPart,
                    forwardBackwardSeq, Optional.empty());
        }

        private BlockingFailure withLatePart(long part) {
            return nextStep.isPresent() ? this : new BlockingFailure(position, why, until, Optional.of(true),
                    lacksPart, forwardBackwardSeq, Optional.of(part));
        }

        /// Whether a `forward_backward` of this number belongs to the batch of the failed one, though its
        /// client knows of the failure. Clients number the parts of a batch before they send them, and send
        /// the first one last; what they send because of the failure has a higher number.
        boolean isPartOf(long seq) {
            return until.isPresent() && forwardBackwardSeq.filter(failed -> seq < failed).isPresent();
        }

        boolean blocks(long later) {
            return later > position && (until.isEmpty() || later <= until.get());
        }
    }

    /// An operation that was being executed when a worker ended. It is executed alone until it has been
    /// executed to its end.
    ///
    /// @param times meant something else in builds before; not read
    public record Suspect(long position, int times) {}

    /// The last known end of a worker.
    ///
    /// @param number its number in the worker's register
    /// @param alone counted ends of the worker, up to this one, during the suspected operation alone
    public record WorkerDeath(long number, int alone) {}

    /// An operation that is not tried again by itself; those after it wait. If its owner goes on after having
    /// been told, it fails, and so do those that were accepted before. One that was executed before and whose
    /// replay differs waits until its owner decides.
    ///
    /// @param until operations after this position were accepted when the client knew of it; empty: the
    ///     client does not know of it yet
    public record SetAside(long position, Fault why, Optional<Long> until) {
        /// Whether the operation at `later` waits for the operation or is it.
        boolean holds(long later) {
            return later >= position && (until.isEmpty() || later <= until.get() || differs());
        }

        /// Whether the operation was executed before, and its replay fails.
        boolean differs() {
            return why.code().equals(ReplayPolicy.REPLAY_DIFFERS);
        }
    }

    /// The decision about a command.
    public sealed interface Decision {
        /// Persist the events, then confirm.
        record Accept(List<RunEvent> events) implements Decision {}

        /// The command was executed before: confirm and persist nothing.
        record Duplicate() implements Decision {}

        /// Refuse the command and persist nothing.
        record Refuse(Reason reason, String message) implements Decision {}
    }

    /// The values that limit the acceptance of operations.
    ///
    /// @param unfinished operations accepted and not finished
    /// @param unfinishedBytes their bytes
    /// @param ofOwner unfinished operations of all runs of the owner on this node
    /// @param bytesOfOwner bytes of these operations
    public record Backlog(int unfinished, long unfinishedBytes, int ofOwner, long bytesOfOwner) {}

    public TrainingRun {
        pending = List.copyOf(pending);
        garbage = List.copyOf(garbage);
        // Snapshots of builds without histories have no history.
        history = history == null ? List.of() : List.copyOf(history);
        deaths = deaths == null ? Map.of() : Map.copyOf(deaths);
        executedUpTo = executedUpTo == null ? Optional.empty() : executedUpTo;
        setAside = setAside == null ? Optional.empty() : setAside;
        usage = usage == null ? Optional.empty() : usage; // absent in snapshots of earlier builds
        storage = storage == null ? Optional.empty() : storage; // the same
        givenUp = givenUp == null ? Optional.empty() : givenUp; // the same
    }

    // Decisions

    /// Moves the run to a project.
    Decision setProject(Optional<String> project) {
        return config.orElseThrow().project().equals(project) ? new Decision.Duplicate()
                : new Decision.Accept(List.of(new ProjectSet(project)));
    }

    /// Creates the run, once.
    Decision create(RunConfig wanted) {
        if (config.isEmpty()) return new Decision.Accept(List.of(new RunCreated(wanted)));
        RunConfig have = config.get();
        return wanted.sameAs(have)
                ? new Decision.Duplicate()
                : new Decision.Refuse(Reason.CONFLICT,
                        "run " + have.run() + " exists with another configuration");
    }

    /// Decides whether an operation is accepted, repeated or refused.
    ///
    /// @param remembered the digest of operation `seq` if the operation is before the recovery point and its
    ///     result is still kept
    /// @param executedNow operations up to this position were executed to their end
    Decision submit(long seq, StoredOperation operation, String digest, long nowMillis,
            Optional<String> remembered, Backlog backlog, long executedNow, RunSettings settings) {
        if (seq < 0) return new Decision.Refuse(Reason.INVALID, "seq_id " + seq + " is negative");
        if (known.contains(seq)) {
            Optional<String> first = remembered.or(() -> bySeq(seq).map(PendingOperation::digest));
            return first.isPresent() && !first.get().equals(digest)
                    ? new Decision.Refuse(Reason.CONFLICT, usedOtherwise(seq))
                    : new Decision.Duplicate();
        }
        if (closed) return new Decision.Refuse(Reason.CLOSED,
                "the run was unloaded; create a new one from a checkpoint");
        if (backlog.unfinished() >= settings.maxUnfinished())
            return new Decision.Refuse(Reason.TOO_MANY,
                    backlog.unfinished() + " operations of this run are not finished; wait for some of them");
        if (backlog.unfinishedBytes() + operation.bytes() > settings.maxUnfinishedBytes()
                && backlog.unfinished() > 0)
            return new Decision.Refuse(Reason.TOO_MANY, backlog.unfinishedBytes()
                    + " bytes of this run's operations are not finished; wait for some of them");
        if (backlog.ofOwner() >= settings.maxUnfinishedPerOwner())
            return new Decision.Refuse(Reason.TOO_MANY, backlog.ofOwner()
                    + " operations of this account are not finished; wait for some of them");
        long bytesOfOwner = settings.maxUnfinishedBytesOf(config.map(RunConfig::owner).orElse(""));
        if (backlog.bytesOfOwner() + operation.bytes() > bytesOfOwner
                && backlog.ofOwner() > 0)
            return new Decision.Refuse(Reason.TOO_MANY, backlog.bytesOfOwner() + " bytes of this account's"
                    + " operations are not finished, and " + bytesOfOwner + " is its limit (queued-bytes);"
                    + " wait for some of them");
        if (PendingOperation.saves(operation.kind()) && isFull(operation, settings))
            return new Decision.Refuse(Reason.LIMIT, "the run has " + settings.maxCheckpoints()
                    + " checkpoints, which is the limit (bios.run.max-checkpoints); delete some, give them an"
                    + " expiry, or save under a name that exists");
        boolean rest = operation.kind() == OperationKind.FORWARD_BACKWARD
                && blocking.filter(failure -> failure.isPartOf(seq)).isPresent();
        return new Decision.Accept(
                List.of(new OperationAccepted(accepted + 1, seq, operation, digest, nowMillis,
                        Optional.of(executedNow).filter(at -> at > executed()),
                        Optional.of(rest).filter(yes -> yes))));
    }

    /// Whether a save would need one more checkpoint than a run may have. Snapshots and replaced versions
    /// have a limit of their own, see [WeightLeases].
    private boolean isFull(StoredOperation save, RunSettings settings) {
        if (checkpoints.versions().size() < settings.maxCheckpoints()
                || checkpoints.names() < settings.maxCheckpoints()) return false;
        if (!(save instanceof StoredOperation.Inline(var kind, var encoded))) return true;
        Optional<CheckpointName> name = switch (StoredOperations.decode(kind, encoded)) {
            case Operation.SaveState state -> Optional.of(state.name());
            case Operation.SaveSamplerWeights weights -> weights.name();
            case Operation other -> throw new IllegalStateException("not a save: " + other);
        };
        return name.isPresent() && !checkpoints.replaces(kind, name);
    }

    /// Whether the blob of an operation is so old that it may have been considered abandoned.
    ///
    /// @param submittedMillis the time of the submission, by the clock that named the blob
    boolean isLate(StoredOperation operation, long submittedMillis, RunSettings settings) {
        return StoredOperations.input(operation).filter(blob -> garbage.contains(blob.id())
                || BlobScope.sentMillis(blob.id()).filter(sent ->
                        sent < submittedMillis - settings.sweepAfter().toMillis() / 2).isPresent())
                .isPresent();
    }

    /// Why a number is refused that another operation had.
    static String usedOtherwise(long seq) {
        return "seq_id " + seq + " was used for another operation; use a new number";
    }

    /// The event of a load of `manifest` at `position`: [LoadResolved], or [OperationFailed] if it cannot be
    /// loaded.
    RunEvent load(long position, CheckpointManifest manifest, boolean optimizer) {
        RunConfig own = config.orElseThrow();
        String path = manifest.path().map(Object::toString).orElse("the snapshot " + manifest.contentId());
        boolean uploaded = BlobScope.isInput(manifest.adapter().id());
        if (manifest.run().equals(own.run()) && !uploaded && !checkpoints.holds(manifest))
            return refuse(position, "checkpoint_not_found", path + " was deleted");
        if (!manifest.baseModel().equals(own.baseModel()))
            return refuse(position, "base_model_mismatch",
                    path + " was made from " + manifest.baseModel() + ", this run trains " + own.baseModel());
        if (manifest.baseFingerprint().isPresent() && own.fingerprint().isPresent()
                && !manifest.baseFingerprint().equals(own.fingerprint()))
            return refuse(position, "base_model_mismatch", path + " was made on other weights of "
                    + own.baseModel() + " (" + manifest.baseFingerprint().get() + ") than this run trains ("
                    + own.fingerprint().get() + "); load it into a run that is created on those weights");
        if (optimizer && manifest.kind() == CheckpointKind.SAMPLER)
            return refuse(position, "weights_only",
                    path + " holds weights only, no optimizer state; load a path of save_state,"
                    + " or load the weights without the optimizer");
        if (optimizer && !manifest.optimizerType().equals("adamw"))
            return refuse(position, "optimizer_mismatch",
                    path + " was trained with " + manifest.optimizerType()
                    + ", this run uses adamw; load the weights without the optimizer");
        LoraSpec shape = lora.orElseThrow();
        boolean adoptsShape = !own.loraChosen() && !trainedBefore(position);
        if (!adoptsShape && !shape.compatible(manifest.lora()))
            return refuse(position, "lora_mismatch",
                    path + " has " + words(manifest.lora()) + ", this run has " + words(shape));
        return new LoadResolved(position, manifest);
    }

    private OperationFailed refuse(long position, String code, String message) {
        return failed(position, Fault.user(code, message));
    }

    /// The failure of the operation at `position` by itself. Where the gradient sum holds other parts of what
    /// may be the same batch, the next step must not apply these, even if the client asks for the failure
    /// before it sends the step. A load that fails leaves such a sum as it is.
    OperationFailed failed(long position, Fault why) {
        Optional<OperationKind> kind = at(position).map(PendingOperation::kind);
        boolean part = kind.filter(k -> k == OperationKind.FORWARD_BACKWARD).isPresent()
                && blockedBy(position).isEmpty() && sumIsOpen(position);
        boolean kept = kind.filter(k -> k == OperationKind.LOAD_STATE).isPresent()
                && blocking.flatMap(BlockingFailure::nextStep).isPresent();
        return new OperationFailed(position, why, Optional.empty(), Optional.empty(),
                Optional.of(part || kept).filter(yes -> yes));
    }

    /// Whether the gradient sum before `position` holds what no step has applied.
    private boolean sumIsOpen(long position) {
        for (long before = position - 1; before > recovery.position(); before--) {
            PendingOperation operation = at(before).orElseThrow();
            boolean done = operation.fault().isEmpty();
            switch (operation.kind()) {
                case FORWARD_BACKWARD -> {
                    if (done) return true;
                }
                case OPTIM_STEP, LOAD_STATE -> {
                    if (done || operation.outcome() instanceof Outcome.Dropped) return false;
                }
                case FORWARD, SAVE_STATE, SAVE_SAMPLER_WEIGHTS -> {}
            }
        }
        return recovery.openSum().isPresent();
    }

    private static String words(LoraSpec spec) {
        return "rank " + spec.rank() + ", alpha " + spec.alpha() + " on "
                + String.join(", ", spec.targets().stream().map(TargetModule::peftName).toList());
    }

    private boolean trainedBefore(long position) {
        return trained || pending.stream().anyMatch(e -> e.position() < position && trains(e));
    }

    private static boolean trains(PendingOperation operation) {
        boolean changes = operation.kind() == OperationKind.FORWARD_BACKWARD
                || operation.kind() == OperationKind.OPTIM_STEP;
        return changes && operation.fault().isEmpty();
    }

    /// The earlier failure that blocks the operation at `position`, if there is one.
    Optional<Fault> blockedBy(long position) {
        return blockedBy(position, false);
    }

    /// The same, where a step before it is about to fail because of the failure: then it is not the next one.
    Optional<Fault> blockedBy(long position, boolean stepFails) {
        return blocking.filter(b -> b.blocks(position) || b.nextStep().isPresent() && !stepFails
                && position > b.stepAfter().orElse(b.position())
                && at(position).filter(o -> o.kind() == OperationKind.OPTIM_STEP).isPresent())
                .map(BlockingFailure::why);
    }

    /// The failure of the operation at `position`, which an earlier failure blocks. A step that would apply
    /// the rest of a batch drops it: what the other parts have added is never applied later.
    OperationFailed blocked(long position, Fault why) {
        boolean drops = at(position).filter(o -> o.kind() == OperationKind.OPTIM_STEP).isPresent()
                && blocking.filter(b -> b.lacksPart().isPresent() || b.nextStep().isPresent()).isPresent();
        return new OperationFailed(position, why, Optional.empty(),
                Optional.of(drops).filter(yes -> yes), Optional.empty());
    }

    /// The failures of all operations that an earlier failure blocks, from `from` on, up to the next load.
    List<RunEvent> allBlocked(long from, Fault why) {
        var failures = new ArrayList<RunEvent>();
        boolean stepFails = false;
        for (long position = from; at(position).isPresent(); position++) {
            PendingOperation operation = at(position).get();
            if (operation.kind() == OperationKind.LOAD_STATE || blockedBy(position, stepFails).isEmpty())
                break;
            if (operation.needsInput()) failures.add(blocked(position, why));
            stepFails |= operation.kind() == OperationKind.OPTIM_STEP;
        }
        return failures;
    }

    /// The events with which the owner gives up an operation that waits: it fails, and so do those that would
    /// train past it.
    List<RunEvent> givenUp(PendingOperation operation, Fault why) {
        long position = operation.position();
        Optional<Fault> blocked = operation.kind() == OperationKind.LOAD_STATE
                ? Optional.empty() : blockedBy(position);
        if (blocked.isPresent()) return allBlocked(position, blocked.get());
        var events = new ArrayList<RunEvent>(List.of(failed(position, why), new ErrorSeen(accepted)));
        TrainingRun after = this;
        for (RunEvent event : events) after = after.apply(event);
        if (blocksLater(operation, why)) events.addAll(after.allBlocked(position + 1, why));
        return events;
    }

    /// Whether the blocking failure, or that an operation was set aside, becomes known to the client when it
    /// receives the failure at `position`.
    boolean wouldBeSeen(long position) {
        if (setAside.filter(s -> s.until().isEmpty() && position >= s.position()).isPresent()) return true;
        return blocking.filter(p -> p.until().isEmpty() && position >= p.position()).isPresent();
    }

    /// Whether the failure of `operation` blocks later operations.
    static boolean blocksLater(PendingOperation operation, Fault why) {
        return operation.kind().changesState() && !why.code().equals(NO_GRADIENT);
    }

    // Workers that ended

    /// A position up to which all operations were executed to their end.
    long executed() {
        long durable = pending.stream().filter(o -> o.outcome() instanceof Outcome.Committed
                || o.outcome() instanceof Outcome.Applied).mapToLong(PendingOperation::position).max()
                .orElse(0);
        return Math.max(durable, Math.max(executedUpTo.orElse(0L), recovery.position()));
    }

    private Optional<Long> later(long position) {
        return Optional.of(Math.max(executed(), position)).filter(at -> at > recovery.position())
                .or(() -> executedUpTo);
    }

    /// Counted ends of workers during the suspected operation alone.
    int deathsAlone() {
        return deaths.values().stream().mapToInt(WorkerDeath::alone).sum();
    }

    /// Whether a report changes what is known.
    boolean learnsFrom(DeathReport report) {
        boolean newer = report.death() > Optional.ofNullable(deaths.get(report.worker()))
                .map(WorkerDeath::number).orElse(0L);
        long told = executedBy(report);
        boolean suspects = at(report.position()).filter(PendingOperation::needsInput).isPresent();
        boolean executes = told > executed() && pending.stream()
                .anyMatch(o -> !o.settled() && o.position() <= told);
        return newer && (suspects || suspect.isPresent()) || executes;
    }

    /// A position up to which operations of this run were executed to their end, as a report tells; 0: it
    /// tells none. A worker's marks do not know that events were given up and that their positions are used
    /// again. What they tell holds for the operations that were left, before another is accepted, and for
    /// positions that the given-up history did not have: it had no more operations than events.
    private long executedBy(DeathReport report) {
        long told = report.executed();
        boolean lost = givenUp.isPresent() && blocking.filter(b -> b.position() == accepted
                && b.why().code().equals(DATA_LOST.code())).isEmpty();
        return lost && (told <= givenUp.get() || told > accepted) ? 0 : Math.min(told, accepted);
    }

    private TrainingRun applyDeath(DeathReport report) {
        long known = Math.max(executed(), executedBy(report));
        boolean suspects = at(report.position()).filter(PendingOperation::needsInput).isPresent();
        Optional<Suspect> next = suspects ? Optional.of(new Suspect(report.position(), 0)) : suspect;
        var counted = new TreeMap<String, WorkerDeath>();
        deaths.forEach((worker, death) -> counted.put(worker, next.equals(suspect) ? death
                : new WorkerDeath(death.number(), 0)));
        counted.put(report.worker(), new WorkerDeath(report.death(), suspects ? report.alone() : 0));
        while (counted.size() > MOST_WORKERS) counted.remove(counted.entrySet().stream()
                .min(Comparator.comparingInt(e -> e.getValue().alone())).orElseThrow().getKey());
        return with(run -> {
            run.executedUpTo = later(known);
            run.deaths = counted;
        }).withSuspect(next.map(s -> new Suspect(s.position(), 0)));
    }

    /// The run without a suspected operation; the numbers of the last ends stay known.
    private TrainingRun unsuspected() {
        var counted = new TreeMap<String, WorkerDeath>();
        deaths.forEach((worker, death) -> counted.put(worker, new WorkerDeath(death.number(), 0)));
        return with(run -> run.deaths = counted).withSuspect(Optional.empty());
    }

    // Queries

    /// The operation at a position after the recovery point.
    Optional<PendingOperation> at(long position) {
        long index = position - recovery.position() - 1;
        return index < 0 || index >= pending.size()
                ? Optional.empty() : Optional.of(pending.get((int) index));
    }

    /// The operation with a sequence number, if it is after the recovery point.
    Optional<PendingOperation> bySeq(long seq) {
        return pending.stream().filter(e -> e.seq() == seq).findFirst();
    }

    /// Bytes of the operations in a snapshot of this run.
    long inlineBytes() {
        return pending.stream().filter(e -> e.operation() instanceof StoredOperation.Inline)
                .mapToLong(e -> e.operation().bytes()).sum();
    }

    /// Bytes of what the run stores beside the checkpoints that it shows: recovery point, results, operations
    /// behind it, snapshots, and versions that were saved over. What its owner has deleted does not count,
    /// though it may stay for other runs.
    long stateBytes(long nowMillis) {
        var bytes = new HashMap<BlobId, Long>();
        Stream<BlobRef> weights = checkpoints.found().flatMap(Checkpoints::refs);
        Stream<BlobRef> state = Stream.concat(recovery.state().stream(),
                recovery.allPages().stream().map(ResultsPage::blob));
        Stream.concat(weights, state).forEach(ref -> bytes.put(ref.id(), ref.bytes()));
        for (PendingOperation operation : pending)
            if (operation.needsInput())
                StoredOperations.input(operation.operation())
                        .ifPresent(blob -> bytes.put(blob.id(), blob.bytes()));
        checkpoints.current(nowMillis).stream().flatMap(Checkpoints::blobs).forEach(bytes::remove);
        return inlineBytes() + bytes.values().stream().mapToLong(Long::longValue).sum();
    }

    /// All blobs to which the run refers.
    Set<BlobId> referenced() {
        var all = new HashSet<BlobId>();
        checkpoints.all().flatMap(Checkpoints::blobs).forEach(all::add);
        for (PendingOperation operation : pending) blobs(operation).forEach(all::add);
        Stream.concat(recovery.state().stream(), recovery.allPages().stream().map(ResultsPage::blob))
                .forEach(ref -> all.add(ref.id()));
        return all;
    }

    /// The blobs to which the run refers, and those that it is about to delete.
    private Set<BlobId> owned() {
        Set<BlobId> all = referenced();
        all.addAll(garbage);
        return all;
    }

    /// Whether the journal has lost events of the run that were acknowledged and not given up.
    ///
    /// @param proven an event that the journal had ([BlobScope#event])
    /// @param last its newest event now
    boolean lacks(long proven, long last) {
        return proven > last && proven > givenUp.orElse(0L);
    }

    /// The blobs of a listing that have no owner.
    List<BlobId> abandoned(List<BlobId> listed) {
        Set<BlobId> owned = owned();
        return listed.stream().filter(each -> !owned.contains(each)).toList();
    }

    private Stream<BlobId> blobs(PendingOperation operation) {
        Stream<BlobId> payload = operation.needsInput()
                ? StoredOperations.input(operation.operation()).map(BlobRef::id).stream() : Stream.empty();
        Stream<BlobId> loaded = switch (operation.outcome()) {
            case Outcome.Resolved(var manifest) -> ownBlobs(manifest);
            case Outcome.Applied(var manifest) -> ownBlobs(manifest);
            case Outcome.Open _, Outcome.Committed _, Outcome.Failed _, Outcome.Dropped _ -> Stream.empty();
        };
        return Stream.concat(payload, loaded);
    }

    /// The blobs of a manifest, if they belong to this run.
    private Stream<BlobId> ownBlobs(CheckpointManifest manifest) {
        return manifest.run().equals(config.orElseThrow().run())
                ? Checkpoints.blobs(manifest) : Stream.empty();
    }

    // Events

    /// The run after an event, with the history after the event.
    ///
    /// @param kept maximum number of history entries
    TrainingRun apply(RunEvent event, int kept) {
        return apply(event).withHistory(RunHistory.after(this, event, kept));
    }

    /// The run after an event, with an unchanged history.
    TrainingRun apply(RunEvent event) {
        Optional<StorageUse> stored = storageAfter(event);
        TrainingRun next = applyAlone(event);
        return stored.equals(storage) ? next : next.with(run -> run.storage = stored);
    }

    /// What was stored up to an event that changes named checkpoints. Events of builds without stamps say no
    /// time.
    private Optional<StorageUse> storageAfter(RunEvent event) {
        StorageUse now = storage.orElse(StorageUse.NONE);
        return switch (event) {
            case CheckpointCommitted(_, var manifest, _, var stamp) when manifest.name().isPresent() -> {
                long at = stamp.map(RunEvent.Stamp::timeMillis).orElse(manifest.createdAtMillis());
                yield Optional.of(now.until(at, checkpoints.current(now.untilMillis())).saved(at));
            }
            case CheckpointDeleted(_, _, var stamp, _) -> storedUntil(stamp);
            case ExpirySet(_, _, _, var stamp) -> storedUntil(stamp);
            case CheckpointsExpired(var time, _, _) ->
                Optional.of(now.until(time, checkpoints.current(now.untilMillis())));
            default -> storage;
        };
    }

    private Optional<StorageUse> storedUntil(Optional<RunEvent.Stamp> stamp) {
        StorageUse now = storage.orElse(StorageUse.NONE);
        return stamp.map(s -> now.until(s.timeMillis(), checkpoints.current(now.untilMillis())))
                .or(() -> storage);
    }

    private TrainingRun applyAlone(RunEvent event) {
        return switch (event) {
            case RunCreated(var created, _) -> applyCreated(created);
            case OperationAccepted e -> applyAccepted(e);
            case LoadResolved(var at, var manifest) -> withOutcome(at, new Outcome.Resolved(manifest));
            case LoadApplied(var at, _) -> applyLoad(at);
            case OperationFailed(var at, var why, _, var drops, var rest) -> applyFailure(at,
                    drops.isPresent() ? new Outcome.Dropped(why) : new Outcome.Failed(why), why,
                    rest.isPresent());
            case ErrorSeen(var upTo) -> applySeen(upTo);
            case CheckpointCommitted e -> applyCommit(e);
            case CheckpointDeleted(var kind, var name, _, var retained) ->
                    withCheckpoints(checkpoints.delete(kind, name, retained));
            case ExpirySet(var kind, var name, var at, _) ->
                    withCheckpoints(checkpoints.expiry(kind, name, at));
            case PublicationSet(var kind, var name, var published, _) ->
                    withCheckpoints(checkpoints.publication(kind, name, published));
            case UsageCounted e -> withUsage(e);
            case ProjectSet(var project) -> withConfig(config.map(c -> c.in(project)));
            case CheckpointsExpired(var now, _, var retained) ->
                    withCheckpoints(checkpoints.expire(now, retained));
            case SnapshotsReleased(var session) -> withCheckpoints(checkpoints.release(session));
            case RecoveryPointReached e -> applyRecoveryPoint(e);
            case WorkerDied(var report, _) -> applyDeath(report);
            case OperationSetAside(var at, var why, _) ->
                    withSetAside(Optional.of(new SetAside(at, why, Optional.empty())));
            case OperationRetried _ -> unsuspected().withoutSetAside();
            case OperationAttempted(var at, _) -> applyAttempt(at);
            case ReplayBegan(var at) -> withSuspect(Optional.of(new Suspect(at, 0)));
            case ReplayFinished _ -> withSuspect(Optional.empty());
            case BlobsAbandoned(var blobs) -> applyAbandoned(blobs);
            case WeightsReleased(var weights) -> withCheckpoints(checkpoints.release(weights));
            case BlobsFreed(var blobs) ->
                    withGarbage(garbage.stream().filter(b -> !blobs.contains(b)).toList());
            case RunClosed _ -> applyClosed();
            case HistoryRecorded(var entry) -> entry.kind() == HistoryEntry.Kind.DATA_LOST
                    ? applyLoss(entry) : this;
            case EntityBegan _ -> this;
        };
    }

    private TrainingRun applySeen(long upTo) {
        Optional<SetAside> seen = setAside.map(s -> s.until().isPresent() ? s
                : new SetAside(s.position(), s.why(), Optional.of(upTo)));
        return withSetAside(seen).withBlocking(blocking.map(b -> b.until().isPresent() ? b : b.until(upTo)));
    }

    private TrainingRun applyCreated(RunConfig created) {
        require(config.isEmpty(), "run %s is created twice", created.run());
        return with(run -> {
            run.config = Optional.of(created);
            run.lora = Optional.of(created.lora());
            run.lastRequestMillis = created.createdAtMillis();
        });
    }

    private TrainingRun applyAccepted(OperationAccepted e) {
        require(e.position() == accepted + 1, "position %d follows %d", e.position(), accepted);
        var longer = new ArrayList<>(pending);
        longer.add(new PendingOperation(e.position(), e.seq(), e.operation(), e.digest(), e.timeMillis(),
                new Outcome.Open()));
        return with(run -> {
            run.accepted = e.position();
            run.known = known.with(e.seq());
            run.pending = longer;
            run.lastRequestMillis = e.timeMillis();
            run.executedUpTo = later(e.executed().orElse(0L));
            if (e.rest().isPresent()) run.blocking = blocking.map(b -> b.withLatePart(e.position()));
        });
    }

    private TrainingRun withOutcome(long position, Outcome now) {
        var changed = new ArrayList<>(pending);
        int index = (int) (position - recovery.position() - 1);
        require(index >= 0 && index < changed.size(), "position %d is not pending", position);
        changed.set(index, changed.get(index).with(now));
        return withPending(changed);
    }

    private TrainingRun applyLoad(long position) {
        PendingOperation operation = at(position).orElseThrow();
        var manifest = switch (operation.outcome()) {
            case Outcome.Resolved(var m) -> m;
            case Outcome.Applied(var m) -> m;
            case Outcome.Open _, Outcome.Committed _, Outcome.Failed _, Outcome.Dropped _ ->
                    throw new IllegalStateException("the load at " + position
                            + " was applied before it was resolved");
        };
        TrainingRun next = withOutcome(position, new Outcome.Applied(manifest))
                .withBlocking(blocking.filter(p -> p.position() > position));
        return next.withLora(Optional.of(manifest.lora()));
    }

    private TrainingRun applyFailure(long position, Outcome failed, Fault why, boolean rest) {
        PendingOperation operation = at(position).orElseThrow();
        TrainingRun next = withOutcome(position, failed);
        if (setAside.filter(s -> s.position() == position).isPresent()) next = next.withoutSetAside();
        if (suspect.filter(s -> s.position() == position).isPresent()) next = next.unsuspected();
        // A load is executed even if a failure blocks the run, so its failure is a new cause.
        boolean newCause = operation.kind() == OperationKind.LOAD_STATE || blockedBy(position).isEmpty();
        if (newCause && blocksLater(operation, why)) {
            boolean refused = operation.operation() instanceof StoredOperation.Refused;
            Optional<Boolean> part = Optional.of(refused || rest).filter(yes -> yes);
            Optional<Boolean> lacks = Optional.of(operation.kind() == OperationKind.FORWARD_BACKWARD || rest)
                    .filter(yes -> yes);
            next = next.withBlocking(Optional.of(
                    new BlockingFailure(position, why, Optional.empty(), part, lacks,
                            Optional.of(operation.seq()).filter(_ -> lacks.isPresent()),
                            Optional.empty())));
        } else if (operation.kind() == OperationKind.OPTIM_STEP) {
            next = next.withBlocking(blocking.map(BlockingFailure::withoutNextStep));
        }
        return next.collectGarbage(this);
    }

    private TrainingRun applyCommit(CheckpointCommitted e) {
        TrainingRun next = withOutcome(e.position(), new Outcome.Committed(e.manifest()))
                .withCheckpoints(checkpoints.commit(e.manifest(), e.session())).collectGarbage(this);
        Set<BlobId> now = Checkpoints.blobs(e.manifest()).collect(Collectors.toSet());
        return next.withGarbage(next.garbage.stream().filter(b -> !now.contains(b)).toList());
    }

    private TrainingRun applyRecoveryPoint(RecoveryPointReached e) {
        require(e.position() >= recovery.position() && e.position() <= accepted,
                "recovery point %d is outside the accepted operations", e.position());
        int passed = (int) (e.position() - recovery.position());
        boolean changed = trained || pending.subList(0, passed).stream().anyMatch(TrainingRun::trains);
        var point = new RecoveryPoint(e.position(), Optional.of(e.state()), e.step(),
                Optional.of(e.lora()), e.results(), e.pages(),
                Optional.of(sumIsOpen(e.position() + 1)).filter(yes -> yes));
        TrainingRun next = with(run -> {
            run.pending = pending.subList(passed, pending.size());
            run.recovery = point;
            run.trained = changed;
        });
        if (suspect.filter(s -> s.position() <= e.position()).isPresent()) next = next.unsuspected();
        return next.collectGarbage(this);
    }

    private TrainingRun applyAbandoned(List<BlobId> found) {
        Set<BlobId> owned = owned();
        return withGarbage(Stream.concat(garbage.stream(), found.stream().filter(b -> !owned.contains(b)))
                .toList());
    }

    /// Blobs of the events that were given up may still be there, and prove no other loss.
    private TrainingRun applyLoss(HistoryEntry entry) {
        Optional<Long> lost = Optional.ofNullable(entry.detail().get("acknowledged")).map(Long::valueOf);
        return with(run -> run.givenUp = Stream.concat(givenUp.stream(), lost.stream()).max(Long::compare))
                .withBlocking(Optional.of(new BlockingFailure(accepted, DATA_LOST, Optional.empty())));
    }

    private TrainingRun applyAttempt(long position) {
        int times = suspect.filter(a -> a.position() == position).map(Suspect::times).orElse(0);
        return withSuspect(Optional.of(new Suspect(position, times + 1)));
    }

    private TrainingRun applyClosed() {
        var point = new RecoveryPoint(accepted, Optional.empty(), recovery.step(), recovery.lora(),
                Optional.empty(), List.of(), Optional.empty());
        return with(run -> {
            run.pending = List.of();
            run.recovery = point;
            run.blocking = Optional.empty();
            run.suspect = Optional.empty();
            run.closed = true;
            run.setAside = Optional.empty();
        }).collectGarbage(this);
    }

    /// Adds the blobs to the garbage to which `before` refers and this run does not, and removes blobs to
    /// which this run refers again.
    private TrainingRun collectGarbage(TrainingRun before) {
        Set<BlobId> now = referenced();
        var all = new TreeSet<BlobId>((a, b) -> a.toString().compareTo(b.toString()));
        all.addAll(garbage);
        all.addAll(before.referenced());
        all.removeIf(now::contains);
        return withGarbage(List.copyOf(all));
    }

    // Copies

    /// A run that differs from this one in the fields that `change` assigns.
    private TrainingRun with(Consumer<TrainingRunFields> change) {
        var fields = new TrainingRunFields(this);
        change.accept(fields);
        return fields.run();
    }

    private TrainingRun withPending(List<PendingOperation> now) {
        return with(run -> run.pending = now);
    }

    private TrainingRun withConfig(Optional<RunConfig> now) {
        return with(run -> run.config = now);
    }

    private TrainingRun withUsage(UsageCounted e) {
        RunUsage more = usage.orElse(RunUsage.NONE).plus(e.position(), e.trainedTokens(),
                e.evaluatedTokens(), e.deviceNanos(), e.timeMillis());
        return with(run -> run.usage = Optional.of(more));
    }

    private TrainingRun withLora(Optional<LoraSpec> now) {
        return with(run -> run.lora = now);
    }

    private TrainingRun withCheckpoints(Checkpoints now) {
        return with(run -> run.checkpoints = now).collectGarbage(this);
    }

    private TrainingRun withBlocking(Optional<BlockingFailure> now) {
        return with(run -> run.blocking = now);
    }

    private TrainingRun withSuspect(Optional<Suspect> now) {
        return with(run -> run.suspect = now);
    }

    private TrainingRun withGarbage(List<BlobId> now) {
        return with(run -> run.garbage = now);
    }

    private TrainingRun withSetAside(Optional<SetAside> now) {
        return with(run -> run.setAside = now);
    }

    private TrainingRun withoutSetAside() {
        return withSetAside(Optional.empty());
    }

    private TrainingRun withHistory(List<HistoryEntry> now) {
        return with(run -> run.history = now);
    }
}
