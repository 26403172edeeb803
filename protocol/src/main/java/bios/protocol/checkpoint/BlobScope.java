package bios.protocol.checkpoint;

import bios.protocol.run.RunId;

/// The scopes of the blobs of a run. Only the entity of the run deletes blobs in them.
public final class BlobScope {
    private BlobScope() {}

    /// The scope of all blobs of a run.
    public static String run(RunId run) {
        return "runs/" + run;
    }

    /// The encoded operation that a client sent under `seq`. One scope per number, so that two operations of
    /// equal content never share a blob: the run deletes each after the next recovery point.
    public static String operation(RunId run, long seq) {
        return run(run) + "/operations/" + seq;
    }

    /// Adapters and optimizer states of checkpoints and snapshots.
    public static String checkpoints(RunId run) {
        return run(run) + "/checkpoints";
    }

    /// Recovery points.
    public static String recovery(RunId run) {
        return run(run) + "/recovery";
    }

    /// Results before the recovery point that clients may still retrieve.
    public static String results(RunId run) {
        return run(run) + "/results";
    }
}
