package bios.coordinator.run;

import bios.protocol.checkpoint.BlobId;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;

/// The deletion of blobs that nothing of a run refers to any more. Nothing that could refer to them may be
/// written meanwhile. Belongs to one actor.
final class Garbage {
    private final RunContext context;
    private final AtomicBoolean living = new AtomicBoolean(true);
    private boolean freeing;
    private boolean held;

    Garbage(RunContext context) {
        this.context = context;
    }

    /// Whether blobs are being deleted.
    boolean freeing() {
        return freeing;
    }

    /// Deletes what the run does not need; [Internal.Freed] or [Internal.NotFreed] says what came of it.
    ///
    /// @param writing whether something is being written that could refer to it: then nothing is deleted
    void free(TrainingRun run, boolean writing) {
        if (freeing || held || writing || run.garbage().isEmpty()) return;
        freeing = true;
        List<BlobId> blobs = run.garbage();
        context.later(() -> {
            // What an entity of before deletes late may be there anew.
            for (BlobId blob : blobs) if (living.get()) context.world().blobs().delete(blob);
            return blobs;
        }, (freed, failure) -> failure == null
                ? new Internal.Freed(freed) : new Internal.NotFreed(failure.toString()));
    }

    /// They are deleted.
    void freed() {
        freeing = false;
    }

    /// They are not; it is tried again after a while.
    void notFreed(String why) {
        freeing = false;
        held = true;
        context.warn("blobs cannot be deleted yet: {}", why);
        context.after(context.settings().retryAfter(), "free", new Internal.FreeAgain());
    }

    /// The while is over.
    void again() {
        held = false;
    }

    /// The entity ends, and deletes nothing any more.
    void end() {
        living.set(false);
    }
}
