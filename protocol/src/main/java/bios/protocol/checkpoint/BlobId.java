package bios.protocol.checkpoint;

import bios.protocol.Invalid;
import java.util.regex.Pattern;

/// The id of a blob, `<scope>/<SHA-256 in hex>`: its owner's scope and the digest of its content. A scope is
/// a path (`runs/usf-finance-9f2c4be01a77/recovery`); only its owner writes or deletes under it, so that no
/// reference counting across owners is needed.
public record BlobId(String scope, String sha256) {
    private static final Pattern SCOPE =
            Pattern.compile("[A-Za-z0-9][A-Za-z0-9._:-]*(/[A-Za-z0-9][A-Za-z0-9._:-]*)*");
    private static final Pattern DIGEST = Pattern.compile("[0-9a-f]{64}");

    public BlobId {
        if (scope == null || !SCOPE.matcher(scope).matches() || sha256 == null
                || !DIGEST.matcher(sha256).matches())
            throw new Invalid("blob", "'" + scope + "/" + sha256 + "' is not a blob id");
    }

    @Override public String toString() {
        return scope + "/" + sha256;
    }
}
