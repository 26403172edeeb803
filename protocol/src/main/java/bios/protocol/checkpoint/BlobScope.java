package bios.protocol.checkpoint;

import bios.protocol.run.RunId;

/// The scopes under which parts of a run are stored. The entity of the run is the
/// only one that deletes there.
public final class BlobScope {
    private BlobScope() {}

    /// Everything of a run.
    public static String run(RunId run) {
        return "runs/" + run;
    }

    /// The encoded operation that a client sent under `seq`. One scope per number, so that two operations of
    /// equal content never share a blob: the run frees each behind the next recovery point.
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

    /// Results kept over a recovery point.
    public static String results(RunId run) {
        return run(run) + "/results";
    }
}
