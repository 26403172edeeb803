package bios.coordinator.simulation;

import bios.persistence.blob.BlobDamaged;
import bios.persistence.blob.BlobMissing;
import bios.persistence.blob.BlobStore;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.stored.StoredOperations;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.TreeMap;
import java.util.stream.Stream;

/// A blob store that survives all processes. Some calls fail before or after they are executed, and some
/// operations are written with damaged bytes. It reports deletions and missing blobs to the oracle.
final class Blobs implements BlobStore {
    private static final byte[] DAMAGED = {};
    private final SimulatedCluster cluster;
    private final TreeMap<String, byte[]> kept = new TreeMap<>();
    private final TreeMap<String, Long> modified = new TreeMap<>();
    /// All blobs that were ever stored; the oracle reads these.
    private final TreeMap<String, byte[]> ever = new TreeMap<>();

    Blobs(SimulatedCluster cluster) {
        this.cluster = cluster;
    }

    @Override public BlobRef put(String scope, Content content) {
        var out = new ByteArrayOutputStream();
        try {
            content.writeTo(out);
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
        byte[] bytes = out.toByteArray();
        var id = new BlobId(scope, StoredOperations.digest(bytes));
        boolean fails = fails();
        boolean loses = cluster.mutation == Mutation.STORE_LOSES_A_BLOB && cluster.loop.oneIn(10);
        ever.put(id.toString(), bytes);
        boolean damaged = scope.contains("/operations/") && !exists(id)
                && cluster.faults.hits(cluster.loop, cluster.faults.damage);
        modified.put(id.toString(), cluster.loop.now());
        if (!loses && (!fails || cluster.loop.oneIn(2))) kept.put(id.toString(), damaged ? DAMAGED : bytes);
        cluster.loop.trace(() -> "put " + shown(id) + (fails ? " FAILS" : ""));
        if (fails) throw failed("put", id);
        return new BlobRef(id, bytes.length);
    }

    private boolean fails() {
        return cluster.faults.hits(cluster.loop, cluster.faults.blobFails);
    }

    private static UncheckedIOException failed(String what, BlobId id) {
        return new UncheckedIOException(new IOException("the store fails to " + what + " " + id));
    }

    static String shown(BlobId id) {
        String[] words = id.scope().split("/");
        return words[words.length - 1] + "/" + id.sha256().substring(0, 6);
    }

    @Override public InputStream open(BlobRef ref) {
        if (fails()) {
            cluster.loop.trace(() -> "read " + shown(ref.id()) + " FAILS");
            throw failed("read", ref.id());
        }
        byte[] bytes = kept.get(ref.id().toString());
        if (bytes == null) {
            cluster.gone(ref.id(), "does not find ");
            throw new BlobMissing(ref.id());
        }
        if (bytes == DAMAGED) throw new BlobDamaged(ref.id(), "a test has damaged it");
        return new ByteArrayInputStream(bytes);
    }

    @Override public boolean exists(BlobId id) {
        return kept.containsKey(id.toString());
    }

    @Override public void delete(BlobId id) {
        boolean fails = fails();
        cluster.loop.trace(() -> "delete " + shown(id) + (fails ? " FAILS" : ""));
        if (!fails || cluster.loop.oneIn(2)) {
            if (cluster.mutation == Mutation.STORE_DELETES_NOTHING) return;
            kept.remove(id.toString());
            cluster.gone(id, "loses ");
            if (cluster.mutation == Mutation.STORE_DELETES_TOO_MUCH && !kept.isEmpty())
                remove(kept.lastKey());
        }
        if (fails) throw failed("delete", id);
    }

    private void remove(String name) {
        kept.remove(name);
        int slash = name.lastIndexOf('/');
        var id = new BlobId(name.substring(0, slash), name.substring(slash + 1));
        cluster.gone(id, "loses ");
    }

    @Override public List<ListedBlob> list(String scope) {
        if (fails()) throw new UncheckedIOException(new IOException("the store fails to list " + scope));
        if (cluster.mutation == Mutation.LISTING_IS_EMPTY) return List.of();
        return all(scope).toList();
    }

    /// The blobs below a scope.
    Stream<ListedBlob> all(String scope) {
        return kept.entrySet().stream().filter(e -> e.getKey().startsWith(scope + "/")).map(e -> {
            int slash = e.getKey().lastIndexOf('/');
            var id = new BlobId(e.getKey().substring(0, slash), e.getKey().substring(slash + 1));
            return new ListedBlob(new BlobRef(id, e.getValue().length), modified.get(e.getKey()));
        });
    }

    /// The content that was stored under `id`, even if it is deleted.
    String archived(BlobId id) {
        byte[] bytes = ever.get(id.toString());
        if (bytes == null) throw new Violation(id + " is referred to and was never stored");
        return new String(bytes, StandardCharsets.UTF_8);
    }

}
