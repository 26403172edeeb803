package bios.protocol.run;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobRef;
import java.util.Arrays;

/// An accepted operation, as the journal stores it: a small one inline, a large one as a blob, both in the
/// encoding of [bios.protocol.stored.StoredOperations].
public sealed interface StoredOperation {
    /// Encoded operations above this many bytes go to the blob store.
    int INLINE_LIMIT = 256 * 1024;

    /// The kind, without decoding the operation.
    OperationKind kind();

    /// Bytes of the encoded operation.
    long bytes();

    /// @param encoded the operation; must not be changed
    record Inline(OperationKind kind, byte[] encoded) implements StoredOperation {
        @Override public long bytes() {
            return encoded.length;
        }

        @Override public boolean equals(Object other) {
            return other instanceof Inline(var k, var e) && k == kind && Arrays.equals(e, encoded);
        }

        @Override public int hashCode() {
            return Arrays.hashCode(encoded);
        }
    }

    /// An operation that the gateway could not read: it has its place in the order, and fails there. Its
    /// client goes on only after an answer other than an error, and what follows must not train as if
    /// nothing were missing. An engine executes only one kind of it: in the place of an optimizer step that
    /// failed because a part of its batch did, it drops the gradient sum.
    record Refused(OperationKind kind, Fault why) implements StoredOperation {
        @Override public long bytes() {
            return 0;
        }
    }

    /// @param blob where the encoded operation is
    record InBlob(OperationKind kind, BlobRef blob) implements StoredOperation {
        @Override public long bytes() {
            return blob.bytes();
        }
    }
}
