package bios.coordinator.run;

import bios.persistence.index.RunIndex;
import bios.persistence.index.RunSummary;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobScope;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicBoolean;

/// The background work of a run: its row in the index, the deletion of blobs and the search for those without
/// an owner, the expiry of checkpoints.
/// Belongs to one actor.
///
/// The row is written when one of its fields has changed: immediately for rare changes (a checkpoint, the end
/// of the run), at most once per [#PERIOD] if only the step or the time of the last request has changed. One
/// write runs at a time.
final class RunMaintenance {
    /// The minimum time between two writes of the row because of steps and requests.
    static final Duration PERIOD = Duration.ofSeconds(2);
    /// A run that replays operations knows its step only afterwards; until then the old row is correct.
    private static final Duration REPLAY_DELAY = Duration.ofSeconds(10);
    /// Versions of the row for each sequence number of the journal; several are needed because steps have no
    /// event.
    private static final int VERSIONS = 1 << 16;
    private static final Duration LONGEST_EXPIRY_WAIT = Duration.ofHours(1);

    private record PendingSave(long version, long position) {}

    private final RunContext context;
    private final AtomicBoolean alive = new AtomicBoolean(true);
    private final List<PendingSave> pendingSaves = new ArrayList<>();
    private boolean writing;
    /// Whether [#PERIOD] has not elapsed since the last write.
    private boolean waiting;
    /// Whether the row must be written without waiting.
    private boolean urgent;
    /// Whether the row differs from the state of the run.
    private boolean dirty = true;
    private long indexedStep;
    private long indexedRequest;
    private Optional<String> indexedCorrupted = Optional.empty();
    private long indexedTokens;
    private long lastVersion;
    private boolean listing;
    /// Whether the last listing found no blob without an owner.
    private boolean swept;
    /// Blobs without an owner, and when they were first found so.
    private final Map<BlobId, Long> unowned = new HashMap<>();
    /// Whether the run is passivated as soon as a listing has found none.
    private boolean passivating;

    RunMaintenance(RunContext context) {
        this.context = context;
    }

    /// Ends the deletions: the entity stops.
    void close() {
        alive.set(false);
    }

    // The index

    /// Starts the maintenance of the row, which may be missing or old.
    ///
    /// @param replays whether operations are executed again first
    void begin(boolean replays) {
        if (replays) delay(REPLAY_DELAY);
        else urgent = true;
    }

    /// Whether the row is not up to date.
    boolean indexing() {
        return writing || dirty;
    }

    /// Requests a write of the row, which may wait.
    void indexSoon() {
        dirty = true;
    }

    /// Requests a write of the row without delay.
    void indexAtOnce() {
        urgent = true;
    }

    /// Adds a save that is in the journal; it is finished when the index contains it.
    ///
    /// @param sequence the sequence number of its event
    void awaitIndexed(long sequence, long position) {
        pendingSaves.add(new PendingSave(sequence * VERSIONS, position));
        urgent = true;
    }

    /// Writes the row if that is due. [SelfMessage.Indexed] follows.
    ///
    /// @param step optimizer steps known to be applied
    /// @param meter knows what the run has used
    /// @param sequence the sequence number of the run's last event
    void index(TrainingRun run, long step, UsageMeter meter, long sequence) {
        if (run.config().isEmpty()) return;
        Optional<String> corrupted = RunHistory.corrupted(run.history());
        dirty |= urgent || step != indexedStep || run.lastRequestMillis() != indexedRequest
                || !corrupted.equals(indexedCorrupted) || meter.tokens() != indexedTokens;
        if (writing || !dirty || waiting && !urgent) return;
        writing = true;
        dirty = false;
        urgent = false;
        indexedStep = step;
        indexedRequest = run.lastRequestMillis();
        indexedCorrupted = corrupted;
        indexedTokens = meter.tokens();
        var row = new RunSummary(run.config().orElseThrow(), run.lora().orElseThrow(), step,
                run.lastRequestMillis(), run.checkpoints().current(context.now()), run.closed(),
                corrupted, Optional.of(meter.now(context.now())).filter(used -> !used.none()),
                Optional.of(run.stateBytes(context.now())).filter(bytes -> bytes > 0), run.storage());
        long first = sequence * VERSIONS;
        long version = Math.clamp(lastVersion + 1, first, first + VERSIONS - 1);
        lastVersion = version;
        delay(PERIOD);
        context.later(() -> {
            RunIndex index = context.environment().index();
            if (holdsNothing(row)) index.remove(row.config().run());
            else index.put(row, version);
            return version;
        }, (_, failure) -> new SelfMessage.Indexed(version,
                Optional.ofNullable(failure).map(Throwable::toString)));
    }

    /// Whether the run was unloaded before anything was trained, evaluated or saved, like the run of an
    /// upload that its engine has refused. Such a run is not listed.
    private static boolean holdsNothing(RunSummary row) {
        return row.closed() && row.step() == 0 && row.checkpoints().isEmpty() && row.storage().isEmpty()
                && row.usage().filter(used -> used.trainedTokens() + used.evaluatedTokens() > 0).isEmpty();
    }

    private void delay(Duration time) {
        waiting = true;
        context.after(time, "index", new SelfMessage.IndexAgain());
    }

    /// Permits the next write: [#PERIOD] has elapsed.
    void permitWrite() {
        waiting = false;
    }

    /// Handles the end of a write. Returns the positions of the saves that are in the index now. If the write
    /// failed, it returns all, so that a failing index does not delay saves; the row is written again later.
    List<Long> finishWrite(SelfMessage.Indexed indexed) {
        writing = false;
        boolean failed = indexed.failure().isPresent();
        if (failed) {
            context.warn("the index does not show the last change of the run: {}", indexed.failure().get());
            dirty = true;
            delay(PERIOD);
        }
        List<PendingSave> done = pendingSaves.stream()
                .filter(save -> failed || save.version() <= indexed.version()).toList();
        pendingSaves.removeAll(done);
        if (!pendingSaves.isEmpty()) urgent = true;
        return done.stream().map(PendingSave::position).toList();
    }

    // Blobs

    /// Deletes blobs that nothing refers to. [RunInput.BlobsDeleted] or [RunInput.BlobsNotDeleted] follows.
    void delete(List<BlobId> blobs) {
        context.later(() -> {
            // A later entity of the run may have written the same blob again.
            for (BlobId blob : blobs) if (alive.get()) context.environment().blobs().delete(blob);
            return blobs;
        }, (deleted, failure) -> new SelfMessage.Step(failure == null
                ? new RunInput.BlobsDeleted(deleted) : new RunInput.BlobsNotDeleted(failure.toString())));
    }

    /// Schedules the next search for blobs without an owner.
    void scheduleSweep() {
        context.after(context.settings().sweepAfter(), "sweep", new SelfMessage.Sweep());
    }

    /// Lists the blobs of the run. [SelfMessage.Listed] follows.
    void sweep() {
        if (listing) return;
        listing = true;
        context.later(() -> context.environment().blobs().list(BlobScope.run(context.id())).stream()
                .map(each -> each.ref().id()).toList(),
                (listed, failure) -> new SelfMessage.Listed(failure == null ? listed : List.of(),
                        Optional.ofNullable(failure).map(Throwable::toString)));
    }

    /// Handles a listing. Returns the blobs to which nothing has referred for so long that no write in flight
    /// can name them. The time is measured here: no clock of another node or of the store is involved.
    List<BlobId> finishSweep(TrainingRun run, SelfMessage.Listed listed) {
        listing = false;
        scheduleSweep();
        listed.failure().ifPresent(why -> context.warn("the blobs of the run cannot be listed: {}", why));
        boolean passivates = passivating;
        passivating = false;
        swept = false;
        if (listed.failure().isPresent()) return List.of();
        long now = context.environment().nanos().getAsLong();
        List<BlobId> found = run.abandoned(listed.blobs());
        unowned.keySet().retainAll(found);
        found.forEach(each -> unowned.putIfAbsent(each, now));
        swept = found.isEmpty();
        if (swept && passivates) context.after(Duration.ZERO, RunTimer.Idle.class,
                new SelfMessage.TimerElapsed(new RunTimer.Idle()));
        long grace = context.settings().sweepAfter().toNanos();
        return found.stream().filter(each -> now - unowned.get(each) >= grace).toList();
    }

    /// Whether the run may be passivated: no blob waits for its deletion, and the last listing found none
    /// without an owner. Starts a listing if commands have arrived since then; if it finds none, the run is
    /// idle at once.
    boolean swept(TrainingRun run) {
        passivating = !swept;
        if (!swept) sweep();
        return swept && run.garbage().isEmpty();
    }

    /// Records that a command may have left a blob.
    void expectBlobs() {
        swept = false;
        passivating = false;
    }

    // Expiry

    /// Schedules [SelfMessage.Expire] for the time at which the next checkpoint expires.
    void scheduleExpiry(TrainingRun run) {
        run.checkpoints().nextExpiry().ifPresentOrElse(
                at -> context.after(Duration.ofMillis(Math.clamp(at - context.now(), 1,
                        LONGEST_EXPIRY_WAIT.toMillis())), "expiry", new SelfMessage.Expire()),
                () -> context.cancel("expiry"));
    }

    /// Whether a checkpoint has expired.
    boolean hasExpired(TrainingRun run) {
        return run.checkpoints().nextExpiry().filter(at -> at <= context.now()).isPresent();
    }
}
