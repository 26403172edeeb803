package bios.worker.load;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.MessageDigest;
import java.util.List;
import java.util.Optional;
import java.util.function.Supplier;

/// The hashes of weights by the identity of their files, in a file of the data folder, so that each file is
/// read once. A cache that cannot be read or written costs time only.
///
/// @param file empty: nothing is kept
public record FingerprintCache(Optional<Path> file) {
    /// Keeps nothing.
    public static final FingerprintCache NONE = new FingerprintCache(Optional.empty());
    private static final int MOST = 1000;

    /// The hash of the weights in these files.
    String weights(List<FileIdentity> identities, Supplier<String> compute) {
        MessageDigest digest = Fingerprint.sha256();
        for (FileIdentity identity : identities)
            digest.update((identity + "\n").getBytes(StandardCharsets.UTF_8));
        String key = Fingerprint.hex(digest, 64);
        Optional<String> known = Optional.ofNullable(read().path(key).textValue());
        if (known.isPresent()) return known.get();
        String weights = compute.get();
        identities.forEach(FileIdentity::requireUnchanged);
        write(key, weights);
        return weights;
    }

    private ObjectNode read() {
        try {
            if (file.isPresent() && Files.isRegularFile(file.get())) {
                JsonNode all = Safetensors.JSON.readTree(file.get().toFile());
                if (all instanceof ObjectNode object) return object;
            }
        } catch (IOException _) {
            // Computed again.
        }
        return Safetensors.JSON.createObjectNode();
    }

    private void write(String key, String weights) {
        if (file.isEmpty()) return;
        ObjectNode all = read();
        while (all.size() >= MOST) all.remove(all.fieldNames().next());
        all.put(key, weights);
        try {
            Files.createDirectories(file.get().getParent());
            Path fresh = Files.createTempFile(file.get().getParent(), "base-models", ".tmp");
            Files.write(fresh, Safetensors.JSON.writeValueAsBytes(all));
            Files.move(fresh, file.get(), StandardCopyOption.ATOMIC_MOVE,
                    StandardCopyOption.REPLACE_EXISTING);
        } catch (IOException _) {
            // Computed again at the next start.
        }
    }
}
