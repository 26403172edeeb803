package bios.coordinator.run;

import bios.coordinator.run.RunEvent.CheckpointDeleted;
import bios.coordinator.run.RunEvent.ExpirySet;
import bios.coordinator.run.RunEvent.SnapshotsReleased;
import bios.coordinator.run.TrainingRun.Decision;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.IdentityHashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/// The checkpoints of a run. A name refers to its newest version. Versions that newer ones have replaced, and
/// snapshots of a session that newer ones have followed, stay for those who sample from them or load them:
/// the newest [#FEWEST_FOLLOWED], and those of the last [#FOLLOWED_MILLIS], at most [#MOST_FOLLOWED].
///
/// @param versions all versions of named checkpoints, oldest first
/// @param snapshots ephemeral snapshots, oldest first
public record Checkpoints(List<CheckpointManifest> versions, List<Snapshot> snapshots) {
    /// The most replaced versions of a run, and snapshots of a session beside its newest one.
    static final int MOST_FOLLOWED = 64;
    /// So many of them are never too old.
    static final int FEWEST_FOLLOWED = 16;
    /// Others are deleted when they are so much older than the newest one.
    static final long FOLLOWED_MILLIS = 3_600_000;

    /// No checkpoints.
    public static final Checkpoints NONE = new Checkpoints(List.of(), List.of());

    /// An ephemeral snapshot and the session with which it ends.
    public record Snapshot(String session, CheckpointManifest manifest) {}

    public Checkpoints {
        versions = List.copyOf(versions);
        snapshots = List.copyOf(snapshots);
    }

    /// Adds a new version of a name, or a snapshot. The same content replaces the earlier copy.
    Checkpoints commit(CheckpointManifest manifest, Optional<String> session) {
        if (manifest.name().isEmpty()) {
            String owner = session.orElseThrow();
            var kept = new ArrayList<>(snapshots);
            // Samplers name the blob: one of another entity stays until it is too old.
            kept.removeIf(s -> s.session().equals(owner)
                    && s.manifest().adapter().equals(manifest.adapter()));
            List<CheckpointManifest> followed = kept.stream().filter(s -> s.session().equals(owner))
                    .map(Snapshot::manifest).toList();
            Set<BlobRef> old = blobsOf(tooOld(followed, manifest.createdAtMillis()));
            kept.removeIf(s -> s.session().equals(owner) && old.contains(s.manifest().adapter()));
            kept.add(new Snapshot(owner, manifest));
            return new Checkpoints(versions, kept);
        }
        var kept = new ArrayList<>(versions);
        newest(manifest.kind(), manifest.name().get()).filter(v -> sameBlobs(v, manifest))
                .ifPresent(kept::remove);
        kept.add(manifest);
        Set<String> seen = new HashSet<>();
        List<CheckpointManifest> replaced = kept.reversed().stream()
                .filter(v -> !seen.add(v.kind() + "/" + v.name().orElseThrow())).toList().reversed();
        var old = Collections.newSetFromMap(new IdentityHashMap<CheckpointManifest, Boolean>());
        old.addAll(tooOld(replaced, manifest.createdAtMillis()));
        kept.removeIf(old::contains);
        return new Checkpoints(kept, snapshots);
    }

    /// Those of `followed`, oldest first, that are deleted when another one is made.
    private static List<CheckpointManifest> tooOld(List<CheckpointManifest> followed, long nowMillis) {
        int old = Math.max(0, followed.size() - MOST_FOLLOWED);
        while (old < followed.size() - FEWEST_FOLLOWED
                && followed.get(old).createdAtMillis() < nowMillis - FOLLOWED_MILLIS) old++;
        return followed.subList(0, old);
    }

    private static Set<BlobRef> blobsOf(List<CheckpointManifest> manifests) {
        return manifests.stream().map(CheckpointManifest::adapter).collect(Collectors.toSet());
    }

    private static boolean sameBlobs(CheckpointManifest a, CheckpointManifest b) {
        return a.adapter().equals(b.adapter()) && a.optimizer().equals(b.optimizer());
    }

    /// The checkpoint to which a path refers at a time. A path with two parts refers to a training state or,
    /// if there is none, to sampler weights.
    Optional<CheckpointManifest> resolve(CheckpointPath path, long nowMillis) {
        Optional<CheckpointManifest> found = path.kind().isPresent()
                ? newest(path.kind().get(), path.name()) : newest(CheckpointKind.TRAINING, path.name())
                .or(() -> newest(CheckpointKind.SAMPLER, path.name()));
        return found.filter(manifest -> !expired(manifest, nowMillis));
    }

    Optional<CheckpointManifest> snapshot(String contentId) {
        return snapshots.stream().map(Snapshot::manifest)
                .filter(m -> m.contentId().equals(contentId)).findFirst();
    }

    /// The reply with the result of [#resolve].
    RunReply answer(CheckpointPath path, long nowMillis) {
        return answer(resolve(path, nowMillis), path + " does not exist or was deleted");
    }

    /// The reply with the result of [#snapshot].
    RunReply answer(String contentId) {
        return answer(snapshot(contentId), "the snapshot " + contentId
                + " was released: its session ended, or newer snapshots followed it; save weights under a"
                + " name to keep them");
    }

    private static RunReply answer(Optional<CheckpointManifest> manifest, String otherwise) {
        return manifest.<RunReply>map(RunReply.Resolved::new)
                .orElseGet(() -> new RunReply.Refused(Reason.NOT_FOUND, otherwise));
    }

    /// Deletes a name.
    Decision decideDelete(CheckpointKind kind, CheckpointName name) {
        return ofKnown(kind, name, new CheckpointDeleted(kind, name));
    }

    /// Sets when a name expires; empty: never.
    Decision decideExpiry(CheckpointKind kind, CheckpointName name, Optional<Long> atMillis) {
        return ofKnown(kind, name, new ExpirySet(kind, name, atMillis));
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

    Checkpoints delete(CheckpointKind kind, CheckpointName name) {
        return keeping(v -> !named(v, kind, name), _ -> true);
    }

    Checkpoints release(String session) {
        return keeping(_ -> true, s -> !s.session().equals(session));
    }

    /// Removes what has expired. A name whose newest version has expired is gone with all its versions: one
    /// that was replaced does not appear again.
    Checkpoints expire(long nowMillis) {
        return keeping(v -> !expired(v, nowMillis) && newest(v.kind(), v.name().orElseThrow())
                .filter(n -> expired(n, nowMillis)).isEmpty(), s -> !expired(s.manifest(), nowMillis));
    }

    Checkpoints expiry(CheckpointKind kind, CheckpointName name, Optional<Long> at) {
        return new Checkpoints(versions.stream().map(v -> named(v, kind, name)
                ? expiring(v, at) : v).toList(), snapshots);
    }

    /// The next time at which a checkpoint expires; empty: no checkpoint expires.
    Optional<Long> nextExpiry() {
        return all().flatMap(m -> m.expiresAtMillis().stream()).min(Long::compare);
    }

    /// All manifests.
    Stream<CheckpointManifest> all() {
        return Stream.concat(versions.stream(), snapshots.stream().map(Snapshot::manifest));
    }

    /// The blobs of a manifest.
    static Stream<BlobId> blobs(CheckpointManifest manifest) {
        return Stream.concat(Stream.of(manifest.adapter()), manifest.optimizer().stream()).map(BlobRef::id);
    }

    private Checkpoints keeping(Predicate<CheckpointManifest> version, Predicate<Snapshot> snapshot) {
        return new Checkpoints(versions.stream().filter(version).toList(),
                snapshots.stream().filter(snapshot).toList());
    }

    private static boolean named(CheckpointManifest manifest, CheckpointKind kind, CheckpointName name) {
        return manifest.kind() == kind && manifest.name().equals(Optional.of(name));
    }

    private static boolean expired(CheckpointManifest manifest, long nowMillis) {
        return manifest.expiresAtMillis().filter(at -> at <= nowMillis).isPresent();
    }

    private static CheckpointManifest expiring(CheckpointManifest m, Optional<Long> at) {
        return new CheckpointManifest(m.run(), m.kind(), m.name(), m.baseModel(), m.lora(), m.contentId(),
                m.adapter(), m.optimizer(), m.step(), m.settings(), m.optimizerType(), m.userMetadata(),
                m.parent(), m.createdAtMillis(), at, m.baseFingerprint());
    }
}
