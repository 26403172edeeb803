package bios.worker.device;

/// The device has failed permanently (a sticky error, a card that is no longer on the bus): no verb can
/// succeed in this process. The worker process ends, and its runs move to other workers or wait for its
/// restart. The operation during which it is thrown is never the cause.
public final class DeviceLost extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param message what the device or its driver said
    public DeviceLost(String message) {
        super(message);
    }

    /// @param message what the device or its driver said
    /// @param cause what was thrown
    public DeviceLost(String message, Throwable cause) {
        super(message, cause);
    }
}
