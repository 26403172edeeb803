package bios.worker.device;

/// The device does not work any more (a sticky error, a card that fell off the bus): no verb will succeed in
/// this process. The worker process ends, its runs move to other workers or wait for its restart. Never the
/// fault of the operation that happened to meet it.
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
