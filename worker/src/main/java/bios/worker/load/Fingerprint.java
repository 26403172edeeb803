package bios.worker.load;

import bios.worker.load.Safetensors.Entry;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Optional;

/// Identifies a base model by its content, whatever its files are called and however they are cut: the
/// properties of its configuration that computation depends on, and the name, type, shape and content of
/// each tensor. Guards against mistakes, not against someone who forges weights: contents are compared by
/// two CRCs of each block ([ContentHash]), which take a fraction of the time that reading the file takes.
///
/// @param configuration, weights hexadecimal digits
public record Fingerprint(String configuration, String weights) {
    private static final int DIGITS = 16;

    /// Reads all contents, unless the cache knows the files.
    public static Fingerprint of(ModelSpec spec, Safetensors files, FingerprintCache cache) {
        String weights = cache.weights(files.identities(), () -> weights(files));
        return new Fingerprint(configuration(spec), weights);
    }

    private static String configuration(ModelSpec s) {
        MessageDigest digest = sha256();
        // Properties that are added later are appended where they are not at their default.
        digest.update(("bios-base/1 " + s.architecture() + " " + s.vocabularySize() + " " + s.hidden() + " "
                + s.intermediate() + " " + s.layers() + " " + s.heads() + " " + s.kvHeads() + " "
                + s.headDim() + " " + s.eps() + " " + s.tiedHead() + " " + s.qkvBias() + " " + s.outputBias()
                + " " + s.mlpBias() + " " + s.headNorms() + " " + s.windows() + " "
                + s.rope().attentionFactor() + " " + Arrays.toString(s.rope().inverseFrequencies()))
                .getBytes(StandardCharsets.UTF_8));
        return hex(digest, DIGITS);
    }

    private static String weights(Safetensors files) {
        MessageDigest digest = sha256();
        for (String name : files.names()) {
            Entry entry = files.entry(name);
            digest.update((name + " " + entry.dtype() + " " + entry.shape() + "\n")
                    .getBytes(StandardCharsets.UTF_8));
            ContentHash.of(files.place(name), digest);
        }
        return hex(digest, 2 * DIGITS);
    }

    static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    static String hex(MessageDigest digest, int digits) {
        return HexFormat.of().formatHex(digest.digest()).substring(0, digits);
    }

    /// How a recorded fingerprint differs from this one; empty: not at all.
    public Optional<String> difference(String recorded) {
        return difference(toString(), recorded);
    }

    /// How two fingerprints differ, as they are recorded; empty: not at all.
    public static Optional<String> difference(String own, String recorded) {
        if (recorded.equals(own)) return Optional.empty();
        int dash = own.indexOf('-') + 1;
        boolean configured = recorded.startsWith(own.substring(0, dash));
        boolean weighed = recorded.endsWith(own.substring(Math.max(0, dash - 1)));
        return Optional.of(weighed ? "its config.json differs in what is computed"
                : configured ? "its weights differ" : "its config.json and its weights differ");
    }

    /// As runs and checkpoints record it.
    @Override public String toString() {
        return configuration + "-" + weights;
    }
}
