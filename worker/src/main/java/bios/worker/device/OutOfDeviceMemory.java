package bios.worker.device;

/// An allocation exceeds a device's memory; nothing was allocated.
public final class OutOfDeviceMemory extends RuntimeException {
    private static final long serialVersionUID = 1;
    private final long needed;
    private final long inUse;
    private final long limit;

    /// @param needed bytes requested
    /// @param inUse bytes in use
    /// @param limit the device's memory limit in bytes
    public OutOfDeviceMemory(long needed, long inUse, long limit) {
        super(needed + " bytes were asked of a device with " + inUse + " of " + limit + " bytes in use");
        this.needed = needed;
        this.inUse = inUse;
        this.limit = limit;
    }

    /// Bytes that were asked for.
    public long needed() {
        return needed;
    }

    /// Bytes that were in use.
    public long inUse() {
        return inUse;
    }

    /// Bytes that there are.
    public long limit() {
        return limit;
    }
}
