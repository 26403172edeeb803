package bios.protocol.checkpoint;

import bios.protocol.run.RunId;
import java.util.Optional;
import java.util.regex.Pattern;

/// The scopes of the blobs of a run. Only the entity of the run deletes blobs in them.
///
/// A scope names its writer: the incarnation of the entity, or the request. An incarnation is told by the
/// sequence number of the first event that it persisted, which no other can persist too; 0 is that of earlier
/// builds, which did not tell. So no name has two writers, and an entity that was wrongly considered dead
/// cannot delete what a later one has written.
///
/// An entity writes only when its first event is in the journal, so the name of a blob proves that the
/// journal had this event ([#event]): a journal without it has lost what was acknowledged.
public final class BlobScope {
    private static final Pattern NUMBER = Pattern.compile("\\d{1,18}");

    private BlobScope() {}

    /// The run to which a blob belongs.
    public static RunId run(BlobId blob) {
        String[] parts = blob.scope().split("/", 3);
        if (parts.length < 2 || !parts[0].equals("runs"))
            throw new IllegalArgumentException(blob + " does not belong to a run");
        return new RunId(parts[1]);
    }

    /// The scope of all blobs of a run.
    public static String run(RunId run) {
        return "runs/" + run;
    }

    /// The encoded operation that a client sent under `seq`. One scope per request, so that two operations of
    /// equal content never share a blob: the run deletes each after the next recovery point.
    ///
    /// @param sentMillis when the request was received: a run accepts no operation whose blob is so old
    ///     that it may have been considered abandoned
    /// @param request unique among the requests
    public static String operation(RunId run, long seq, long sentMillis, String request) {
        return run(run) + "/operations/" + seq + "/" + sentMillis + "." + request;
    }

    /// When the request was received for which [#operation] named a blob; empty for the names of earlier
    /// builds.
    public static Optional<Long> sentMillis(BlobId operation) {
        String[] parts = operation.scope().split("/");
        return parts.length == 5 ? Optional.of(Long.parseLong(parts[4].split("[.]")[0])) : Optional.empty();
    }

    /// Whether a blob is the input of an operation: the operation itself, or an adapter that it loads.
    public static boolean isInput(BlobId blob) {
        String[] parts = blob.scope().split("/");
        return parts.length > 2 && parts[2].equals("operations");
    }

    /// Adapters and optimizer states of checkpoints and snapshots.
    public static String checkpoints(RunId run, long incarnation) {
        return of(run, "checkpoints", incarnation);
    }

    /// Recovery points.
    public static String recovery(RunId run, long incarnation) {
        return of(run, "recovery", incarnation);
    }

    /// Results before the recovery point that clients may still retrieve.
    ///
    /// @param event the newest event of the run in the journal
    public static String results(RunId run, long incarnation, long event) {
        return of(run, "results", incarnation) + (incarnation == 0 ? "" : "/" + event);
    }

    /// The newest event of a run that was in the journal when the blob was written, as far as its name tells;
    /// 0: it tells none.
    public static long event(BlobId blob) {
        String[] parts = blob.scope().split("/");
        return parts.length < 4 || isInput(blob) || !NUMBER.matcher(parts[parts.length - 1]).matches() ? 0
                : Long.parseLong(parts[parts.length - 1]);
    }

    private static String of(RunId run, String kind, long incarnation) {
        return run(run) + "/" + kind + (incarnation == 0 ? "" : "/" + incarnation);
    }
}
