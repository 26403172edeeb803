package bios.worker.device;

/// A device has too little memory for what was asked; nothing was taken.
public final class OutOfDeviceMemory extends RuntimeException {
    private static final long serialVersionUID = 1;
    private final long needed;
    private final long inUse;
    private final long limit;

    /// @param needed bytes that were asked for
    /// @param inUse bytes that were in use
    /// @param limit bytes that there are
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
