package bios.protocol.checkpoint;

import bios.protocol.run.RunId;

/// The scopes of the blobs of a run. Only the entity of the run deletes blobs in them.
///
/// A scope names its writer: the entity (`home`, the sequence number of the first event that it persisted,
/// which no other entity can persist too), or the request. So no name has two writers, and an entity that was
/// wrongly considered dead cannot delete what a later one has written. Home 0 are the scopes of earlier
/// builds.
public final class BlobScope {
    private BlobScope() {}

    /// The scope of all blobs of a run.
    public static String run(RunId run) {
        return "runs/" + run;
    }

    /// The encoded operation that a client sent under `seq`. One scope per request, so that two operations of
    /// equal content never share a blob: the run deletes each after the next recovery point.
    ///
    /// @param request unique among the requests
    public static String operation(RunId run, long seq, String request) {
        return run(run) + "/operations/" + seq + "/" + request;
    }

    /// Adapters and optimizer states of checkpoints and snapshots.
    public static String checkpoints(RunId run, long home) {
        return of(run, "checkpoints", home);
    }

    /// Recovery points.
    public static String recovery(RunId run, long home) {
        return of(run, "recovery", home);
    }

    /// Results before the recovery point that clients may still retrieve.
    public static String results(RunId run, long home) {
        return of(run, "results", home);
    }

    private static String of(RunId run, String kind, long home) {
        return run(run) + "/" + kind + (home == 0 ? "" : "/" + home);
    }
}
