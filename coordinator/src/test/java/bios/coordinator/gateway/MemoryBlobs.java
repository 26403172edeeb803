package bios.coordinator.gateway;

import bios.persistence.blob.BlobDamaged;
import bios.persistence.blob.BlobMissing;
import bios.persistence.blob.BlobStore;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/// A blob store in memory.
final class MemoryBlobs implements BlobStore {
    final Map<BlobId, byte[]> blobs = new ConcurrentHashMap<>();

    @Override public BlobRef put(String scope, Content content) {
        var out = new ByteArrayOutputStream();
        try {
            content.writeTo(out);
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
        byte[] bytes = out.toByteArray();
        var id = new BlobId(scope, HexFormat.of().formatHex(DerivedIds.sha256().digest(bytes)));
        blobs.put(id, bytes);
        return new BlobRef(id, bytes.length);
    }

    @Override public InputStream open(BlobRef ref) {
        byte[] bytes = blobs.get(ref.id());
        if (bytes == null) throw new BlobMissing(ref.id());
        boolean whole = HexFormat.of().formatHex(DerivedIds.sha256().digest(bytes)).equals(ref.id().sha256());
        return new FilterInputStream(new ByteArrayInputStream(bytes)) {
            @Override public int read(byte[] into, int offset, int length) throws IOException {
                int read = super.read(into, offset, length);
                if (read < 0 && !whole) throw new BlobDamaged(ref.id(), "a test has damaged it");
                return read;
            }
        };
    }

    @Override public boolean exists(BlobId id) {
        return blobs.containsKey(id);
    }

    @Override public void delete(BlobId id) {
        blobs.remove(id);
    }

    @Override public List<ListedBlob> list(String scope) {
        return blobs.entrySet().stream().filter(e -> e.getKey().scope().startsWith(scope))
                .map(e -> new ListedBlob(new BlobRef(e.getKey(), e.getValue().length), 0)).toList();
    }
}
