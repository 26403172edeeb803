package bios.protocol.stored;

import bios.protocol.checkpoint.BlobRef;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationKind;
import bios.protocol.run.StoredOperation;
import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;

/// Encodes operations: two bytes of version, big-endian, and CBOR. The type of the operation is not part of
/// the bytes; [OperationKind] has it.
public final class StoredOperations {
    private static final short VERSION = 1;
    /// In the place of the version: a load of an upload, which earlier builds refuse as newer than they are.
    private static final short UPLOAD = 2;
    private static final StoredTypes TYPES = new StoredTypes(List.of(
            StoredType.first("forward-backward", Operation.ForwardBackward.class),
            StoredType.first("optim-step", Operation.OptimStep.class),
            StoredType.first("save-state", Operation.SaveState.class),
            StoredType.first("save-sampler-weights", Operation.SaveSamplerWeights.class),
            StoredType.first("load-state", Operation.LoadState.class),
            StoredType.first("load-upload", Operation.LoadUpload.class)));

    private StoredOperations() {}

    /// `operation` as it is stored; equal operations give equal bytes, on every machine.
    public static byte[] encode(Operation operation) {
        byte[] body = TYPES.write(operation);
        return ByteBuffer.allocate(2 + body.length)
                .putShort(operation instanceof Operation.LoadUpload ? UPLOAD : VERSION).put(body).array();
    }

    /// Encodes `operation` for the journal, of any size; above [StoredOperation#INLINE_LIMIT] bytes the
    /// caller stores the bytes as a blob instead.
    public static StoredOperation.Inline inline(Operation operation) {
        return new StoredOperation.Inline(kind(operation), encode(operation));
    }

    /// Reads what [#encode] wrote, now or in an older version; [UnreadableRecord] otherwise.
    public static Operation decode(OperationKind kind, byte[] encoded) {
        if (encoded.length < 2)
            throw new UnreadableRecord("a stored operation of " + encoded.length + " bytes is truncated",
                    null);
        int version = ByteBuffer.wrap(encoded).getShort();
        byte[] body = Arrays.copyOfRange(encoded, 2, encoded.length);
        return (Operation) TYPES.read(kind == OperationKind.LOAD_STATE && version == UPLOAD
                ? "load-upload/1" : name(kind) + "/" + version, body);
    }

    /// The operation, if it is the load of an upload. Cheap for all others.
    public static Optional<Operation.LoadUpload> upload(StoredOperation operation) {
        return operation instanceof StoredOperation.Inline(var kind, var encoded)
                && kind == OperationKind.LOAD_STATE && encoded.length > 2
                && ByteBuffer.wrap(encoded).getShort() == UPLOAD
                && decode(kind, encoded) instanceof Operation.LoadUpload load ? Optional.of(load)
                : Optional.empty();
    }

    /// The blob that an operation reads: itself, where it is large, or an uploaded adapter.
    public static Optional<BlobRef> input(StoredOperation operation) {
        return operation instanceof StoredOperation.InBlob(_, var blob) ? Optional.of(blob)
                : upload(operation).map(Operation.LoadUpload::adapter);
    }

    /// The kind of `operation`.
    public static OperationKind kind(Operation operation) {
        return OperationKind.of(operation);
    }

    /// SHA-256 of encoded bytes, in hex: distinguishes a repetition from another operation.
    public static String digest(byte[] encoded) {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(encoded));
        } catch (NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    private static String name(OperationKind kind) {
        return switch (kind) {
            case FORWARD, FORWARD_BACKWARD -> "forward-backward";
            case OPTIM_STEP -> "optim-step";
            case SAVE_STATE -> "save-state";
            case SAVE_SAMPLER_WEIGHTS -> "save-sampler-weights";
            case LOAD_STATE -> "load-state";
        };
    }
}
