package bios.worker.engine;

import bios.persistence.blob.BlobDamaged;
import bios.persistence.blob.BlobMissing;
import bios.protocol.Fault;
import bios.protocol.Invalid;
import bios.protocol.engine.EngineCommand;
import bios.protocol.stored.UnreadableRecord;
import bios.worker.device.DeviceLost;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.load.ModelChanged;
import bios.worker.load.ModelRefused;
import bios.worker.load.NotFinite;
import bios.worker.train.Refused;
import java.io.UncheckedIOException;
import java.util.Optional;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;

/// The one place that decides what an exception means for the operation that met it: a fault that becomes the
/// operation's outcome, or the loss of the device, which is no operation's outcome.
final class FaultClassifier {
    private static final long MIB = 1 << 20;

    private FaultClassifier() {}

    /// The fault that the operation's author reads. Throws [DeviceLost] on when the device is lost.
    ///
    /// @param what the work that failed, with its size: `forward_backward of 3 sequences, 170 tokens`
    static Fault of(Throwable thrown, String what) {
        deviceLost(thrown).ifPresent(lost -> {
            throw lost;
        });
        return switch (thrown) {
            case CompletionException wrapped when wrapped.getCause() != null -> of(wrapped.getCause(), what);
            case ExecutionException wrapped when wrapped.getCause() != null -> of(wrapped.getCause(), what);
            case Refused refused -> refused.fault();
            case Invalid invalid -> Fault.user("invalid_request", invalid.getMessage());
            case BlobMissing missing -> Fault.server("blob_missing", what + ": " + missing.getMessage());
            case BlobDamaged damaged -> Fault.server("blob_damaged", what + ": " + damaged.getMessage());
            case NotFinite refused -> refused.fault(what);
            case ModelChanged changed -> Fault.server(EngineCommand.BASE_MODEL_CHANGED,
                    what + ": " + changed.getMessage());
            case ModelRefused refused -> Fault.server("state_unreadable", what + ": " + refused.getMessage());
            case UnreadableRecord record ->
                    Fault.server("unreadable_operation", what + ": " + record.getMessage());
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

    /// The loss of the device, where it is why something was thrown.
    static Optional<DeviceLost> deviceLost(Throwable thrown) {
        for (Throwable cause = thrown; cause != null; cause = cause.getCause())
            if (cause instanceof DeviceLost lost) return Optional.of(lost);
        return Optional.empty();
    }

    private static String memory() {
        Runtime java = Runtime.getRuntime();
        return " (Java heap: " + (java.totalMemory() - java.freeMemory()) / MIB + " of "
                + java.maxMemory() / MIB + " MiB)";
    }
}
