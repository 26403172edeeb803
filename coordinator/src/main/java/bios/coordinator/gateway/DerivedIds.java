package bios.coordinator.gateway;

import bios.protocol.model.ModelName;
import bios.protocol.run.RunId;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;

/// Ids derived from the fields of a request, so that a repeated request finds the object that the first one
/// created.
final class DerivedIds {
    private DerivedIds() {}

    /// The id of the run that a session creates under this number.
    static RunId run(ModelName model, String session, long seq) {
        return new RunId(model.slug() + "-"
                + HexFormat.of().formatHex(sha256(session + ":train:" + seq), 0, 8));
    }

    /// The seed of that run's adapter if the request has none.
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
