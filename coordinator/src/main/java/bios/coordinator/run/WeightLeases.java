package bios.coordinator.run;

import bios.coordinator.run.PendingOperation.Outcome;
import bios.coordinator.run.RunEvent.Unnamed;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/// Who uses the weights of a run to which no name refers: replaced versions, snapshots that newer ones have
/// followed, and checkpoints that were removed after another run has loaded them. They are released when the
/// last use, by a sampler or by a run that loaded them, is longer ago than the lease. Belongs to one actor.
///
/// Uses are not in the journal: an entity that begins considers everything used at that moment. So a use that
/// was confirmed is good for a lease, whatever fails; only the release is an event, and the journal accepts
/// it from the responsible entity only. Leases are measured: no setting of a clock ends or extends them.
final class WeightLeases {
    /// The use of a version that nobody has asked for while its name referred to it, or that no other run has
    /// loaded.
    private static final long NEVER = Long.MIN_VALUE;
    /// Releases are combined: the timer runs at most this many times in a lease. A version that nobody has
    /// asked for stays for a part of the lease after it was replaced: an entity that was considered dead may
    /// have told a client of it meanwhile.
    private static final int PARTS = 8;

    private final RunContext context;
    private long began;
    /// The last use of each adapter since the entity began.
    private final Map<BlobId, Long> used = new HashMap<>();
    /// The last time that another run said that it has loaded an adapter.
    private final Map<BlobId, Long> loaded = new HashMap<>();
    private boolean scheduled;

    WeightLeases(RunContext context) {
        this.context = context;
    }

    /// The entity is responsible from now on.
    void begin() {
        began = context.elapsedMillis();
    }

    /// Records the use of weights.
    ///
    /// @param loads whether another run may have to load them again
    void use(BlobId adapter, boolean loads) {
        used.put(adapter, context.elapsedMillis());
        if (loads) loaded.put(adapter, context.elapsedMillis());
    }

    /// Records a new checkpoint or snapshot. Its creation is a use of a snapshot only: a version is found by
    /// its name until it is replaced.
    ///
    /// @param run with the checkpoint
    void committed(TrainingRun run, CheckpointManifest manifest) {
        loaded.putIfAbsent(manifest.adapter().id(), NEVER);
        if (manifest.name().isEmpty()) {
            use(manifest.adapter().id(), false);
            return;
        }
        long lease = context.settings().lease().toMillis();
        used.putIfAbsent(manifest.adapter().id(), NEVER);
        for (Unnamed each : unnamed(run))
            if (lastUse(each) == NEVER)
                used.put(each.adapter(), context.elapsedMillis() - lease + lease / PARTS);
    }

    private long lastUse(Unnamed weights) {
        return used.getOrDefault(weights.adapter(), began);
    }

    /// Whether another run may have to load an adapter again: until then a recovery of that run needs it.
    boolean mayBeLoaded(BlobId adapter) {
        return loaded.getOrDefault(adapter, began)
                > context.elapsedMillis() - context.settings().lease().toMillis();
    }

    /// Whether there are weights to which no name refers, or weights of another run that this one may have to
    /// load again.
    boolean waits(TrainingRun run) {
        return !unnamed(run).isEmpty() || foreign(run).findAny().isPresent();
    }

    private List<Unnamed> unnamed(TrainingRun run) {
        return run.checkpoints().unnamed(context.settings().newestSnapshots());
    }

    /// Schedules [SelfMessage.ReleaseWeights] for the end of the next lease, or at once if there are too
    /// many.
    void schedule(TrainingRun run) {
        List<Unnamed> unnamed = unnamed(run);
        int most = context.settings().maxUnnamed();
        boolean full = excess(unnamed) > most / PARTS;
        if (unnamed.isEmpty() || scheduled && !full) return;
        scheduled = true;
        long lease = context.settings().lease().toMillis();
        long first = unnamed.stream().mapToLong(this::lastUse).min().orElseThrow();
        long left = first + lease - context.elapsedMillis();
        long wait = full ? 0 : Math.clamp(left, Math.max(1, lease / PARTS), lease);
        context.after(Duration.ofMillis(wait), "leases", new SelfMessage.ReleaseWeights());
    }

    /// How many more weights there are than are kept without being in use by another run.
    private int excess(List<Unnamed> unnamed) {
        int loads = (int) unnamed.stream().filter(each -> mayBeLoaded(each.adapter())).count();
        return unnamed.size() - loads - context.settings().maxUnnamed();
    }

    /// Handles [SelfMessage.ReleaseWeights]. Returns the weights that nobody uses.
    List<Unnamed> over(TrainingRun run) {
        scheduled = false;
        List<Unnamed> unnamed = unnamed(run);
        Set<BlobId> kept = run.checkpoints().all().map(m -> m.adapter().id()).collect(Collectors.toSet());
        used.keySet().retainAll(kept);
        loaded.keySet().retainAll(kept);
        long before = context.elapsedMillis() - context.settings().lease().toMillis();
        int excess = excess(unnamed);
        var released = new ArrayList<Unnamed>();
        for (Unnamed each : unnamed.stream().sorted(Comparator.comparingLong(this::lastUse)).toList()) {
            boolean over = lastUse(each) <= before || released.size() < excess;
            if (over && !mayBeLoaded(each.adapter())) released.add(each);
        }
        return released;
    }

    // Weights of other runs

    private Stream<CheckpointManifest> foreign(TrainingRun run) {
        return run.pending().stream().flatMap(operation -> switch (operation.outcome()) {
            case Outcome.Resolved(var manifest) -> Stream.of(manifest);
            case Outcome.Applied(var manifest) -> Stream.of(manifest);
            case Outcome.Open _, Outcome.Committed _, Outcome.Failed _, Outcome.Dropped _ ->
                    Stream.empty();
        }).filter(manifest -> !manifest.run().equals(context.id()));
    }

    /// Asks other runs to keep what this run has loaded from them and may have to load again, until its next
    /// recovery point. [SelfMessage.ForeignKept] and later [SelfMessage.KeepForeign] follow.
    void keepForeign(TrainingRun run) {
        List<CheckpointManifest> foreign = foreign(run).toList();
        if (foreign.isEmpty()) return;
        String owner = run.config().orElseThrow().owner();
        keepForeignAfter(context.settings().leaseRenewal());
        for (CheckpointManifest each : foreign)
            context.whenDone(context.environment().resolver().keepWeights(owner, each.adapter().id(), true),
                    (reply, failure) -> new SelfMessage.ForeignKept(failure == null
                            && !(reply instanceof RunReply.Refused(var reason, _)
                                    && reason == Reason.UNAVAILABLE)));
    }

    /// Schedules [SelfMessage.KeepForeign].
    void keepForeignAfter(Duration time) {
        context.after(time, "foreign", new SelfMessage.KeepForeign());
    }
}
