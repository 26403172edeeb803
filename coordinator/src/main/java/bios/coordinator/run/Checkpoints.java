package bios.coordinator.run;

import bios.coordinator.run.RunEvent.CheckpointDeleted;
import bios.coordinator.run.RunEvent.CheckpointsExpired;
import bios.coordinator.run.RunEvent.ExpirySet;
import bios.coordinator.run.RunEvent.PublicationSet;
import bios.coordinator.run.RunEvent.SnapshotsReleased;
import bios.coordinator.run.RunEvent.Unnamed;
import bios.coordinator.run.TrainingRun.Decision;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.run.OperationKind;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import com.fasterxml.jackson.annotation.JsonInclude;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.function.Predicate;
import java.util.stream.Stream;

/// The checkpoints of a run. A name refers to its newest version. Versions that newer ones have replaced, and
/// snapshots, have no name by which a client finds them: they stay for those who use them, see
/// [WeightLeases].
///
/// @param versions all versions of named checkpoints, oldest first
/// @param snapshots ephemeral snapshots, oldest first
/// @param retained versions that were deleted or have expired, and stay for other runs only, which may have
///     to load them again; oldest first
public record Checkpoints(List<CheckpointManifest> versions, List<Snapshot> snapshots,
        @JsonInclude(JsonInclude.Include.NON_EMPTY) List<CheckpointManifest> retained) {
    /// No checkpoints.
    public static final Checkpoints NONE = new Checkpoints(List.of(), List.of(), List.of());

    /// The fault of a use of weights that are no longer kept.
    public static final String SNAPSHOT_EXPIRED = "snapshot_expired";
    private static final String EXPIRED = "these weights are no longer kept: the snapshot has expired"
            + " (newer ones followed it and nobody used it for a while, or its session has ended), or its"
            + " checkpoint was saved again, deleted or has expired. Weights that are needed for longer are"
            + " saved under a name of their own: save_weights_for_sampler(name=...), then"
            + " create_sampling_client(model_path=...)";

    /// An ephemeral snapshot and the session with which it ends.
    public record Snapshot(String session, CheckpointManifest manifest) {}

    public Checkpoints {
        versions = List.copyOf(versions);
        snapshots = List.copyOf(snapshots);
        retained = retained == null ? List.of() : List.copyOf(retained); // absent in earlier builds
    }

    /// Adds a new version of a name, or a snapshot. The same content replaces the earlier copy.
    Checkpoints commit(CheckpointManifest manifest, Optional<String> session) {
        if (manifest.name().isEmpty()) {
            String owner = session.orElseThrow();
            var kept = new ArrayList<>(snapshots);
            // Samplers name the blob: the same content in another scope is another snapshot.
            kept.removeIf(s -> s.session().equals(owner)
                    && s.manifest().adapter().equals(manifest.adapter()));
            kept.add(new Snapshot(owner, manifest));
            return new Checkpoints(versions, kept, retained);
        }
        var kept = new ArrayList<>(versions);
        newest(manifest.kind(), manifest.name().get()).filter(v -> sameBlobs(v, manifest))
                .ifPresent(kept::remove);
        kept.add(manifest);
        return new Checkpoints(kept, snapshots, retained);
    }

    /// What no name refers to, oldest first: versions that were replaced or removed, and snapshots but for
    /// the newest.
    ///
    /// @param newest this many snapshots are not among them
    List<Unnamed> unnamed(int newest) {
        Stream<CheckpointManifest> old = Stream.concat(retained.stream(), replaced().stream());
        return Stream.concat(old.map(v -> new Unnamed(v.adapter().id(), Optional.empty())),
                snapshots.stream().limit(Math.max(0, snapshots.size() - newest)).map(Checkpoints::unnamed))
                .distinct().toList();
    }

    private static Unnamed unnamed(Snapshot snapshot) {
        return new Unnamed(snapshot.manifest().adapter().id(), Optional.of(snapshot.session()));
    }

    private List<CheckpointManifest> replaced() {
        var names = new HashSet<Named>();
        return versions.reversed().stream().filter(v -> !names.add(Named.of(v))).toList().reversed();
    }

    /// Removes weights to which no name refers.
    Checkpoints release(Collection<Unnamed> weights) {
        var gone = Set.copyOf(weights);
        var names = new HashSet<Named>();
        Predicate<CheckpointManifest> stays =
                v -> !gone.contains(new Unnamed(v.adapter().id(), Optional.empty()));
        List<CheckpointManifest> kept = versions.reversed().stream()
                .filter(v -> names.add(Named.of(v)) || stays.test(v)).toList().reversed();
        return new Checkpoints(kept, snapshots.stream().filter(s -> !gone.contains(unnamed(s))).toList(),
                retained.stream().filter(stays).toList());
    }

    /// Whether a name exists that a save may use again without another checkpoint.
    boolean replaces(OperationKind save, Optional<CheckpointName> name) {
        return name.filter(n -> has(save == OperationKind.SAVE_STATE ? CheckpointKind.TRAINING
                : CheckpointKind.SAMPLER, n)).isPresent();
    }

    /// How many names there are.
    int names() {
        return versions.size() - replaced().size();
    }

    private record Named(CheckpointKind kind, CheckpointName name) {
        static Named of(CheckpointManifest version) {
            return new Named(version.kind(), version.name().orElseThrow());
        }
    }

    private static boolean sameBlobs(CheckpointManifest a, CheckpointManifest b) {
        return a.adapter().equals(b.adapter()) && a.optimizer().equals(b.optimizer());
    }

    /// The checkpoint to which a path refers at a time. A path with two parts refers to a training state or,
    /// if there is none, to sampler weights.
    Optional<CheckpointManifest> resolve(CheckpointPath path, long nowMillis) {
        return resolve(path, nowMillis, _ -> true);
    }

    /// The published checkpoint to which a path refers at a time, for the other accounts.
    Optional<CheckpointManifest> resolvePublished(CheckpointPath path, long nowMillis) {
        return resolve(path, nowMillis, CheckpointManifest::readableByAll);
    }

    private Optional<CheckpointManifest> resolve(CheckpointPath path, long nowMillis,
            Predicate<CheckpointManifest> readable) {
        Optional<CheckpointManifest> found = path.kind().isPresent()
                ? newest(path.kind().get(), path.name()).filter(readable)
                : newest(CheckpointKind.TRAINING, path.name()).filter(readable)
                .or(() -> newest(CheckpointKind.SAMPLER, path.name()).filter(readable));
        return found.filter(manifest -> !expired(manifest, nowMillis));
    }

    /// Whether a checkpoint or snapshot has the content of `manifest`, whatever has been set on it since.
    boolean holds(CheckpointManifest manifest) {
        return found().anyMatch(m -> m.kind() == manifest.kind() && m.name().equals(manifest.name())
                && sameBlobs(m, manifest));
    }

    /// Whether weights are those of a published checkpoint, or of an earlier version of one.
    boolean publishes(BlobId adapter) {
        return found().anyMatch(m -> m.readableByAll() && m.adapter().id().equals(adapter));
    }

    /// Whether weights are those of a checkpoint or snapshot.
    boolean holds(BlobId adapter) {
        return found().anyMatch(m -> m.adapter().id().equals(adapter));
    }

    /// Whether a run that has loaded weights can load them again.
    boolean keeps(BlobId adapter) {
        return all().anyMatch(m -> m.adapter().id().equals(adapter));
    }

    /// The reply with the result of [#resolve].
    RunReply answer(CheckpointPath path, long nowMillis) {
        return answer(resolve(path, nowMillis), path + " does not exist or was deleted");
    }

    /// The reply about weights that the caller can no longer use.
    static RunReply expired() {
        return new RunReply.Refused(Reason.EXPIRED, EXPIRED);
    }

    private static RunReply answer(Optional<CheckpointManifest> manifest, String otherwise) {
        return manifest.<RunReply>map(RunReply.Resolved::new)
                .orElseGet(() -> new RunReply.Refused(Reason.NOT_FOUND, otherwise));
    }

    /// Deletes a name.
    ///
    /// @param loaded whether another run may have to load an adapter again
    Decision decideDelete(CheckpointKind kind, CheckpointName name, Predicate<BlobId> loaded) {
        return ofKnown(kind, name,
                new CheckpointDeleted(kind, name, adapters(v -> named(v, kind, name), loaded)));
    }

    /// The event that removes what has expired.
    ///
    /// @param loaded whether another run may have to load an adapter again
    CheckpointsExpired expired(long nowMillis, Predicate<BlobId> loaded) {
        return new CheckpointsExpired(nowMillis, adapters(over(nowMillis), loaded));
    }

    private List<BlobId> adapters(Predicate<CheckpointManifest> removed, Predicate<BlobId> loaded) {
        return versions.stream().filter(removed).map(v -> v.adapter().id()).filter(loaded).toList();
    }

    /// Sets when a name expires; empty: never.
    Decision decideExpiry(CheckpointKind kind, CheckpointName name, Optional<Long> atMillis) {
        return ofKnown(kind, name, new ExpirySet(kind, name, atMillis));
    }

    /// Makes a name readable by every account, or by its owner only; idempotent.
    Decision decidePublication(CheckpointKind kind, CheckpointName name, boolean published) {
        boolean same = newest(kind, name).filter(m -> m.readableByAll() == published).isPresent();
        return same ? new Decision.Duplicate()
                : ofKnown(kind, name, new PublicationSet(kind, name, published));
    }

    private Decision ofKnown(CheckpointKind kind, CheckpointName name, RunEvent event) {
        return has(kind, name) ? new Decision.Accept(List.of(event))
                : new Decision.Refuse(Reason.NOT_FOUND, "the run has no such checkpoint");
    }

    /// Releases the snapshots of a session; if it has none, nothing is persisted.
    Decision decideRelease(String session) {
        boolean none = snapshots.stream().noneMatch(s -> s.session().equals(session));
        return none ? new Decision.Duplicate()
                : new Decision.Accept(List.of(new SnapshotsReleased(session)));
    }

    private Optional<CheckpointManifest> newest(CheckpointKind kind, CheckpointName name) {
        for (int i = versions.size() - 1; i >= 0; i--)
            if (named(versions.get(i), kind, name)) return Optional.of(versions.get(i));
        return Optional.empty();
    }

    /// The newest version of each name that has not expired, oldest first.
    List<CheckpointManifest> current(long nowMillis) {
        LinkedHashMap<String, CheckpointManifest> byName = new LinkedHashMap<>();
        for (CheckpointManifest version : versions)
            byName.putLast(version.kind() + "/" + version.name().orElseThrow(), version);
        return byName.values().stream().filter(v -> !expired(v, nowMillis)).toList();
    }

    boolean has(CheckpointKind kind, CheckpointName name) {
        return newest(kind, name).isPresent();
    }

    /// Removes a name.
    ///
    /// @param adapters these stay for other runs
    Checkpoints delete(CheckpointKind kind, CheckpointName name, Collection<BlobId> adapters) {
        return without(v -> named(v, kind, name), _ -> false, adapters);
    }

    Checkpoints release(String session) {
        return without(_ -> false, s -> s.session().equals(session), List.of());
    }

    /// Removes what has expired.
    ///
    /// @param adapters these stay for other runs
    Checkpoints expire(long nowMillis, Collection<BlobId> adapters) {
        return without(over(nowMillis), s -> expired(s.manifest(), nowMillis), adapters);
    }

    /// Whether a version has expired. A name whose newest version has expired is gone with all its versions:
    /// one that was replaced does not appear again.
    private Predicate<CheckpointManifest> over(long nowMillis) {
        return v -> expired(v, nowMillis) || newest(v.kind(), v.name().orElseThrow())
                .filter(n -> expired(n, nowMillis)).isPresent();
    }

    /// A name is published as it is now: versions that it replaced, and those that replace it, are not.
    Checkpoints publication(CheckpointKind kind, CheckpointName name, boolean published) {
        CheckpointManifest newest = newest(kind, name).orElse(null);
        return new Checkpoints(versions.stream().map(v -> !named(v, kind, name) || published && v != newest
                ? v : v.published(published)).toList(), snapshots, retained);
    }

    Checkpoints expiry(CheckpointKind kind, CheckpointName name, Optional<Long> at) {
        return new Checkpoints(versions.stream().map(v -> named(v, kind, name)
                ? v.expiring(at) : v).toList(), snapshots, retained);
    }

    /// The next time at which a checkpoint expires; empty: no checkpoint expires.
    Optional<Long> nextExpiry() {
        return found().flatMap(m -> m.expiresAtMillis().stream()).min(Long::compare);
    }

    /// All manifests.
    Stream<CheckpointManifest> all() {
        return Stream.concat(retained.stream(), found());
    }

    /// All manifests of which clients know.
    Stream<CheckpointManifest> found() {
        return Stream.concat(versions.stream(), snapshots.stream().map(Snapshot::manifest));
    }

    /// The blobs of a manifest.
    static Stream<BlobId> blobs(CheckpointManifest manifest) {
        return refs(manifest).map(BlobRef::id);
    }

    /// The same with their sizes.
    static Stream<BlobRef> refs(CheckpointManifest manifest) {
        return Stream.concat(Stream.of(manifest.adapter()), manifest.optimizer().stream());
    }

    private Checkpoints without(Predicate<CheckpointManifest> version, Predicate<Snapshot> snapshot,
            Collection<BlobId> adapters) {
        var stay = Set.copyOf(adapters);
        var more = new ArrayList<>(retained);
        for (CheckpointManifest v : versions)
            if (stay.contains(v.adapter().id()) && version.test(v)
                    && more.stream().noneMatch(m -> sameBlobs(m, v))) more.add(v);
        return new Checkpoints(versions.stream().filter(version.negate()).toList(),
                snapshots.stream().filter(snapshot.negate()).toList(), more);
    }

    private static boolean named(CheckpointManifest manifest, CheckpointKind kind, CheckpointName name) {
        return manifest.kind() == kind && manifest.name().equals(Optional.of(name));
    }

    private static boolean expired(CheckpointManifest manifest, long nowMillis) {
        return manifest.expiresAtMillis().filter(at -> at <= nowMillis).isPresent();
    }
}
