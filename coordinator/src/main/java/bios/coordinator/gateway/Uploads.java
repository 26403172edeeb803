package bios.coordinator.gateway;

import bios.persistence.blob.BlobStore;
import bios.persistence.blob.BlobStore.ListedBlob;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import java.time.Duration;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/// The files of adapters that are being uploaded, in the blob store until they are finished or too old. No
/// run refers to them, so the gateways delete what is left.
///
/// An upload's scope is `uploads/<digest of the account>/<end, epoch milliseconds>.<UUID>/<file>`: an account
/// finds its own uploads only, and a listing alone tells which are over. All methods block.
final class Uploads {
    /// The files of an adapter, as PEFT writes them.
    static final String CONFIG = "adapter_config.json";
    static final String WEIGHTS = "adapter_model.safetensors";
    static final List<String> FILES = List.of(CONFIG, WEIGHTS);
    private static final String ROOT = "uploads";
    /// What was asked for when the upload was started.
    private static final String START = "start";
    /// An empty file of an upload whose checkpoint is durable.
    private static final String DONE = "done";
    private static final Pattern ID =
            Pattern.compile("(\\d{1,15})\\.([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})");
    /// The longest time for which a gateway still reads an upload that has expired meanwhile.
    private static final Duration GRACE = Duration.ofHours(1);
    /// What was asked for takes at most so many bytes.
    static final int MOST_START_BYTES = 1 << 20;

    private final BlobStore blobs;

    Uploads(BlobStore blobs) {
        this.blobs = blobs;
    }

    /// The name of an upload.
    ///
    /// @param endsMillis when it ends, epoch milliseconds
    record Id(long endsMillis, UUID uuid) {
        static Optional<Id> parse(String text) {
            Matcher parts = ID.matcher(text);
            return parts.matches() ? Optional.of(new Id(Long.parseLong(parts.group(1)),
                    UUID.fromString(parts.group(2)))) : Optional.empty();
        }

        @Override public String toString() {
            return endsMillis + "." + uuid;
        }
    }

    /// What is stored of an upload.
    ///
    /// @param start what was asked for, in JSON
    /// @param files the newest content of each file
    record Upload(Id id, byte[] start, Map<String, BlobRef> files) {
        /// A file, which has to be there.
        BlobRef file(String name) {
            if (!files.containsKey(name)) throw new ApiException(ErrorCode.INVALID, name,
                    "was not uploaded; PUT it to its URL before the upload is finished");
            return files.get(name);
        }
    }

    private static String scope(String account) {
        return ROOT + "/" + HexFormat.of().formatHex(DerivedIds.sha256("account " + account), 0, 16);
    }

    private static String scope(String account, Id id, String file) {
        return scope(account) + "/" + id + "/" + file;
    }

    private static String file(BlobId blob) {
        return blob.scope().substring(blob.scope().lastIndexOf('/') + 1);
    }

    /// The upload to which a blob belongs.
    private static Optional<Id> id(BlobId blob) {
        String[] parts = blob.scope().split("/");
        return parts.length == 4 ? Id.parse(parts[2]) : Optional.empty();
    }

    /// Begins an upload.
    void start(String account, Id id, byte[] asked) {
        blobs.put(scope(account, id, START), asked);
    }

    /// Stores a file of an upload.
    BlobRef put(String account, Id id, String file, BlobStore.Content content) {
        return blobs.put(scope(account, id, file), content);
    }

    /// An upload of the account that is not over; empty: there is none.
    Optional<Upload> find(String account, Id id, long nowMillis) {
        if (id.endsMillis() < nowMillis) return Optional.empty();
        List<ListedBlob> all = blobs.list(scope(account) + "/" + id);
        var files = new HashMap<String, BlobRef>();
        for (String file : FILES) newest(all, file).ifPresent(blob -> files.put(file, blob));
        return newest(all, START).map(start ->
                new Upload(id, blobs.readSmall(start, MOST_START_BYTES), files));
    }

    private static Optional<BlobRef> newest(List<ListedBlob> all, String file) {
        return all.stream().filter(each -> file(each.ref().id()).equals(file))
                .max(Comparator.comparingLong(ListedBlob::modifiedMillis)).map(ListedBlob::ref);
    }

    /// What an account has uploaded and not finished.
    ///
    /// @param uploads how many are under way
    /// @param bytes of all their files
    record Pending(long uploads, long bytes) {}

    /// What the account has uploaded and not finished.
    Pending pending(String account, long nowMillis) {
        List<ListedBlob> all = blobs.list(scope(account));
        Set<Id> done = all.stream().map(each -> each.ref().id()).filter(blob -> file(blob).equals(DONE))
                .flatMap(blob -> id(blob).stream()).collect(Collectors.toSet());
        long uploads = all.stream().flatMap(each -> id(each.ref().id()).stream())
                .filter(id -> id.endsMillis() >= nowMillis && !done.contains(id)).distinct().count();
        return new Pending(uploads, all.stream().mapToLong(each -> each.ref().bytes()).sum());
    }

    /// Deletes the files of an upload whose checkpoint is durable. What was asked for stays until the end, so
    /// that a repeated request finds the checkpoint.
    void finished(String account, Id id) {
        blobs.put(scope(account, id, DONE), new byte[0]);
        delete(blobs.list(scope(account) + "/" + id).stream().map(each -> each.ref().id())
                .filter(blob -> FILES.contains(file(blob))));
    }

    /// Deletes the uploads that are over.
    void sweep(long nowMillis) {
        delete(blobs.list(ROOT).stream().map(each -> each.ref().id()).filter(blob ->
                id(blob).filter(id -> id.endsMillis() + GRACE.toMillis() >= nowMillis).isEmpty()));
    }

    private void delete(Stream<BlobId> gone) {
        gone.forEach(blobs::delete);
    }
}
