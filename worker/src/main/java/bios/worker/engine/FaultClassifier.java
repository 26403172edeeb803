package bios.worker.engine;

import bios.persistence.blob.BlobDamaged;
import bios.persistence.blob.BlobMissing;
import bios.protocol.Fault;
import bios.protocol.Invalid;
import bios.protocol.engine.EngineCommand;
import bios.protocol.stored.UnreadableRecord;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.load.ModelRefused;
import bios.worker.train.Refused;
import java.io.UncheckedIOException;
import java.util.concurrent.CompletionException;

/// What a user reads of whatever was thrown.
final class FaultClassifier {
    private static final long MIB = 1 << 20;

    private FaultClassifier() {}

    /// @param what the work that failed, with its size: `forward_backward of 3 sequences, 170 tokens`
    static Fault of(Throwable thrown, String what) {
        return switch (thrown) {
            case CompletionException wrapped when wrapped.getCause() != null -> of(wrapped.getCause(), what);
            case Refused refused -> refused.fault();
            case Invalid invalid -> Fault.user("invalid_request", invalid.getMessage());
            case BlobMissing missing -> Fault.server("blob_missing", what + ": " + missing.getMessage());
            case BlobDamaged damaged -> Fault.server("blob_damaged", what + ": " + damaged.getMessage());
            case ModelRefused refused -> Fault.server("state_unreadable", what + ": " + refused.getMessage());
            case UnreadableRecord record ->
                    Fault.server("operation_unreadable", what + ": " + record.getMessage());
            case UncheckedIOException io -> Fault.server(EngineCommand.STORE_FAILED,
                    what + ": " + io.getMessage());
            case OutOfDeviceMemory full -> Fault.server("out_of_memory", what + " needs "
                    + Math.ceilDiv(full.needed(), MIB) + " MiB more, " + Math.ceilDiv(full.inUse(), MIB)
                    + " of " + full.limit() / MIB + " MiB of the worker's memory are in use; send less at"
                    + " once, or raise bios.engine.memory-bytes");
            case OutOfMemoryError full -> Fault.server("out_of_memory", what + " found too little memory: "
                    + full.getMessage() + memory() + "; send less at once, or give the worker more memory");
            case null, default -> Fault.server("engine_failed", what + " failed: " + thrown);
        };
    }

    private static String memory() {
        Runtime java = Runtime.getRuntime();
        return " (Java heap: " + (java.totalMemory() - java.freeMemory()) / MIB + " of "
                + java.maxMemory() / MIB + " MiB)";
    }
}
