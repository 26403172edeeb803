package bios.coordinator.gateway;

import bios.protocol.model.ModelName;
import bios.protocol.run.RunId;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;

/// Ids that follow from what the client said, so that a repeated request finds what the first one made.
final class Ids {
    private Ids() {}

    /// The run that a session makes under its number.
    static RunId run(ModelName model, String session, long seq) {
        return new RunId(model.slug() + "-"
                + HexFormat.of().formatHex(sha256(session + ":train:" + seq), 0, 8));
    }

    /// The seed of that run's adapter if the user gives none.
    static long seed(String session, long seq) {
        return ByteBuffer.wrap(sha256(session + ":train:" + seq)).getLong(8);
    }

    static byte[] sha256(String text) {
        return sha256().digest(text.getBytes(StandardCharsets.UTF_8));
    }

    static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
